"""`Encoder`: any open_clip model behind two calls, with its tokenizer, transform and identity."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from degla.errors import InputError
from degla.inputs import FrozenStates, ImageInput, TowerInput
from degla.model.image import (
    SeesAttention,
    averages_a_map,
    encode_class_token,
    encode_patches,
    reads_class_token,
    run_frozen,
)
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
_Values = TypeVar("_Values", Tensor, PrefixTree)


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """Restore PyTorch's default type, to which weights and pixels would be rounded, and afterwards the program's."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def send(values: _Values, device: torch.device | str) -> _Values:
    """Copy from main memory to a device. Only from pinned memory does a copy to a GPU never wait for its work."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Description:
    """A model apart from its weights: everything that a checkpoint folder must record so that it loads the same.

    Attributes:
        name: the name given by the user.
        model_config: open_clip's `model_cfg`.
        preprocess_config: open_clip's `preprocess_cfg`: size, mean, std, interpolation, resize mode.
        tokenizer_files: files of the tokenizer, if it is not open_clip's own.
    """

    name: str
    model_config: dict[str, Any]
    preprocess_config: dict[str, Any]
    tokenizer_files: tuple[Path, ...] = field(default=())

    @property
    def quick_gelu(self) -> bool:
        """Whether the activation is QuickGELU, x sigmoid(1.702 x), instead of GELU."""
        return bool(self.model_config.get("quick_gelu", False))

    @property
    def activation(self) -> str:
        """Name of the activation function, "quick_gelu" or "gelu"."""
        return "quick_gelu" if self.quick_gelu else "gelu"


class TowerOutputs(NamedTuple):
    """Outputs of the towers for images and texts. Outputs that were not requested are None.

    Attributes:
        image: unit-length embeddings of the images [images, D].
        text: unit-length embeddings of the texts [texts, D].
        patch: outputs for the patches of each image [images, patches, D], not normalised.
        token: outputs for the tokens of each text [texts, length, D], not normalised.
        raw_image: embeddings of the images before normalisation [images, D].
        state: state of each text's end token after the last norm, before the projection [texts, W].
    """

    image: Tensor | None
    text: Tensor | None
    patch: Tensor | None = None
    token: Tensor | None = None
    raw_image: Tensor | None = None
    state: Tensor | None = None


class Encoder(nn.Module):
    """An open_clip model with unit-length embeddings in float32.

    Args:
        clip: the open_clip model; this module has no other parameters.
        description: name, configuration and tokenizer files.
        tokenize: maps texts to padded token ids [texts, context].
        transform: the model's own evaluation transform, which maps a PIL image to [3, height, width].
    """

    _image_weights: ClassVar[tuple[str, ...]] = ("visual.",)
    """Prefixes of the names of the image tower's weights."""

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
        """The id that `tokenize` pads texts with."""
        self.grow: GrowTree | None = tree_grower(clip)
        """Builds trees of shared prefixes for this text tower; None if they would not be exact, or to pad instead."""
        self.precision = "fp32"
        self.moves_statistics = False
        """Whether training updates the running statistics of BatchNorm; otherwise they stay fixed."""
        self._plain_kernels = True
        self._masked_as: tuple[Tensor, ...] = ()
        self._encode_tree: Callable[..., Tensor] = encode_tree
        self.reads_class_token = reads_class_token(clip)
        self._gives_patches = self.reads_class_token or averages_a_map(clip)
        self._encode_image: Callable[[Any, Tensor | FrozenStates, Tensor | None], Tensor] | None
        self._encode_image = encode_class_token if self.reads_class_token else None
        self._run_frozen: Callable[[Any, Tensor, int], FrozenStates] = run_frozen

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """Copy the network; the tokenizer's tables and other constants are shared."""
        memo |= {id(value): value for value in (self.tokenize, self.transform, self.description)}
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone

    @property
    def name(self) -> str:
        """The name of the model as given by the user."""
        return self.description.name

    @property
    def activation(self) -> str:
        """ "quick_gelu" or "gelu"."""
        return self.description.activation

    @property
    def context_length(self) -> int:
        """Maximum number of tokens in a text."""
        return int(self.description.model_config["text_cfg"].get("context_length", 77))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        size = self.description.preprocess_config["size"]
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        device: torch.device = self.clip.logit_scale.device
        return device

    @property
    def scale(self) -> Float[Tensor, ""]:
        """1 over the temperature: the exponential of the learnt `logit_scale`."""
        scale: Tensor = self.clip.logit_scale.exp().reshape(())
        return scale

    @property
    def bias(self) -> Float[Tensor, ""] | None:
        """The learnt `logit_bias` added to scaled similarities; None for a model trained with the softmax loss."""
        bias: Tensor | None = getattr(self.clip, "logit_bias", None)
        return None if bias is None else bias.reshape(())

    def add_bias(self, bias: float, *, scale: float) -> None:
        """Convert a softmax-loss model to the sigmoid loss, with this bias and this scale.

        Raises:
            InputError: it already has a bias.
        """
        if self.bias is not None:
            raise InputError(f"{self.name}: already has a logit_bias. Choose a model trained with the softmax loss.")
        self.clip.logit_scale.data.fill_(scale).log_()
        self.clip.logit_bias = nn.Parameter(torch.tensor(bias))
        self.description.model_config["init_logit_bias"] = bias

    @property
    def gives_tokens(self) -> bool:
        """Whether `embed` supports `dense`."""
        return self._gives_patches and self.grow is not None

    @property
    def fingerprint(self) -> str:
        """The sha256 of names, shapes and values of all parameters and stored buffers; reads all weights."""
        return digest_of_weights(self.clip.state_dict())

    @property
    def image_fingerprint(self) -> str:
        """As `fingerprint`, for the image tower only, which determines the embeddings of images."""
        return digest_of_weights(
            {name: value for name, value in self.clip.state_dict().items() if name.startswith(self._image_weights)}
        )

    def train(self, mode: bool = True) -> Encoder:
        """Set training mode for trained parts; frozen parts and BatchNorm with fixed statistics stay in eval mode.

        A part is frozen if none of its parameters has `requires_grad`.
        """
        super().train(mode)
        if mode:
            rest_what_stays(self.clip, statistics=not self.moves_statistics)
        return self

    def encode_images(self, images: TowerInput) -> Float[Tensor, "batch dim"]:
        """Return unit-length embeddings of transformed images; embeddings are only normalised."""
        return nn.functional.normalize(self._encode_raw(images), dim=-1)

    def _encode_raw(self, images: TowerInput, places: Tensor | None = None) -> Float[Tensor, "batch dim"]:
        if places is not None:
            self.refuse_without_class_token("--views.left-out")
        if not isinstance(images, FrozenStates):
            if images.ndim < 4:  # Embedded once before the first step.
                return (images if images.ndim == 2 else images[:, 0]).float()
            tower = getattr(self.clip, "visual", self.clip)
            images = images.to(next(tower.parameters()).dtype)  # Half precision after `encoder.half()`.
        if self._encode_image is not None:
            return self._encode_image(self.clip, images, places).float()
        with self._kernels():
            rows: Tensor = self.clip.encode_image(images, normalize=False)  # CoCa's default is True.
        return rows.float()

    def encode_captions(self, texts: Int[Tensor, "texts length"] | PrefixTree) -> Float[Tensor, "texts dim"]:
        """Return unit-length embeddings of tokenised texts.

        Args:
            texts: token ids of any length up to the context length if `trims` is true, else of exactly the context
                length; or a tree of texts made by `grow`.
        """
        if isinstance(texts, Tensor) and self.grow is not None:
            texts = send(self.grow(texts), self.device)
        if isinstance(texts, PrefixTree):
            rows = self._encode_tree(self.clip, texts, *self._masked_as)
        else:
            with self._kernels():
                rows = encode_trimmed(self.clip, texts) if self.trims else self.clip.encode_text(texts)
        return nn.functional.normalize(rows.float(), dim=-1)

    def _encode_patches(self, images: TowerInput) -> tuple[Tensor, Tensor]:
        if isinstance(images, Tensor) and images.ndim == 3:
            raw, patch = images[:, 0], images[:, 1:]
        else:
            raw, patch = encode_patches(self.clip, images)
        return raw.float(), patch.float()

    def run_frozen(self, images: ImageInput, blocks: int) -> FrozenStates | None:
        """Return the states of images after the first `blocks` blocks, which are frozen; None for stored outputs."""
        return self._run_frozen(self.clip, images, blocks) if images.ndim == 4 else None

    def _encode_further(
        self, texts: Tensor | PrefixTree, encode: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings of texts, and the additional output of `encode` for their tree."""
        assert self.grow is not None
        tree = send(self.grow(texts), texts.device) if isinstance(texts, Tensor) else texts
        text, further = encode(self.clip, tree, *self._masked_as)
        return nn.functional.normalize(text.float(), dim=-1), further.float()

    def refuse_without_class_token(self, flag: str) -> None:
        """Refuse a feature that needs a vision transformer read at its class token.

        Raises:
            InputError: the image tower is not one; names the flag.
        """
        if not self.reads_class_token:
            raise InputError(
                f"{flag}: the image tower of {self.name} is not a plain open_clip vision transformer read at its class "
                "token. Remove the flag."
            )

    def see_class_token(self, images: Tensor, look: SeesAttention) -> Float[Tensor, "batch dim"]:
        """Return unnormalised embeddings; `look` sees the class token's attention (see `encode_class_token`)."""
        return encode_class_token(self.clip, images, look=look)

    def _check_outputs(self, *, dense: bool, state: bool) -> None:
        """Refuse outputs that the towers do not provide."""
        if state and self.grow is None:
            raise InputError(
                f"{self.name}: provides no state of a text's end token. That needs --train.trim and one of open_clip's "
                "own text towers, read at the end token."
            )
        if dense and not self.gives_tokens:
            raise InputError(
                f"{self.name}: provides no outputs for patches and tokens. That needs --train.trim and open_clip's own "
                "towers, read at one token each; the image tower may also be one of timm that averages a feature map."
            )

    def embed(
        self,
        images: TowerInput | None,
        texts: Int[Tensor, "texts length"] | PrefixTree | None,
        *,
        dense: bool = False,
        raw: bool = False,
        places: Int[Tensor, "images places"] | None = None,
        state: bool = False,
    ) -> TowerOutputs:
        """Embed the given images and texts.

        Args:
            images: transformed images.
            texts: as for `encode_captions`.
            dense: also return the outputs for patches and tokens.
            raw: also return the images' embeddings before normalisation.
            places: indices of the patches of each image to read; all by default. Not together with `dense`.
            state: also return the states of the texts' end tokens; not together with `dense`.

        Raises:
            InputError: `dense` without `gives_tokens`, `places` without `reads_class_token`, or `state` with a text
                tower that provides none.
        """
        self._check_outputs(dense=dense, state=state)
        image = text = patch = token = raw_image = states = None
        if images is not None:
            raw_image, patch = self._encode_patches(images) if dense else (self._encode_raw(images, places), None)
            image = nn.functional.normalize(raw_image, dim=-1)
        if texts is not None and state:
            text, states = self._encode_further(texts, encode_tree_states)
        elif texts is not None:
            text, token = self._encode_further(texts, encode_tokens) if dense else (self.encode_captions(texts), None)
        return TowerOutputs(image, text, patch, token, raw_image if raw else None, states)

    def forward(
        self, images: TowerInput | None, texts: Int[Tensor, "texts length"] | PrefixTree | None, **options: Any
    ) -> tuple[Tensor | None, ...]:
        """Return all fields of `embed`'s result, scale and bias: the call that data-parallel training wraps."""
        return (*self.embed(images, texts, **options), self.scale, self.bias)

    def read_masked_as(self, token: Float[Tensor, " width"]) -> None:
        """Use `token` where a text has the id `degla.prefixes.MASKED`; it is not part of the model or its state."""
        self._masked_as = (token,)  # Inside a tuple it is not registered as a parameter.

    def compile(self, *, backend: Any = "inductor") -> None:
        """Compile both towers, once for any number of texts and nodes."""
        self._encode_tree = torch.compile(encode_tree, dynamic=True, backend=backend)
        if self._encode_image is not None:
            self._encode_image = torch.compile(encode_class_token, backend=backend)
            self._run_frozen = torch.compile(run_frozen, backend=backend)

    def checkpoint_gradients(self) -> None:
        """Enable gradient checkpointing: keep no activations inside the blocks and recompute them in the backward pass.

        Raises:
            InputError: a tower does not support it.
        """
        forget_activations(self.clip, name=self.name)
        # Recomputation runs outside `_kernels` and must use the same ones.
        self._plain_kernels = False

    @contextlib.contextmanager
    def _kernels(self) -> Iterator[None]:
        # Sequence lengths in another library's tower are unknown here: it is trained like short sequences.
        trains = self.device.type == "cpu" and not torch.is_inference_mode_enabled()
        if trains and self._plain_kernels:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield
