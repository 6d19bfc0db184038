"""Longer true captions: what a caption says, and once more each thing and each relation that it names.

Contextualization Distillation (arXiv 2402.01729) has a language model write such a text about a triple of a knowledge
graph; here the triples are those of the caption's own parse, so that a text is as true as its caption.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import Caption, parse
from degla.negatives.units import relations_of, things_of
from degla.records import LONGEST_TEXT, CaptionRecord

_BATCH: Final = 1_000
_FORMS: Final = (
    "{said}. We can see {things}.",
    "We can see {things}. {said}.",
    "{said}: {relations}. We can see {things}.",
    "We can see {things}: {relations}. {said}.",
)
"""The latter two where there is a relation besides the caption itself."""


def with_contexts(captions: Iterable[CaptionRecord], *, seed: int) -> Iterator[CaptionRecord]:
    """The captions with a longer true one in front of their column `positives`; a caption that names no thing, or is
    but one, stays as it is.

    Args:
        captions: in any number.
        seed: with a caption's id, of the form.

    Raises:
        InputError: the tagger is not installed.
    """
    rest = iter(captions)
    while batch := list(islice(rest, _BATCH)):
        for record, caption in zip(batch, parse([each.text for each in batch]), strict=True):
            number = sha256(f"contexts/{seed}/{record.id}".encode()).digest()[0]
            text = context_of(caption, number=number)
            fits = text is not None and len(text) <= LONGEST_TEXT
            yield record.model_copy(update={"positives": (text, *record.positives)}) if fits else record


def context_of(caption: Caption, *, number: int) -> str | None:
    """A longer true text about a caption; None where it names no thing or nothing besides.

    Args:
        caption: tagged.
        number: of the form, 0 or more; of a caption without a relation besides itself, among the first two.
    """
    things = things_of(caption)
    if not things or all(words.content(thing) == caption.content for thing in things):
        return None
    relations = [text for text in relations_of(caption) if words.content(text) != caption.content]
    form = _FORMS[number % (len(_FORMS) if relations else 2)]
    said = caption.text.rstrip(" .!")
    if not form.startswith("{said}"):
        said = said[:1].upper() + said[1:]
    return form.format(said=said, things=_joined(things), relations=_joined(relations))


def _joined(texts: Sequence[str]) -> str:
    """ "one, two and three"."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
