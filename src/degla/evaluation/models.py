"""Models that can be scored: the interface that evaluation needs, floors, and loading a model by name.

Floors are models that cannot know the answer, scored like any other: `random` guesses, `blind` never sees the image.
Whatever a floor scores above chance needs no understanding of the image.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from degla.errors import InputError
from degla.evaluation.scoring import EmbeddingRows, unit_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

EvaluationPrecision = Literal["fp32", "bf16", "fp16"]
Activation = Literal["gelu", "quick_gelu"]
TextScorer = Literal["cosine", "standardised"]
"""How images are compared with texts."""
Scorer = Literal[TextScorer, "probe"]
SCORES_ARE: Final = {
    "standardised": "standardised scores: cosines minus a text's mean over all images, divided by their deviation",
    "probe": "linear probes: logistic regressions on image embeddings, without texts",
}
"""What scores are that are not of cosines."""
HALVES: Final = ("bf16", "fp16")
"""Half-precision formats of a forward pass (PyTorch's autocast)."""


class EmbeddingModel(Protocol):
    """What evaluation needs of a model; `degla.model.encoder.Encoder` satisfies it."""

    @property
    def name(self) -> str:
        """Name of the model as the user gave it."""

    @property
    def activation(self) -> str:
        """Activation function, "quick_gelu" or "gelu": it changes scores more than most methods do."""

    @property
    def fingerprint(self) -> str:
        """Identifies the weights in results: their sha256, or another text that no other weights have."""

    @property
    def precision(self) -> str:
        """Number format of the forward pass, for example "fp32"."""

    @property
    def context_length(self) -> int:
        """Largest number of tokens of a text."""

    @property
    def trims(self) -> bool:
        """Whether token rows may be cut to the longest text of a batch."""

    @property
    def device(self) -> Any:
        """Device that inputs must be on."""

    @property
    def tokenize(self) -> Any:
        """Callable: list of N texts to integer tokens `[N, context]`; where `trims` is True, padded with 0."""

    @property
    def transform(self) -> Any:
        """Callable: PIL image to float `[3, H, W]`, the model's evaluation transform."""

    @property
    def scale(self) -> Any:
        """Logit scale (1 / temperature), a tensor or a number, used by losses; None if there is none, as for floors."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode `[B, 3, H, W]` to rows `[B, D]` of any length: evaluation normalises them."""

    def encode_captions(self, tokens: Tensor) -> Tensor:
        """Encode `[N, T]` to rows `[N, D]`, likewise."""


_FLOOR_KINDS = ("random", "blind")
DIMENSION = 512
"""Dimension of random rows: two of them have a cosine of 0 ± 1 / sqrt(512)."""
Dislike = Callable[[Sequence[str]], Sequence[float]]
"""Texts to how unlikely each is, 0 or more."""


def meaning_of(floor: str) -> str:
    """Return what a floor of that name answers, as shown on pages."""
    if floor.startswith("random"):
        return "a random direction for each image and text"
    return "the shorter text" if floor == "blind" else "the text that a language model finds more likely"


def load_floor(name: str) -> EmbeddingModel:
    """Create the floor with this name.

    ``random`` and ``random:SEED``: a random unit row for each image and text, the same for the same content.
    ``blind``: prefers the shorter text, whatever the image; equal lengths are ordered at random. It is right wherever
    the negative adds words. ``blind:embedded`` and ``blind:FILE``: prefers the text whose tokens are more likely
    on average under a language model.

    Raises:
        InputError: there is no such floor, or its language model cannot be opened.
    """
    kind, _, setting = name.partition(":")
    if kind == "random":
        if setting and not setting.isdecimal():
            raise InputError(f"{name}: must be random or random:SEED, with a seed of 0 or more.")
        return RandomModel(name, seed=int(setting or 0))
    if kind == "blind":
        if not setting:
            return BlindModel(name, count_characters, fingerprint="characters")
        dislike, fingerprint = open_dislike(setting)
        return BlindModel(name, dislike, fingerprint=fingerprint)
    raise InputError(f"{name}: unknown floor. Known: {', '.join(_FLOOR_KINDS)}.")


def seed_of(name: str) -> int | None:
    """Return the seed of a random floor, used as its training seed; None for any other model."""
    kind, _, setting = name.partition(":")
    return int(setting or 0) if kind == "random" and (setting or "0").isdecimal() else None


class Floor:
    """Base class of floors: images and texts are identified by the digests of their contents.

    Attributes:
        activation: "none", since a floor is no network.
        scale: None, for the same reason.
    """

    activation = "none"
    precision = "fp32"
    context_length = 16
    trims = False
    device = "cpu"
    scale = None

    def __init__(self, name: str, *, fingerprint: str) -> None:
        self.name = name
        self.fingerprint = hashlib.sha256(fingerprint.encode()).hexdigest()
        self._texts: dict[bytes, str] = {}

    def tokenize(self, texts: list[str]) -> Tensor:
        """Return the digest of each text as sixteen numbers from 1 to 65,536."""
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        self._texts |= dict(zip(digests, texts, strict=True))
        return _numbers(digests)

    def transform(self, image: Any) -> Tensor:
        """Return the digest of an image's pixels in the same form."""
        return _numbers([hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()])[0]

    def _texts_of(self, tokens: Tensor) -> list[str]:
        digests = [(row - 1).astype(np.uint16).tobytes() for row in tokens.numpy()]
        return [self._texts[digest] for digest in digests]


class RandomModel(Floor):
    """Model that gives every image and every text its own random direction.

    Args:
        name: as the user gave it.
        seed: of the directions.
    """

    def __init__(self, name: str, *, seed: int) -> None:
        super().__init__(name, fingerprint=f"random {seed} {DIMENSION}")
        self.seed = seed

    def encode_images(self, images: Tensor) -> Tensor:
        """`[B, 16]` digests to unit rows `[B, D]`."""
        return self._rows(images, kind=0)

    def encode_captions(self, tokens: Tensor) -> Tensor:
        """`[N, 16]` digests to unit rows `[N, D]`."""
        return self._rows(tokens, kind=1)

    def _rows(self, digests: Tensor, *, kind: int) -> Tensor:
        import torch

        rows = [np.random.default_rng([self.seed, kind, *row]).standard_normal(DIMENSION) for row in digests.tolist()]
        return torch.from_numpy(unit_rows(np.stack(rows)))


class BlindModel(Floor):
    """Model that gives each text one similarity for all images: unit vectors in the plane, images on the first axis.

    Args:
        name: as the user gave it.
        dislike: how unlikely each text is; lower is preferred.
        fingerprint: identifies `dislike`.
    """

    def __init__(self, name: str, dislike: Dislike, *, fingerprint: str) -> None:
        super().__init__(name, fingerprint=f"blind {fingerprint}")
        self._dislike = dislike

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode any images to the same unit rows `[B, 2]`."""
        import torch

        return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    def encode_captions(self, tokens: Tensor) -> Tensor:
        """Encode `[N, 16]` digests to unit rows `[N, 2]`, whose cosine with every image falls with the dislike."""
        import torch

        disliked = np.array(self._dislike(self._texts_of(tokens)), dtype=np.float64)
        cosines = -disliked / (disliked + 64.0)
        rows: EmbeddingRows = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
        return torch.from_numpy(rows)


def count_characters(texts: Sequence[str]) -> list[float]:
    """Count the characters of each text, plus a fraction drawn from its content so that equal lengths do not tie."""
    starts = [hashlib.sha256(text.encode()).digest()[:4] for text in texts]
    return [len(text) + int.from_bytes(start, "big") / 2**32 for text, start in zip(texts, starts, strict=True)]


def _numbers(digests: Sequence[bytes]) -> Tensor:
    import torch

    rows = np.stack([np.frombuffer(digest, dtype=np.uint16) for digest in digests])
    return torch.from_numpy(rows.astype(np.int64) + 1)


_TEXTS_A_PASS = 32


def open_dislike(model: str) -> tuple[Callable[[Sequence[str]], list[float]], str]:
    """Load a causal language model, in float32.

    Args:
        model: "embedded" for the one of `degla negatives --llm embedded`, else a GGUF file, a folder or a hub id.

    Returns:
        A function from texts to minus their mean log-likelihood per token (nats), and an identifier of the model.

    Raises:
        InputError: the model is not installed, damaged or unsupported; raised by the function: a text is too long
            for the model.
    """
    from degla.negatives.llm.likelihood import Likelihood, TooLongError
    from degla.negatives.llm.weights import find_weights, load

    weights = find_weights(None if model == "embedded" else model)
    likelihood = Likelihood(*load(weights, precision="float32"))

    def dislike(texts: Sequence[str]) -> list[float]:
        try:
            tokens = [likelihood.encode(text) for text in texts]
            parts = [tokens[start : start + _TEXTS_A_PASS] for start in range(0, len(texts), _TEXTS_A_PASS)]
            means = [mean for part in parts for mean in likelihood.means(part)]
            return [-mean if own else 0.0 for mean, own in zip(means, tokens, strict=True)]
        except TooLongError as error:
            raise InputError(f"blind:{model}: a text is too long for the language model: {error}.") from None

    return dislike, f"{weights.name} {weights.digest}"


def takes_precision(model: EmbeddingModel) -> bool:
    """Whether a model's precision can be set, as for PyTorch models; others have a fixed one."""
    return hasattr(getattr(model, "clip", None), "logit_scale")


@contextlib.contextmanager
def computing_in(model: EmbeddingModel, precision: EvaluationPrecision) -> Iterator[None]:
    """Set the precision of a model's forward passes, also in provenance and caches; floors have none.

    This also overrides a precision set by training, so that validation always compares at one precision.

    Raises:
        InputError: the model is not a PyTorch model, so its file fixes the precision; or its weights are not float32,
            which provenance would not show.
    """
    if not takes_precision(model):
        if precision != "fp32" and not isinstance(model, Floor):
            raise _fixed_precision(model.name, model.precision, precision)
        yield
        return
    network: Any = model
    if (kind := str(network.clip.logit_scale.dtype)) != "torch.float32":
        raise InputError(f"{model.name}: weights are {kind}. Load them in float32 and set the precision by option.")
    before, network.precision = network.precision, precision
    try:
        yield
    finally:
        network.precision = before


@contextlib.contextmanager
def activated(model: EmbeddingModel, activation: Activation | None) -> Iterator[None]:
    """Compute with this activation function, whatever the weights were trained with, also in provenance and caches.

    Many published numbers are of weights that were trained with QuickGELU and evaluated with GELU.

    Args:
        model: a floor has none.
        activation: None: the model's own.

    Raises:
        InputError: the model's activation cannot be exchanged: it is not one of open_clip's own transformers.
    """
    if activation in (None, model.activation) or isinstance(model, Floor):
        yield
        return
    from open_clip.transformer import QuickGELU
    from torch import nn

    network: Any = model
    kinds = {"gelu": nn.GELU, "quick_gelu": QuickGELU}
    old, new = kinds.get(model.activation), kinds[activation]
    places = [
        (block, name, child)
        for block in (network.clip.modules() if takes_precision(model) else ())
        for name, child in block.named_children()
        if type(child) is old
    ]
    config = network.description.model_config if places else {}
    foreign = config.get("vision_cfg", {}).get("timm_model_name") or config.get("text_cfg", {}).get("hf_model_name")
    if not places or foreign or any(getattr(child, "approximate", "none") != "none" for _, _, child in places):
        raise InputError(f"{model.name}: its activation function is part of its towers and cannot be set.")
    before = network.description
    network.description = replace(before, model_config=config | {"quick_gelu": activation == "quick_gelu"})
    for block, name, _ in places:
        setattr(block, name, new())
    try:
        yield
    finally:
        network.description = before
        for block, name, child in places:
            setattr(block, name, child)


def check_precision(names: Sequence[str], precision: EvaluationPrecision) -> None:
    """Reject a precision for ONNX folders, which have a fixed one, before any model is loaded.

    Raises:
        InputError: one of the names is an ONNX folder, and the precision is not fp32.
    """
    from degla.model.address import folder_here
    from degla.model.onnx_folder import is_onnx_folder

    for name in names if precision != "fp32" else ():
        if not means_floor(name) and is_onnx_folder(folder_here(name)):
            raise _fixed_precision(name, "a fixed precision", precision)


def _fixed_precision(name: str, own: str, precision: EvaluationPrecision) -> InputError:
    return InputError(
        f"{name}: computes in {own}, set by its files; precision {precision} is only for PyTorch models. Omit it "
        "for this one."
    )


def means_floor(name: str) -> bool:
    """Whether a name is that of a floor (random, random:SEED, blind, blind:LANGUAGE_MODEL), not of a file or folder."""
    return name.partition(":")[0] in _FLOOR_KINDS and not Path(name).exists()


def load_model(name: str, *, device: str | torch.device = "cpu") -> EmbeddingModel:
    """Load a model for evaluation.

    Args:
        name: random, random:SEED, blind, blind:LANGUAGE_MODEL, a folder of ONNX graphs, or any form of
            `degla.model.load.FORMS`; transformers folders also when open_clip has no equivalent model. An existing
            folder takes precedence over a floor.
        device: device of its parameters.

    Raises:
        InputError: see `load_floor`, `load_transformers_folder` and `load_encoder`.
    """
    if means_floor(name):
        return load_floor(name)
    import torch

    from degla.model.address import folder_here
    from degla.model.from_transformers import load_transformers_folder
    from degla.model.load import load_encoder
    from degla.model.onnx_folder import OnnxModel, is_onnx_folder
    from degla.model.transformers_map import NoExactFormError

    folder = folder_here(name)
    if is_onnx_folder(folder):
        return OnnxModel(folder, name=name)
    try:
        with torch.random.fork_rng(devices=[]):  # Initial weights may be drawn before the model's own are loaded.
            return load_encoder(name, device=device)
    except NoExactFormError as error:
        if error.folder is None:
            raise
        log.info("%s It is scored by transformers.", str(error).partition(". `degla")[0] + ".")
        return load_transformers_folder(error.folder, name=name, device=device)
