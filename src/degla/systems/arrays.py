"""Arrays of a .npz file, each by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from degla.errors import InputError


def read_arrays(path: Path, names: Sequence[str], *, what: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """The arrays of these names; nothing of the file is run.

    Args:
        path: of the file.
        names: that must be there.
        what: needs them, for the message.
        optional: that may be there.

    Raises:
        InputError: the file cannot be read, or a name is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise InputError(f"{path}: has no {missing[0]!r}; {what} needs {', '.join(names)}.")
            return {name: file[name] for name in (*names, *optional) if name in file}
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as arrays: {error}") from None
