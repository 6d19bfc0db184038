"""Fast paths that only some towers support: which are missing for a model, why, and what that costs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from degla.model import linear_kernel
from degla.model.block import why_unknown
from degla.model.image import averages_a_map, why_all_patches, why_no_patches
from degla.model.text import why_no_tree, why_padded
from degla.model.towers import TOWERS, Tower, tower_module

if TYPE_CHECKING:
    from degla.model.encoder import Encoder

log = logging.getLogger("degla.model")

_messages: set[str] = set()


@dataclass(frozen=True)
class Lack:
    """A fast path that a model does not support.

    Attributes:
        name: of the path.
        why: the reason, as words after "its": "text tower appends a class token".
        cost: what happens instead.
    """

    name: str
    why: str
    cost: str

    def __str__(self) -> str:
        return f"no {self.name}, because its {self.why}: {self.cost}"


def lacks(encoder: Encoder, *, training: bool = True) -> list[Lack]:
    """List the fast paths that a model's towers do not support; none for open_clip's plain CLIP.

    Args:
        encoder: the model.
        training: include what only training uses.
    """
    clip, context = encoder.clip, encoder.context_length
    image, tree = why_all_patches(clip), why_no_tree(clip)
    entries = []
    if tree is not None and not encoder.trims:
        cost = f"each text costs {context} tokens, however short it is"
        entries.append(Lack("trimmed texts and shared prefixes", f"text tower {why_padded(clip) or tree}", cost))
    elif tree is not None:
        entries.append(Lack(
            "shared prefixes of texts", f"text tower {tree}", "the tokens that captions share with their "
            "negatives are computed for each of them, which is several times the work",
        ))  # fmt: skip
    if image is not None and not averages_a_map(clip):  # A feature map has no class token: there is nothing to save.
        cost = "its last block is computed for all patches"
        entries.append(Lack("reading of only the class token", f"image tower {image}", cost))
    slow = _of_towers(image, tree)
    if training and slow is not None and encoder.device.type == "cpu" and linear_kernel.is_faster():
        cost = "they are slower on this processor"
        entries.append(Lack(f"linear layers by {linear_kernel.NAME} in training", slow.removeprefix("its "), cost))
    return entries


def refusals(encoder: Encoder) -> list[Lack]:
    """List what training refuses for a model because of its towers."""
    clip = encoder.clip
    entries = []
    for tower in TOWERS:
        why = why_no_adapters(clip, tower)
        if why is not None:
            entries.append(Lack(f"adapters in the {tower} tower", f"{tower} tower {why}", "--adapter.rank is refused"))
    dense = why_no_tokens(clip)
    if dense is not None:
        reason = dense.removeprefix("its ")
        entries.append(Lack("outputs of patches and tokens", reason, "losses that read them are refused"))
    return entries


def why_no_tokens(clip: nn.Module) -> str | None:
    """Return why a model provides no outputs for patches and tokens; None if it does."""
    return _of_towers(why_no_patches(clip), why_no_tree(clip))


def why_not_plain(clip: nn.Module) -> str | None:
    """Return why a model is not open_clip's plain CLIP (two transformers read at one token each); None if it is."""
    return _of_towers(why_all_patches(clip), why_no_tree(clip))


def _of_towers(image: str | None, text: str | None) -> str | None:
    towers = (("image", image), ("text", text))
    return " and ".join(f"its {tower} tower {why}" for tower, why in towers if why is not None) or None


def why_no_adapters(clip: nn.Module, tower: Tower) -> str | None:
    """Return why the blocks of a tower do not support adapters; None if they do."""
    module: Any = tower_module(clip, tower)
    return why_unknown(getattr(module, "transformer", module))


def tell(encoder: Encoder, *, training: bool = False) -> None:
    """Log, once per process, which fast paths a model does not support; arguments as for `lacks`."""
    for lack in map(str, lacks(encoder, training=training)):
        if lack not in _messages:
            _messages.add(lack)
            log.warning("%s: slower than possible, with the same results: %s.", encoder.name, lack)
