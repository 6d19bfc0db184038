"""`Encoder`: any open_clip model behind two calls, with its tokenizer, its transforms and its identity."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from degla.errors import InputError
from degla.inputs import Pictures
from degla.model.image import SeesAttention, averages_a_map, encode_class_token, encode_patches, reads_class_token
from degla.model.integrity import digest_of_weights
from degla.model.text import (
    can_trim,
    encode_tokens,
    encode_tree,
    encode_tree_states,
    encode_trimmed,
    padding_token,
    tree_grower,
)
from degla.model.towers import forget_activations, rest_what_stays
from degla.prefixes import GrowTree, PrefixTree, Tokenize

EvaluationTransform = Callable[[Any], Float[Tensor, "3 height width"]]


@dataclass(frozen=True)
class Description:
    """What a model is beyond its weights: all that a checkpoint folder must say so that others load the same thing.

    Attributes:
        name: how the user named it.
        model_config: open_clip's `model_cfg`.
        preprocess_config: open_clip's `preprocess_cfg`: size, mean, std, interpolation, resize mode.
        tokenizer_files: files that the tokenizer is read from where it is not open_clip's own.
    """

    name: str
    model_config: dict[str, Any]
    preprocess_config: dict[str, Any]
    tokenizer_files: tuple[Path, ...] = field(default=())

    @property
    def quick_gelu(self) -> bool:
        """Whether the activation is QuickGELU, x sigmoid(1.702 x), rather than GELU."""
        return bool(self.model_config.get("quick_gelu", False))

    @property
    def activation(self) -> str:
        """Name of the activation function, "quick_gelu" or "gelu"."""
        return "quick_gelu" if self.quick_gelu else "gelu"


class TowerOutputs(NamedTuple):
    """What the towers say of images and texts. What was not asked for is None.

    Attributes:
        image: unit embeddings of the images [images, D].
        text: unit embeddings of the texts [texts, D].
        patch: outputs for the patches of each image [images, patches, D], not of unit length.
        token: outputs for the tokens of each text [texts, length, D], not of unit length.
        raw_image: embeddings of the images before they are brought to length one [images, D].
        state: state of each text's end token after the last norm, before the projection [texts, W].
    """

    image: Tensor | None
    text: Tensor | None
    patch: Tensor | None = None
    token: Tensor | None = None
    raw_image: Tensor | None = None
    state: Tensor | None = None


class Encoder(nn.Module):
    """An open_clip model whose embeddings are unit rows in float32.

    Args:
        clip: the open_clip model; its parameters are this module's only ones.
        description: name, configuration and tokenizer files.
        tokenize: texts to padded token numbers [texts, context].
        transform: the model's own evaluation transform, a PIL image to [3, height, width].
    """

    _image_weights: ClassVar[tuple[str, ...]] = ("visual.",)
    """What the names of the image tower's weights begin with."""

    def __init__(
        self, clip: nn.Module, *, description: Description, tokenize: Tokenize, transform: EvaluationTransform
    ) -> None:
        super().__init__()
        self.clip: Any = clip  # open_clip's models share methods but no typed base.
        self.description = description
        self.tokenize = tokenize
        self.transform = transform
        self.trims = can_trim(clip)
        self.padding = padding_token(clip)
        """What `tokenize` fills texts up with."""
        self.grow: GrowTree | None = tree_grower(clip)
        """Makes trees of shared beginnings for this text tower; None where they would not be exact, or to pad."""
        self.precision = "fp32"
        self.moves_statistics = False
        """Whether training moves the statistics of BatchNorm; they stay as they came otherwise."""
        self._plain_kernels = True
        self._masked_as: tuple[Tensor, ...] = ()
        self._encode_tree: Callable[..., Tensor] = encode_tree
        self.reads_class_token = reads_class_token(clip)
        self._gives_patches = self.reads_class_token or averages_a_map(clip)
        self._encode_image: Callable[[Any, Tensor, Tensor | None], Tensor] | None
        self._encode_image = encode_class_token if self.reads_class_token else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """A copy of the network; the tokenizer's tables and what else never changes stay one."""
        memo |= {id(value): value for value in (self.tokenize, self.transform, self.description)}
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    @property
    def name(self) -> str:
        """How the user named the model."""
        return self.description.name

    @property
    def activation(self) -> str:
        """ "quick_gelu" or "gelu"."""
        return self.description.activation

    @property
    def context_length(self) -> int:
        """Largest number of tokens of a text."""
        return int(self.description.model_config["text_cfg"].get("context_length", 77))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = self.clip.logit_scale.device
        return device

    @property
    def scale(self) -> Float[Tensor, ""]:
        """1 over the temperature: the exponential of the learnt `logit_scale`."""
        scale: Tensor = self.clip.logit_scale.exp().reshape(())
        return scale

    @property
    def bias(self) -> Float[Tensor, ""] | None:
        """What is added to scaled similarities, the learnt `logit_bias`; None for a model of the softmax loss."""
        bias: Tensor | None = getattr(self.clip, "logit_bias", None)
        return None if bias is None else bias.reshape(())

    def add_bias(self, bias: float, *, scale: float) -> None:
        """Make a model of the softmax loss one of the sigmoid loss, with this bias and this scale.

        Raises:
            InputError: it has a bias.
        """
        if self.bias is not None:
            raise InputError(f"{self.name}: has a logit_bias. Name a model of the softmax loss.")
        self.clip.logit_scale.data.fill_(scale).log_()
        self.clip.logit_bias = nn.Parameter(torch.tensor(bias))
        self.description.model_config["init_logit_bias"] = bias

    @property
    def gives_tokens(self) -> bool:
        """Whether `embed` can be called with `dense`."""
        return self._gives_patches and self.grow is not None

    @property
    def fingerprint(self) -> str:
        """sha256 over names, shapes and values of all parameters and stored buffers; reads all weights."""
        return digest_of_weights(self.clip.state_dict())

    @property
    def image_fingerprint(self) -> str:
        """The same of the image tower alone, on which embeddings of images depend."""
        return digest_of_weights(
            {name: value for name, value in self.clip.state_dict().items() if name.startswith(self._image_weights)}
        )

    def train(self, mode: bool = True) -> Encoder:
        """Training mode for what is trained; what is frozen, and BatchNorm that keeps its statistics, stay as in use.

        What is frozen has no parameter with `requires_grad`.
        """
        super().train(mode)
        if mode:
            rest_what_stays(self.clip, statistics=not self.moves_statistics)
        return self

    def encode_images(self, images: Pictures) -> Float[Tensor, "batch dim"]:
        """Unit embeddings of transformed images; those of embeddings are the embeddings, at length one."""
        return nn.functional.normalize(self._encode_raw(images), dim=-1)

    def _encode_raw(self, images: Pictures, kept: Tensor | None = None) -> Float[Tensor, "batch dim"]:
        if kept is not None:
            self.refuse_without_class_token("--views.left-out")
        if images.ndim < 4:  # Embedded once, before the first step.
            return (images if images.ndim == 2 else images[:, 0]).float()
        tower = getattr(self.clip, "visual", self.clip)
        images = images.to(next(tower.parameters()).dtype)  # That of `encoder.half()`.
        if self._encode_image is not None:
            return self._encode_image(self.clip, images, kept).float()
        with self._kernels():
            rows: Tensor = self.clip.encode_image(images)
        return rows.float()

    def encode_captions(self, texts: Int[Tensor, "texts length"] | PrefixTree) -> Float[Tensor, "texts dim"]:
        """Unit embeddings of tokenised texts.

        Args:
            texts: token numbers of any length up to the context length where `trims` is true, else exactly the
                context length; or a tree of texts made by `grow`, which saves making it here.
        """
        if isinstance(texts, Tensor) and self.grow is not None:
            texts = self.grow(texts).to(self.device, non_blocking=True)
        if isinstance(texts, PrefixTree):
            rows = self._encode_tree(self.clip, texts, *self._masked_as)
        else:
            with self._kernels():
                rows = encode_trimmed(self.clip, texts) if self.trims else self.clip.encode_text(texts)
        return nn.functional.normalize(rows.float(), dim=-1)

    def _encode_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        raw, patch = (images[:, 0], images[:, 1:]) if images.ndim == 3 else encode_patches(self.clip, images)
        return raw.float(), patch.float()

    def _encode_further(
        self, texts: Tensor | PrefixTree, encode: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Unit embeddings of texts, and what else `encode` says of their tree."""
        assert self.grow is not None
        tree = self.grow(texts).to(texts.device, non_blocking=True) if isinstance(texts, Tensor) else texts
        text, further = encode(self.clip, tree, *self._masked_as)
        return nn.functional.normalize(text.float(), dim=-1), further.float()

    def refuse_without_class_token(self, flag: str) -> None:
        """Refuse what only a vision transformer can do that is read at its class token.

        Raises:
            InputError: this image tower is none; names the flag.
        """
        if not self.reads_class_token:
            raise InputError(
                f"{flag}: {self.name}: its image tower is no plain vision transformer of open_clip that is read at its "
                "class token; leave the flag out."
            )

    def see_class_token(self, images: Tensor, look: SeesAttention) -> Float[Tensor, "batch dim"]:
        """Embeddings of images at any length; `look` sees the class token's attention (see `encode_class_token`)."""
        return encode_class_token(self.clip, images, look=look)

    def _check_asked(self, *, dense: bool, state: bool) -> None:
        """Refuse outputs that the towers do not give."""
        if state and self.grow is None:
            raise InputError(
                f"{self.name}: gives no state of a text's end token; its text tower must be open_clip's own, read at "
                "the end token, with --train.trim."
            )
        if dense and not self.gives_tokens:
            raise InputError(
                f"{self.name}: gives no outputs for patches and tokens; both towers must be open_clip's own, read at "
                "one token each, or the image tower one of timm that averages a map, with --train.trim."
            )

    def embed(
        self,
        images: Pictures | None,
        texts: Int[Tensor, "texts length"] | PrefixTree | None,
        *,
        dense: bool = False,
        raw: bool = False,
        kept: Int[Tensor, "images kept"] | None = None,
        state: bool = False,
    ) -> TowerOutputs:
        """Embeddings of the images and texts that are given.

        Args:
            images: transformed images.
            texts: as for `encode_captions`.
            dense: give the outputs for patches and tokens, too.
            raw: give the images' embeddings before they are brought to length one, too.
            kept: numbers of the patches of each image that are read; all by default. Not together with `dense`.
            state: give the states of the texts' end tokens, too; not together with `dense`.

        Raises:
            InputError: `dense` without `gives_tokens`, `kept` without `reads_class_token`, or `state` where the text
                tower gives none.
        """
        self._check_asked(dense=dense, state=state)
        image = text = patch = token = raw_image = states = None
        if images is not None:
            raw_image, patch = self._encode_patches(images) if dense else (self._encode_raw(images, kept), None)
            image = nn.functional.normalize(raw_image, dim=-1)
        if texts is not None and state:
            text, states = self._encode_further(texts, encode_tree_states)
        elif texts is not None:
            text, token = self._encode_further(texts, encode_tokens) if dense else (self.encode_captions(texts), None)
        return TowerOutputs(image, text, patch, token, raw_image if raw else None, states)

    def forward(
        self, images: Pictures | None, texts: Int[Tensor, "texts length"] | PrefixTree | None, **asked: Any
    ) -> tuple[Tensor | None, ...]:
        """All fields of what `embed` gives, scale and bias: the call that data-parallel training wraps."""
        return (*self.embed(images, texts, **asked), self.scale, self.bias)

    def read_masked_as(self, token: Float[Tensor, " width"]) -> None:
        """Put `token` where a text has the number `degla.prefixes.MASKED`; it is no part of the model and its state."""
        self._masked_as = (token,)  # In a tuple, it is no parameter of this module.

    def compile(self, *, backend: Any = "inductor") -> None:
        """Compile both towers, once for all numbers of texts and nodes."""
        self._encode_tree = torch.compile(encode_tree, dynamic=True, backend=backend)
        if self._encode_image is not None:
            self._encode_image = torch.compile(encode_class_token, backend=backend)

    def checkpoint_gradients(self) -> None:
        """Keep no activations inside the blocks; the backward pass computes them again.

        Raises:
            InputError: a tower has no such option.
        """
        forget_activations(self.clip, name=self.name)
        # The second pass runs outside `_kernels`, and must take the same ones.
        self._plain_kernels = False

    @contextlib.contextmanager
    def _kernels(self) -> Iterator[None]:
        # The lengths of another library's tower are not known here: it is trained as short sequences are.
        trains = self.device.type == "cpu" and not torch.is_inference_mode_enabled()
        if trains and self._plain_kernels:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield
