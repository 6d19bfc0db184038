"""A transformers folder as an encoder: an equivalent open_clip model, trained and averaged like any other; or, if
open_clip has no equivalent, the transformers model itself for evaluation."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from degla.errors import InputError
from degla.model import fast_paths, probe
from degla.model.encoder import Description, Encoder
from degla.model.tokenizer import TOKENIZER_FILES, VOCABULARIES, clip_tokenizer
from degla.model.transformers_files import Opened, open_transformers, stored_type
from degla.model.transformers_map import (
    LAYOUTS,
    NoExactFormError,
    model_config_of,
    pieces,
    preprocess_config_of,
    to_open_clip,
)
from degla.model.weights_file import Undrawn

log = logging.getLogger("degla.model")


def load_from_transformers(folder: Path, *, name: str) -> Encoder:
    """Load a CLIP, MetaCLIP 2 or SigLIP of transformers as an open_clip model with the same weights, in float32.

    Embeddings of generated images and texts are compared with those from transformers. Images go through open_clip's
    transform with the folder's size, mean, standard deviation, interpolation and crop.

    Args:
        folder: with config.json, weights, tokenizer and preprocessor_config.json.
        name: of the model as given by the user.

    Raises:
        NoExactFormError: open_clip has no equivalent model; the folder can still be scored.
        InputError: see `open_transformers`.
    """
    opened = open_transformers(folder)
    try:
        return _converted(opened, folder, name)
    except NoExactFormError as error:
        refusal = NoExactFormError(
            f"{name}: {error}. `degla evaluate` can still score such a model with transformers itself; to train, use "
            "another model."
        )
        refusal.folder = folder
        raise refusal from None


def _converted(opened: Opened, folder: Path, name: str) -> Encoder:
    import open_clip

    config = opened.model.config
    model_config = model_config_of(config)
    size = int(model_config["vision_cfg"]["image_size"])
    preprocess = preprocess_config_of(opened.processor.to_dict(), size=size)
    clip = _build(model_config)
    plan = pieces(
        LAYOUTS[config.model_type],
        text_layers=int(config.text_config.num_hidden_layers),
        image_layers=int(config.vision_config.num_hidden_layers),
        text="text." if model_config.get("custom_text") else "",
    )
    shapes = {key: value.shape for key, value in clip.state_dict().items()}
    try:
        clip.load_state_dict(to_open_clip(opened.model.state_dict(), plan, shapes), strict=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise NoExactFormError(f"its weights do not match open_clip's model: {error}") from None
    clip.eval()
    text = model_config["text_cfg"]
    files = _take_tokenizer(opened.tokenizer, text, folder, name)
    context = int(text["context_length"])
    if files:
        tokenize: Any = open_clip.tokenizer.HFTokenizer(str(folder), context_length=context)
    else:
        tokenize = clip_tokenizer(context)
    _compare(opened.model, clip, tokenize, size)
    if stored_type(folder) != "float32":
        log.info("%s: weights are stored as %s, but used and saved as float32.", name, stored_type(folder))
    open_clip.model.set_model_preprocess_cfg(clip, preprocess)
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**preprocess), is_train=False)
    description = Description(name=name, model_config=model_config, preprocess_config=preprocess, tokenizer_files=files)
    return Encoder(clip, description=description, tokenize=tokenize, transform=transform)


def _build(model_config: dict[str, Any]) -> nn.Module:
    import open_clip

    options = {key: value for key, value in model_config.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if model_config.get("custom_text") else open_clip.CLIP
    with Undrawn():  # Every weight is loaded afterwards.
        model: nn.Module = kind(**json.loads(json.dumps(options)))
    return model


def _take_tokenizer(tokenizer: Any, text: dict[str, Any], folder: Path, name: str) -> tuple[Path, ...]:
    """Return the files of the folder's tokenizer and record it in `text`; none if it is open_clip's own."""
    if _is_own(tokenizer):
        return ()
    files = tuple(folder / file for file in TOKENIZER_FILES if (folder / file).is_file())
    if not any(path.name in VOCABULARIES for path in files):
        raise InputError(f"{folder}: has no tokenizer ({', '.join(VOCABULARIES)}). Fetch it again.")
    text["hf_tokenizer_name"] = name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else folder.name
    return files


def _is_own(tokenizer: Any) -> bool:
    """Whether a transformers tokenizer has the vocabulary, merges and special tokens of OpenAI's CLIP."""
    own = clip_tokenizer(77)
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    if tokenizer.get_vocab() != {names.get(token, token): number for token, number in own.encoder.items()}:
        return False
    texts = list(probe.TEXTS)
    rows = tokenizer(texts, padding="max_length", truncation=True, max_length=own.context_length, return_tensors="pt")
    numbers, end = own(texts), own.eot_token_id
    # The padding ids differ, but no causal tower reads them after the end token.
    behind = (numbers == end).cumsum(1) - (numbers == end).int() > 0
    return bool((rows["input_ids"] == numbers)[~behind].all())


@torch.no_grad()
def _compare(model: Any, clip: Any, tokenize: Any, size: int) -> None:
    pictures, texts = probe.pixels((size, size)), tokenize(list(probe.TEXTS))
    differences = {
        "images": probe.gap(pooled(model.get_image_features(pixel_values=pictures)), clip.encode_image(pictures)),
        "texts": probe.gap(pooled(model.get_text_features(input_ids=texts)), clip.encode_text(texts)),
    }
    for what, difference in differences.items():
        if not difference <= probe.EXACT:
            raise NoExactFormError(
                f"embeddings of {what} differ by {difference:.2g} between transformers and open_clip (at most "
                f"{probe.EXACT:g} is rounding)"
            )


def pooled(features: Any) -> torch.Tensor:
    """Return the embeddings from `get_image_features`: a tensor in transformers 4, an output object in version 5."""
    rows: torch.Tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    return rows


class TransformersClip(nn.Module):
    """Wraps a transformers model in the interface that `Encoder` uses.

    Args:
        model: a `CLIPModel` or `SiglipModel`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def logit_scale(self) -> Tensor:
        """Logarithm of the inverse temperature."""
        scale: Tensor = self.model.logit_scale
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        """Bias that a sigmoid-loss model adds to scaled similarities; None for a softmax-loss model."""
        return getattr(self.model, "logit_bias", None)

    def encode_image(
        self, images: Float[Tensor, "batch 3 height width"], normalize: bool = False
    ) -> Float[Tensor, "batch dim"]:
        """Return projected features; `normalize` as in open_clip."""
        rows = pooled(self.model.get_image_features(pixel_values=images))
        return nn.functional.normalize(rows, dim=-1) if normalize else rows

    def encode_text(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts dim"]:
        """Return projected features, not normalised; no mask, since CLIP is causal and SigLIP attends to padding."""
        return pooled(self.model.get_text_features(input_ids=tokens))


class TransformersEncoder(Encoder):
    """An encoder for evaluation only: it cannot be saved for open_clip, and so cannot be trained or averaged."""

    _image_weights = ("model.vision_model.", "model.visual_projection.")

    def __init__(self, clip: TransformersClip, *, activation: str, trims: bool, padding: int, **parts: Any) -> None:
        super().__init__(clip, **parts)
        self._activation, self.trims, self.padding = activation, trims, padding

    @property
    def activation(self) -> str:
        """Activation of both towers, as named in config.json."""
        return self._activation

    def encode_captions(self, texts: Any) -> Float[Tensor, "texts dim"]:
        """Return unit-length embeddings of tokenised texts."""
        return nn.functional.normalize(self.clip.encode_text(texts).float(), dim=-1)


def load_transformers_folder(
    folder: Path, *, name: str = "", device: str | torch.device = "cpu"
) -> TransformersEncoder:
    """Load weights, tokenizer and preprocessing, in float32 and evaluation mode. Fetches nothing and runs no code.

    Args:
        folder: as for `load_from_transformers`.
        name: of the model as given by the user; the folder by default.
        device: of the parameters.

    Raises:
        InputError: see `open_transformers`.
    """
    opened = open_transformers(folder)
    model, tokenizer, processor = opened.model, opened.tokenizer, opened.processor
    kind = LAYOUTS[model.config.model_type]
    config = model.config
    text, vision = config.text_config, config.vision_config

    if opened.shape != [3, vision.image_size, vision.image_size]:
        raise InputError(
            f"{folder}: its image processor makes images of {opened.shape[-1]} x {opened.shape[-2]} pixels, but "
            f"config.json says {vision.image_size} (vision_config.image_size). Fetch both files of the same model."
        )
    context = int(text.max_position_embeddings)
    activations = dict.fromkeys((str(text.hidden_act), str(vision.hidden_act)))
    # CLIP is causal and reads the end token; SigLIP is bidirectional and reads the last position.
    trims = kind == "clip"
    # CLIP never reads the zeros after the end token, and trimming relies on them.
    choices = (tokenizer.pad_token_id, text.pad_token_id, 1)
    padding = 0 if trims else int(next(number for number in choices if number is not None))

    def tokenize(texts: list[str]) -> Int[Tensor, "texts context"]:
        """Tokenise and truncate to the context length, keeping the end token."""
        rows = tokenizer(list(texts), truncation=True, max_length=context)["input_ids"]
        padded = torch.full((len(rows), context), padding, dtype=torch.long)
        for place, row in zip(padded, rows, strict=True):
            place[: len(row)] = torch.tensor(row, dtype=torch.long)
        return padded

    encoder = TransformersEncoder(
        TransformersClip(model),
        activation=" and ".join(activations),
        trims=trims,
        padding=padding,
        description=Description(
            name=name or str(folder),
            model_config={
                "text_cfg": _settings(text) | {"context_length": context, "trims": trims},
                "vision_cfg": _settings(vision),
                "quick_gelu": "quick_gelu" in activations,
            },
            preprocess_config=processor.to_dict(),
        ),
        tokenize=tokenize,
        transform=lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0],
    )
    encoder.to(device).float().eval()
    fast_paths.tell(encoder)
    return encoder


def _settings(tower: Any) -> dict[str, Any]:
    """A tower's settings in config.json, without its path: the embedding cache identifies a network by them."""
    return {name: value for name, value in tower.to_dict().items() if name != "_name_or_path"}
