"""Rank texts for images with several models, and render the result as tables."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from degla.api import encode_captions, encode_images, generate_negatives, load_model
from degla.data.decoding import Subject, decode, is_file, read_file
from degla.errors import InputError
from degla.pages.table import Table, TableCell, TableRow, Tone
from degla.pages.words import minus, percent, points
from degla.parse import shorten
from degla.remote import in_addresses
from degla.shelf import POSITIVES

if TYPE_CHECKING:
    from rich.console import Group

    from degla.evaluation.models import EmbeddingModel

log = logging.getLogger(__name__)

GIVEN: Final = "given as false"
"""Stands in for the rule of a caption that the user gave as false."""


@dataclass(frozen=True)
class Candidate:
    """A caption to rank.

    Attributes:
        text: the caption.
        rule: why it is false: the grammar rule that made it from a caption, or `GIVEN`; "" for any other caption.
    """

    text: str
    rule: str = ""


@dataclass(frozen=True)
class ModelLook:
    """One model's ranking of C captions for P images.

    Attributes:
        model: name as given.
        share_by: "softmax" over the captions, "sigmoid" for each caption separately (a model with a bias), or "" if the
            model has no scale.
        cosines: P lists of C cosines.
        ranks: P lists of C ranks, 1 for the highest cosine; equal cosines have equal ranks.
        shares: P lists of C probabilities, by the model's own scale (and bias); None if it has no scale.
    """

    model: str
    share_by: str
    cosines: list[list[float]]
    ranks: list[list[int]]
    shares: list[list[float]] | None


@dataclass(frozen=True)
class Look:
    """Rankings of the same captions for the same images by several models."""

    pictures: tuple[str, ...]
    captions: tuple[Candidate, ...]
    models: tuple[ModelLook, ...]

    def change(self, picture: int, caption: int) -> float | None:
        """Return the last model's share minus the first's; None for a single model or different kinds of share."""
        first, last = self.models[0], self.models[-1]
        if first is last or first.share_by != last.share_by or first.shares is None or last.shares is None:
            return None
        return last.shares[picture][caption] - first.shares[picture][caption]

    def plain(self) -> dict[str, Any]:
        """Return all numbers as plain values, for JSON."""
        places = range(len(self.captions))
        changes = [[self.change(picture, caption) for caption in places] for picture in range(len(self.pictures))]
        return {**asdict(self), "changes": changes}


def look(
    pictures: Sequence[Path],
    captions: Sequence[str],
    models: Sequence[str | EmbeddingModel],
    *,
    false: Sequence[str] = (),
    negatives: bool = False,
    positives: bool = False,
    device: str = "cpu",
) -> Look:
    """Rank captions for images with each model.

    Args:
        pictures: image files.
        captions: texts; duplicates count once.
        models: names as for `degla.load_model`, loaded one at a time, or loaded models.
        false: texts that are false for the images; the others then count as true.
        negatives: add the hard negatives that the grammar rules make of each caption.
        positives: add the true rewrites that the grammar rules make of each caption.
        device: device to compute on.

    Raises:
        InputError: there are no captions, one is empty or both true and false, or a model is unknown.
        ImageError: an image is missing, damaged or not an image.
        DeglaError: an embedding is zero or not finite.
    """
    candidates = _candidates(captions, false, negatives=negatives, positives=positives)
    for path in pictures:  # Data come before models: a wrong file is reported before anything is downloaded.
        subject = Subject(f"image {path}", if_missing="Give the path of an image.", if_damaged="Replace the file.")
        decode(read_file(path, subject), subject)
    looks = tuple(_look_by(model, pictures, [each.text for each in candidates], device) for model in models)
    return Look(tuple(in_addresses(str(each)) for each in pictures), candidates, looks)


def _candidates(
    captions: Sequence[str], false: Sequence[str], *, negatives: bool, positives: bool
) -> tuple[Candidate, ...]:
    if not captions:
        raise InputError("no captions: give --captions TEXT...")
    for kind, texts in (("caption", captions), ("false caption", false)):
        if texts and all(Path(text).suffix and is_file(Path(text)) for text in texts):
            raise InputError(f"{kind} 1, {texts[0]}, is a file. Give the texts themselves, each in quotes.")
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"{kind} {number} is empty. Remove it.")
            if kind == "false caption" and text in captions:
                raise InputError(f"false caption {number} is also among the true captions. Remove one of them.")
    if twice := next((text for texts in (captions, false) for text in texts if texts.count(text) > 1), None):
        log.warning("Caption %r is given more than once; duplicates are ignored.", twice)
    rules = dict.fromkeys(captions, "")
    for rows in generate_negatives(dict.fromkeys(captions), rules=POSITIVES.names()) if positives else ():
        rules |= dict.fromkeys((row.text for row in rows), "")
    if positives and len(rules) == len(set(captions)):
        log.warning("The rules made no true rewrites: they found nothing to change in the captions.")
    rules |= dict.fromkeys(false, GIVEN)
    for rows in generate_negatives(dict.fromkeys(captions)) if negatives else ():
        for row in rows:
            rules.setdefault(row.text, row.rule)
    if negatives and not any(rule not in ("", GIVEN) for rule in rules.values()):
        log.warning("The rules made no negatives: they found nothing to change in the captions.")
    return tuple(Candidate(text, rule) for text, rule in rules.items())


def _look_by(named: str | EmbeddingModel, pictures: Sequence[Path], captions: Sequence[str], device: str) -> ModelLook:
    import torch

    model = load_model(named, device=device) if isinstance(named, str) else named
    name = named if isinstance(named, str) else named.name
    text_of: dict[tuple[int, ...], str] = {}
    for text, tokens in zip(captions, model.tokenize(list(captions)).tolist(), strict=True):
        if (other := text_of.setdefault(tuple(tokens), text)) != text:
            log.warning(
                "%s: captions %r and %r have the same tokens, and so the same numbers: they differ only after its "
                "context of %d tokens, or in what its tokenizer ignores, such as case.",
                name, shorten(other), shorten(text), len(tokens),
            )  # fmt: skip
    # Summed row by row: a matrix product may sum in another order and break ties.
    images, texts = encode_images(model, pictures), encode_captions(model, captions)
    cosines = (images[:, None] * texts).sum(dim=-1)
    ranks = 1 + (cosines[:, None, :] > cosines[:, :, None]).sum(dim=-1)
    with torch.inference_mode():
        scale, bias = getattr(model, "scale", None), getattr(model, "bias", None)  # Floors have neither.
        if scale is None:
            share_by, shares = "", None
        elif bias is None:
            share_by, shares = "softmax", (float(scale) * cosines).softmax(dim=-1).tolist()
        else:
            share_by, shares = "sigmoid", (float(scale) * cosines + float(bias)).sigmoid().tolist()
    return ModelLook(name, share_by, cosines.tolist(), ranks.tolist(), shares)


def render_look(result: Look) -> Group:
    """Render one table per image for the terminal, with a row per caption, a column per model, and the change."""
    from rich.console import Group

    several = len(result.models) > 1
    columns = ["caption", *(each.model for each in result.models), *(["change"] if several else [])]
    below = {"softmax": "its softmax probability over these captions", "sigmoid": "its sigmoid probability"}
    kinds = [below[kind] for kind in dict.fromkeys(each.share_by for each in result.models) if kind]
    note = "Cosine and rank of each caption" + (f"; below, {' or '.join(kinds)}" if kinds else "") + "."
    note += " Change: of the probability, from the first model to the last, in points." if several else ""
    tables = []
    for picture, title in enumerate(result.pictures):
        rows = [TableRow(_row(result, picture, caption, several=several)) for caption in range(len(result.captions))]
        tables.append(Table(columns, rows).terminal(title=title, caption=note))
    return Group(*tables)


def _row(result: Look, picture: int, caption: int, *, several: bool) -> list[TableCell]:
    candidate, marked = result.captions[caption], any(each.rule for each in result.captions)
    mark = ("✗ " if candidate.rule else "✓ ") if marked else ""
    cells = [TableCell(mark + candidate.text, note=candidate.rule)]
    for each in result.models:
        rank = each.ranks[picture][caption]
        share = "" if each.shares is None else f"{percent(each.shares[picture][caption])} %"
        value = minus(f"{each.cosines[picture][caption]:z.3f}")
        cells.append(TableCell(value, spread=f" #{rank}", note=share, bold=rank == 1))
    if several:
        change = result.change(picture, caption)
        # Higher is better for a true caption; if none is known to be false, no change is better.
        better = change is not None and marked and (change < 0 if candidate.rule else change > 0)
        tone: Tone = "" if not marked or not change else "up" if better else "down"
        cells.append(TableCell() if change is None else TableCell(points(change), tone=tone))
    return cells
