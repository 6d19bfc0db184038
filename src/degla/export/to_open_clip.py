"""A model as a folder of open_clip with nothing but its weights, configuration and tokenizer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from degla.export.check import Probe, require_tokens
from degla.model import probe
from degla.model.checkpoint import save_encoder
from degla.model.encoder import Encoder
from degla.model.load import load_encoder


def write_open_clip(encoder: Encoder, folder: Path) -> None:
    """Write open_clip_config.json, open_clip_model.safetensors and tokenizer files."""
    save_encoder(encoder, folder)


def check_open_clip(encoder: Encoder, folder: Path) -> float:
    """Load the folder by degla and by open_clip alone; returns how far their embeddings are from the model's.

    Raises:
        DeglaError: they differ by more than rounding, or texts are numbered otherwise.
    """
    import open_clip

    made = Probe.of(encoder)
    again = load_encoder(str(folder))
    plain, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = made.tokens
    # Where the tokenizer is not its own, open_clip reads it by transformers, which need not be installed.
    if not encoder.description.tokenizer_files or find_spec("transformers"):
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(probe.TEXTS))
    for tokenize, numbers in (("degla", again.tokenize(list(probe.TEXTS))), ("open_clip", tokens)):
        require_tokens(tokenize, encoder, made.tokens, numbers)
    pixels = torch.stack([transform(picture) for picture in made.pictures])
    with torch.no_grad():
        own = made.require(
            "degla", again.encode_images(made.pixels), again.encode_captions(made.tokens), bound=probe.EXACT
        )
        alone = made.require(
            "open_clip", plain.eval().encode_image(pixels), plain.encode_text(tokens), bound=probe.EXACT
        )
    return max(own, alone)
