"""Models of `transformers` that open_clip has no form of: a folder with config.json enters, an encoder for evaluation
leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from degla.model import fast_paths
from degla.model.description import Description
from degla.model.encoder import Encoder
from degla.model.from_transformers import pooled
from degla.model.transformers_config import LAYOUTS
from degla.model.transformers_files import open_transformers


class TransformersClip(nn.Module):
    """The model behind the names that `Encoder` calls.

    Args:
        model: a `CLIPModel` or `SiglipModel`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def logit_scale(self) -> Tensor:
        """Logarithm of 1 over the temperature."""
        scale: Tensor = self.model.logit_scale
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        """What a model of the sigmoid loss adds to scaled similarities; None for one of the softmax loss."""
        return getattr(self.model, "logit_bias", None)

    def encode_image(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Projected features, not normalised."""
        return pooled(self.model.get_image_features(pixel_values=images))

    def encode_text(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts dim"]:
        """Projected features, not normalised; no mask, since CLIP looks back alone and SigLIP at the padding too."""
        return pooled(self.model.get_text_features(input_ids=tokens))


class TransformersEncoder(Encoder):
    """An encoder for evaluation; it cannot be saved in open_clip's form, and so not be trained or averaged."""

    def __init__(self, clip: TransformersClip, *, activation: str, padding: int, **parts: Any) -> None:
        super().__init__(clip, **parts)
        self._activation = activation
        # CLIP reads the end token and looks back alone; SigLIP looks both ways and reads the last position.
        self.trims, self.padding = padding == 0, padding

    @property
    def activation(self) -> str:
        """Of both towers, as config.json has it."""
        return self._activation

    def encode_captions(self, texts: Any) -> Float[Tensor, "texts dim"]:
        """Unit embeddings of tokenised texts."""
        return nn.functional.normalize(self.clip.encode_text(texts).float(), dim=-1)


def load_transformers_folder(folder: Path, *, device: str | torch.device = "cpu") -> TransformersEncoder:
    """Load weights, tokenizer and preprocessing, in float32 and evaluation mode. Nothing is fetched, no code is run.

    Raises:
        InputError: see `open_transformers`.
    """
    opened = open_transformers(folder)
    model, tokenizer, processor = opened.model, opened.tokenizer, opened.processor
    kind = LAYOUTS[model.config.model_type]
    config = model.config
    text, vision = config.text_config, config.vision_config
    context = int(text.max_position_embeddings)
    activations = dict.fromkeys((str(text.hidden_act), str(vision.hidden_act)))
    # Zeros behind the end token are never read by CLIP and are what trimming looks for.
    padding = 0 if kind == "clip" else int(_or(tokenizer.pad_token_id, text.pad_token_id, 1))
    encoder = TransformersEncoder(
        TransformersClip(model),
        activation=" and ".join(activations),
        padding=padding,
        description=Description(
            name=str(folder),
            model_config={"text_cfg": {"context_length": context}, "quick_gelu": "quick_gelu" in activations},
            preprocess_config=processor.to_dict(),
        ),
        tokenize=_Tokenize(tokenizer, context=context, padding=padding),
        transform=_Transform(processor),
    )
    encoder.to(device).float().eval()
    fast_paths.tell(encoder)
    return encoder


def _or(*values: int | None) -> int:
    return next(value for value in values if value is not None)


class _Tokenize:
    """Texts to token numbers `[texts, context]`, cut to the context with their end token kept."""

    def __init__(self, tokenizer: Any, *, context: int, padding: int) -> None:
        self._tokenizer, self._context, self._padding = tokenizer, context, padding

    def __call__(self, texts: list[str]) -> Int[Tensor, "texts context"]:
        rows = self._tokenizer(list(texts), truncation=True, max_length=self._context)["input_ids"]
        padded = torch.full((len(rows), self._context), self._padding, dtype=torch.long)
        for place, row in zip(padded, rows, strict=True):
            place[: len(row)] = torch.tensor(row, dtype=torch.long)
        return padded


class _Transform:
    """The folder's own preprocessing: a PIL image to `[3, height, width]`."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, image: Any) -> Float[Tensor, "3 height width"]:
        pixels: Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels
