"""Rows to pairs: a pair is a pure function of (seed, epoch, index), so workers and resumes need no state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as arrow
import torch
from torch import Tensor
from torch.utils.data import Dataset

from degla.data.batches import Pair
from degla.data.draws import Offer, open_draw
from degla.data.extras import ExtraData, RowExtras
from degla.data.images import read_image, read_part
from degla.data.neighbours import Neighbours
from degla.data.pairs import PairRow, image_groups, rule_names
from degla.data.plan import RowKey
from degla.data.randomness import stream
from degla.data.transforms import RandomCrop, Transform
from degla.errors import InputError
from degla.prefixes import Tokenize

_NO_EXTRAS = ExtraData()


class PairDataset(Dataset[Pair]):
    """Training pairs by (epoch, index).

    Args:
        rows: at least one.
        folder: what relative image paths are relative to.
        transform: a picture and a generator to [3, height, width]; must be picklable for spawned workers.
        tokenize: texts to padded token numbers [texts, context]; must be picklable for spawned workers.
        negatives_per_caption: K, 0 or more; rows with fewer negatives are masked.
        seed: of crops and draws.
        draw: which K of a row's negatives come into an epoch, a member of the shelf `degla.data.draws`.
        extras: optional columns that are read, too.

    Raises:
        InputError: there is no row, no row has what `extras` asks for, or `draw` cannot draw from the rows.
    """

    def __init__(
        self,
        rows: Sequence[PairRow],
        *,
        folder: Path,
        transform: Transform,
        tokenize: Tokenize,
        negatives_per_caption: int,
        seed: int,
        draw: str = "random",
        extras: ExtraData = _NO_EXTRAS,
    ) -> None:
        if not rows:
            raise InputError("there is no pair to train on.")
        if negatives_per_caption < 0:
            raise InputError(f"negatives_per_caption is {negatives_per_caption}; it must be 0 or more.")
        self.folder = folder
        self.transform = transform
        self.tokenize = tokenize
        self.negatives_per_caption = negatives_per_caption
        self.seed = seed
        self.draw = open_draw(draw, rows)
        self.extras = RowExtras(rows, extras, seed=seed)
        self.features: Callable[[str], Tensor] | None = None
        """Embeddings [D] by path, in place of pixels, where the image tower is not trained; None reads pixels."""
        self.rules = rule_names(rows)
        """Names of the rules; `Pair.rule` numbers them."""
        self.groups = np.array(image_groups(rows), dtype=np.int64)
        """One number a row, equal exactly where two rows show the same image; what `BatchPlan` needs."""
        # Arrow columns instead of millions of Python objects: reading those in forked workers would count
        # references, and so copy all of their memory into every worker.
        text = arrow.large_string()
        numbers = {rule: number for number, rule in enumerate(self.rules)}
        self._ids = arrow.array([row.caption.id for row in rows], text)
        self._images = arrow.array([row.caption.image for row in rows], text)
        self._captions = arrow.array([row.caption.text for row in rows], text)
        self._negatives = arrow.array([row.negatives for row in rows], arrow.large_list(text))
        rule_rows = [[numbers[rule] for rule in row.rules] for row in rows]
        self._rules = arrow.array(rule_rows, arrow.large_list(arrow.int64()))
        self._scores = arrow.array([row.scores for row in rows], arrow.large_list(arrow.float64()))

    def __len__(self) -> int:
        return len(self._ids)

    def pictures(self) -> Iterator[str]:
        """Paths of all pictures that rows show, further ones among them; a path may come more than once."""
        yield from self._images.to_pylist()
        for name in self.extras.images:
            yield from (path for path in self.extras.columns[name].to_pylist() if path is not None)

    def __getitem__(self, key: RowKey) -> Pair:
        """The pair of row `index` in `epoch`.

        Raises:
            ImageError: the image is missing or damaged; names its path and the caption id.
        """
        epoch, index = key
        caption_id = self._ids[index].as_py()
        image = self._image(self._images[index].as_py(), caption_id, epoch=epoch, index=index)

        texts, rules = self._drawn(epoch, index)
        further = {name: self.extras.text_of(name, epoch=epoch, index=index) for name in self.extras.texts}
        said = self._captions[index].as_py()
        tokens = self.tokenize([said, *texts, *(text or said for text in chain(*further.values()))]).long()
        caption = tokens[0]
        own, *others = torch.split(tokens[1:], [len(texts), *map(len, further.values())])
        missing = self.negatives_per_caption - len(texts)
        negative = torch.cat([own, caption.expand(missing, -1)])
        # A long text is cut at the context length; one that differs only behind the cut is no negative. This
        # also marks the repeated captions that stand for missing negatives.
        valid = (negative != caption).any(dim=-1)
        rule = torch.tensor(rules + [-1] * missing, dtype=torch.int64)
        extra = self._further_images(key, caption_id, image) | self._further_texts(
            dict(zip(further, others, strict=True)), caption
        )
        return Pair(
            image=image,
            caption=caption,
            negative=negative,
            valid=valid,
            rule=torch.where(valid, rule, -1),
            group=int(self.groups[index]),
            id=caption_id,
            extra=extra | self.extras.numbers(index, further),
        )

    def _further_images(self, key: RowKey, caption_id: str, image: Tensor) -> dict[str, Tensor | int]:
        """The row's further pictures; its own where it has none."""
        extra: dict[str, Tensor | int] = {}
        for name, each in self.extras.images.items():
            path = self.extras.columns[name][key[1]].as_py()
            # Its crops were called so when published numbers were made.
            purpose = "partner crop" if name == "distractor_image" else f"{name} crop"
            there = path is not None
            extra[name] = self._image(path, caption_id, epoch=key[0], index=key[1], purpose=purpose) if there else image
            if each.mask:
                extra[each.mask] = there
        return extra

    def _further_texts(self, further: dict[str, Tensor], caption: Tensor) -> dict[str, Tensor | int]:
        """The row's further texts; its caption where it has none, or fewer."""
        extra: dict[str, Tensor | int] = {}
        for name, texts in further.items():
            missing = self.extras.places(name) - len(texts)
            tokens = torch.cat([texts, caption.expand(missing, -1)])
            each = self.extras.texts[name]
            valid = (tokens != caption).any(dim=-1)
            if each.may_repeat:
                valid = torch.arange(len(tokens)) < len(texts)
            several = len(each.shape) == 3
            extra[name] = tokens if several else tokens[0]
            if mask := each.mask:
                extra[mask] = valid if several else bool(valid[0])
        return extra

    def _image(self, image: str, caption_id: str, *, epoch: int, index: int, purpose: str = "crop") -> Tensor:
        if self.features is not None:
            return self.features(image)
        rng = stream(purpose, seed=self.seed, epoch=epoch, index=index)
        transform = self.transform
        if not (isinstance(transform, RandomCrop) and transform.scaled):
            return transform(read_image(image, folder=self.folder, caption_id=caption_id), rng)
        part = read_part(
            image,
            folder=self.folder,
            caption_id=caption_id,
            draw=lambda size: transform.draw(size, rng),
            least=transform.image.size,
        )
        return transform.finish(part)

    def _drawn(self, epoch: int, index: int) -> tuple[list[str], list[int]]:
        texts, rules = self._negatives[index].as_py(), self._rules[index].as_py()
        chance = stream("negatives", seed=self.seed, epoch=epoch, index=index)
        chosen = self.draw(Offer(rules, self._scores[index].as_py()), self.negatives_per_caption, chance)
        return [texts[number] for number in chosen], [rules[number] for number in chosen]


def data_digests(dataset: PairDataset, neighbours: Neighbours | None = None) -> dict[str, str]:
    """A digest of each column of the rows as they were read, joined and checked; no image is read for it.

    Returns:
        The column's name (ids, images, captions, negatives, rules, ...) to the first 32 hexadecimal digits of its
        sha256; columns that the run does not read are not among them.
    """
    digests = {"rules": hashlib.sha256("\n".join(dataset.rules).encode())}
    columns = [(name.removeprefix("_"), value) for name, value in vars(dataset).items()]
    columns += list(dataset.extras.columns.items())
    columns += [("neighbours", value) for value in (vars(neighbours).values() if neighbours is not None else ())]
    for name, column in columns:
        if isinstance(column, arrow.Array):
            buffers = [buffer for buffer in column.buffers() if buffer is not None]
        elif isinstance(column, np.ndarray) and column.size:
            buffers = [np.ascontiguousarray(column).data]
        else:
            continue
        digest = digests.setdefault(name, hashlib.sha256())
        for buffer in buffers:
            digest.update(f"{buffer.size if isinstance(buffer, arrow.Buffer) else buffer.nbytes};".encode())
            digest.update(buffer)
    return {name: digest.hexdigest()[:32] for name, digest in sorted(digests.items())}


def data_counts(dataset: PairDataset) -> dict[str, int]:
    """How many captions, images and negatives the rows hold, once joined and checked."""
    negatives = sum(len(row) for row in dataset._negatives)
    images = len(np.unique(dataset.groups))
    return {"captions": len(dataset), "images": images} | ({"negatives": negatives} if negatives else {})
