"""Compare the embeddings of an exported folder with those of the model on generated images and texts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from degla.errors import DeglaError
from degla.model import probe
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.model.text import can_trim, end_token, masks_padding
from degla.prefixes import ends_of

_SHAPES = ((96, 64), (50, 75), (64, 64), (33, 40))


@dataclass(frozen=True)
class Probe:
    """Generated inputs, and a model's own embeddings of them.

    Attributes:
        pictures: RGB images.
        pixels: the images after the model's transform.
        tokens: of `probe.TEXTS`, from the model's tokenizer.
        images: unit-length embeddings of the images.
        texts: unit-length embeddings of the texts.
    """

    pictures: tuple[Image.Image, ...]
    pixels: Float[Tensor, "pictures 3 height width"]
    tokens: Int[Tensor, "texts context"]
    images: Float[Tensor, "pictures dim"]
    texts: Float[Tensor, "texts dim"]

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: Encoder) -> Probe:
        """Generate the inputs of a model and embed them with its plain towers."""
        pictures = tuple(
            probe.picture(width=width, height=height, seed=number) for number, (width, height) in enumerate(_SHAPES)
        )
        pixels = torch.stack([encoder.transform(picture) for picture in pictures])
        tokens = encoder.tokenize(list(probe.TEXTS))
        return cls(pictures, pixels, tokens, encoder.encode_images(pixels), encoder.encode_captions(tokens))

    def require(self, what: str, images: Tensor, texts: Tensor, *, bound: float) -> float:
        """Return the largest difference to other embeddings of the same inputs, which must be within the bound.

        Raises:
            DeglaError: it is larger than the bound.
        """
        difference = max(probe.gap(images, self.images), probe.gap(texts, self.texts))
        probe.require_close(what, difference, bound)
        return difference


def require_tokens(what: str, encoder: Encoder, own: Tensor, other: Tensor) -> None:
    """Refuse token ids that differ from the model's; ids after the end token, which no tower reads, may differ.

    Raises:
        DeglaError: names the text.
    """
    mask = torch.ones_like(own, dtype=torch.bool)
    if can_trim(encoder.clip) and not masks_padding(encoder.clip):
        end = ends_of(own, end_token(encoder.clip))
        mask = torch.arange(own.shape[1])[None] <= end[:, None]
    same = own.shape == other.shape and bool((own == other)[mask].all())
    if not same:
        rows = range(len(own)) if own.shape == other.shape else ()
        wrong = next((n for n in rows if not bool((own[n] == other[n])[mask[n]].all())), 0)
        raise DeglaError(
            f"{what}: encodes the text {probe.TEXTS[wrong]!r} differently from the model's own tokenizer. Nothing was "
            "written. Export it to open_clip."
        )


def check_open_clip(encoder: Encoder, folder: Path) -> float:
    """Load the folder with degla and with plain open_clip; return the largest difference to the model's embeddings.

    Raises:
        DeglaError: embeddings differ by more than rounding, or texts are encoded differently.
    """
    import open_clip

    reference = Probe.of(encoder)
    again = load_encoder(str(folder))
    plain, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = reference.tokens
    # open_clip reads tokenizers other than its own with transformers, which may not be installed.
    if not encoder.description.tokenizer_files or find_spec("transformers"):
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(probe.TEXTS))
    for tokenize, numbers in (("degla", again.tokenize(list(probe.TEXTS))), ("open_clip", tokens)):
        require_tokens(tokenize, encoder, reference.tokens, numbers)
    pixels = torch.stack([transform(picture) for picture in reference.pictures])
    with torch.no_grad():
        own = reference.require(
            "degla", again.encode_images(reference.pixels), again.encode_captions(reference.tokens), bound=probe.EXACT
        )
        alone = reference.require(
            "open_clip", plain.eval().encode_image(pixels), plain.encode_text(tokens), bound=probe.EXACT
        )
    return max(own, alone)
