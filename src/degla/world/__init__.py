"""The embedded world: images with exact ground truth, and a small CLIP pre-trained on them, shipped here.

In: a seed. Out: pairs to fine-tune on and benchmarks of composition, recognition and retrieval, on disk in the
same formats as user data (`draw.draw_pairs`, `draw.draw_benchmark`), and a model folder for open_clip.
Contract: `world_model_folder`, `world_vocabulary_file`.
"""

from __future__ import annotations

from pathlib import Path

_MODEL = Path(__file__).parent / "model"


def world_model_folder() -> Path:
    """Return the folder of the pre-trained world model, for open_clip's `local-dir:`: config, weights, vocabulary.

    open_clip resolves the vocabulary's path relative to the working directory, so pass a tokenizer the absolute one:
    `get_tokenizer(f"local-dir:{world_model_folder()}", bpe_path=str(world_vocabulary_file()))`.
    """
    return _MODEL


def world_vocabulary_file() -> Path:
    """Return the trimmed list of merges that the world model's tokenizer reads."""
    return _MODEL / "bpe_world.txt.gz"
