"""The embedded world: pictures with exact ground truth, and a small CLIP pre-trained on them, shipped here.

In: a seed. Out: pairs to fine-tune on and benchmarks of composition, recognition and retrieval, on disk in the
forms that a user's own data has (`draw.draw_pairs`, `draw.draw_benchmark`), and a model folder for open_clip.
Contract: `world_model_folder`, `world_vocabulary_file`.
"""

from __future__ import annotations

from pathlib import Path

_MODEL = Path(__file__).parent / "model"


def world_model_folder() -> Path:
    """Folder of the pre-trained world model in open_clip's `local-dir:` form: configuration, weights, vocabulary.

    open_clip takes the vocabulary's path relative to the working directory, so a tokenizer needs the absolute one:
    `get_tokenizer(f"local-dir:{world_model_folder()}", bpe_path=str(world_vocabulary_file()))`.
    """
    return _MODEL


def world_vocabulary_file() -> Path:
    """The trimmed list of merges that the world model's tokenizer reads."""
    return _MODEL / "bpe_world.txt.gz"
