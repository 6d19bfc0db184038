"""How models rank texts for a picture: pictures, captions and names of models enter, numbers and tables leave."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from degla.api import encode_captions, encode_images, generate_negatives, load_model
from degla.data.decoding import Subject, decode, read_file
from degla.errors import DeglaError, InputError
from degla.pages.table import Table, TableCell, TableRow, Tone
from degla.pages.words import minus, percent, points

if TYPE_CHECKING:
    from rich.console import Group

    from degla.evaluation.models import EmbeddingModel

log = logging.getLogger(__name__)

GIVEN: Final = "given as false"
"""In place of a rule, for a caption that a person says is false."""


@dataclass(frozen=True)
class Candidate:
    """A caption that is ranked.

    Attributes:
        text: the caption.
        rule: why it is false: the rule of grammar that made it from a caption, or `GIVEN`; "" for any other caption.
    """

    text: str
    rule: str = ""


@dataclass(frozen=True)
class ModelLook:
    """What one model says of P pictures and C captions.

    Attributes:
        model: name as given.
        share_by: "softmax" over the captions, "sigmoid" of each caption alone (a model with a bias), or "" where the
            model has no scale.
        cosines: P lists of C cosines.
        ranks: likewise, 1 for the highest cosine; equal cosines have equal ranks.
        shares: likewise, 0 to 1, with the model's own scale (and bias); None where it has no scale.
    """

    model: str
    share_by: str
    cosines: list[list[float]]
    ranks: list[list[int]]
    shares: list[list[float]] | None


@dataclass(frozen=True)
class Look:
    """What several models say of the same pictures and captions."""

    pictures: tuple[str, ...]
    captions: tuple[Candidate, ...]
    models: tuple[ModelLook, ...]

    def change(self, picture: int, caption: int) -> float | None:
        """Share by the last model less that by the first; None for one model or shares that are not alike."""
        first, last = self.models[0], self.models[-1]
        if first is last or first.share_by != last.share_by or first.shares is None or last.shares is None:
            return None
        return last.shares[picture][caption] - first.shares[picture][caption]

    def plain(self) -> dict[str, Any]:
        """All numbers as plain values, for JSON."""
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
    device: str = "cpu",
) -> Look:
    """Rank captions for pictures by each model.

    Args:
        pictures: image files.
        captions: texts; a repeated one counts once.
        models: names, as for `degla.load_model`, of which one is loaded at a time, or what that gave.
        false: texts that are not true of the pictures; the others then count as true.
        negatives: add the false captions that the rules of grammar make of each caption.
        device: where the models compute.

    Raises:
        InputError: no caption or an empty one, one that is true and false, an unknown model.
        ImageError: a picture is missing, damaged or no image.
        DeglaError: a model's embeddings are not finite.
    """
    candidates = _candidates(captions, false, negatives=negatives)
    for path in pictures:  # Data come before models: a wrong file is named before anything is fetched.
        subject = Subject(f"image {path}", if_missing="Give the path of a picture.", if_damaged="Replace the file.")
        decode(read_file(path, subject), subject)
    looks = tuple(_look_by(model, pictures, [each.text for each in candidates], device) for model in models)
    return Look(tuple(map(str, pictures)), candidates, looks)


def _candidates(captions: Sequence[str], false: Sequence[str], *, negatives: bool) -> tuple[Candidate, ...]:
    if not captions:
        raise InputError("no captions: give --captions TEXT... or --captions-file FILE, one a line.")
    for kind, texts in (("caption", captions), ("false caption", false)):
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"{kind} {number} is empty: give it words, or leave it out.")
            if kind == "false caption" and text in captions:
                raise InputError(f"false caption {number} is among the true captions too: leave it out of one of them.")
    if twice := next((text for texts in (captions, false) for text in texts if texts.count(text) > 1), None):
        log.warning("The caption %r is given more than once, and counts once.", twice)
    rules = dict.fromkeys(captions, "") | dict.fromkeys(false, GIVEN)
    for made in generate_negatives(dict.fromkeys(captions)) if negatives else ():
        for row in made:
            rules.setdefault(str(row.text), row.rule)
    if negatives and not any(rule not in ("", GIVEN) for rule in rules.values()):
        log.warning("The rules find no false caption: the captions have nothing that they could exchange.")
    return tuple(Candidate(text, rule) for text, rule in rules.items())


def _look_by(named: str | EmbeddingModel, pictures: Sequence[Path], captions: Sequence[str], device: str) -> ModelLook:
    import torch

    model = load_model(named, device=device) if isinstance(named, str) else named
    name = named if isinstance(named, str) else named.name
    # Products are summed row by row: a matrix product may add in another order and break a tie.
    images, texts = encode_images(model, pictures), encode_captions(model, captions)
    cosines = (images[:, None] * texts).sum(dim=-1)
    if not cosines.isfinite().all():
        raise DeglaError(f"{name}: its embeddings are not finite. Look at its training for a loss that became NaN.")
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
    """A table a picture for the terminal: one row a caption, one column a model, and the change of share."""
    from rich.console import Group

    several = len(result.models) > 1
    columns = ["caption", *(each.model for each in result.models), *(["change"] if several else [])]
    below = {"softmax": "its share of the softmax over these captions", "sigmoid": "its own probability"}
    kinds = [below[kind] for kind in dict.fromkeys(each.share_by for each in result.models) if kind]
    note = "Cosine and rank of a caption" + (f"; below, {' or '.join(kinds)}" if kinds else "") + "."
    note += " Change: of this share, from the first model to the last, in points." if several else ""
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
        # More is better for a true caption; where none is known to be false, nothing is.
        better = change is not None and marked and (change < 0 if candidate.rule else change > 0)
        tone: Tone = "" if not marked or not change else "up" if better else "down"
        cells.append(TableCell() if change is None else TableCell(points(change), tone=tone))
    return cells
