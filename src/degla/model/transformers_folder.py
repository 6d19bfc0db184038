"""CLIP and SigLIP as `transformers` saves them: a folder with config.json enters, an encoder for evaluation leaves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from degla.errors import InputError
from degla.model import fast_paths
from degla.model.encoder import Description, Encoder
from degla.parse import read_json

MODEL_TYPES = ("clip", "siglip")
"""Values of config.json's `model_type` that can be read; SigLIP 2 of fixed resolution is "siglip" too."""


def is_transformers_folder(folder: Path) -> bool:
    """Whether it is a folder of `transformers` and not one of open_clip."""
    return (
        (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file() and _kind(folder) != ""
    )


def _kind(folder: Path) -> str:
    """`model_type` of config.json, "" where it has none: a run of `degla train` has a config.json of another sort."""
    try:
        content = read_json(folder / "config.json", constants=True)
    except InputError:
        return ""
    return str(content.get("model_type", "")) if isinstance(content, dict) else ""


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

    def encode_image(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Projected features, not normalised."""
        return _pooled(self.model.get_image_features(pixel_values=images))

    def encode_text(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts dim"]:
        """Projected features, not normalised; no mask, since CLIP looks back alone and SigLIP at the padding too."""
        return _pooled(self.model.get_text_features(input_ids=tokens))


def _pooled(features: Any) -> Tensor:
    # transformers 4 returns the features, transformers 5 a record that holds them.
    pooled: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return pooled


class TransformersEncoder(Encoder):
    """An encoder for evaluation; it cannot be saved in open_clip's form, and so not be trained or averaged."""

    def __init__(self, clip: TransformersClip, *, activation: str, padding: int, **parts: Any) -> None:
        super().__init__(clip, **parts)
        self._activation = activation
        # CLIP reads the end token and looks back alone; SigLIP looks both ways and reads the last position.
        self.trims = padding == 0

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
        InputError: `transformers` is not installed, the folder is of another kind of model, or a file is missing or
            damaged.
    """
    kind = _kind(folder)
    if kind not in MODEL_TYPES:
        raise InputError(
            f"{folder / 'config.json'}: field 'model_type' is {kind!r}; of transformers, {' and '.join(MODEL_TYPES)} "
            "can be evaluated."
        )
    try:
        import transformers
    except ImportError:
        raise InputError(
            f"{folder}: a folder of transformers, which is not installed. Install it: pip install 'degla[embedded]'."
        ) from None
    here = {"local_files_only": True, "trust_remote_code": False}
    logger = logging.getLogger("transformers")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        model, found = transformers.AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **here
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **here)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **here)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"{folder}: cannot be loaded by transformers: {' '.join(lines[:3])}") from None
    except Exception as error:  # safetensors and tokenizers raise kinds of their own for damaged files
        raise InputError(f"{folder}: cannot be loaded by transformers: {error}") from None
    finally:
        logger.setLevel(level)
    # transformers fills what is missing with random numbers and goes on.
    lacking = sorted(name for name in found["missing_keys"] if not name.endswith("position_ids"))
    if lacking or found.get("mismatched_keys"):
        raise InputError(
            f"{folder}: the weights lack {', '.join(lacking[:3]) or 'nothing'} ({len(lacking)} parameters) or do not "
            "fit config.json; every number would be wrong."
        )
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
