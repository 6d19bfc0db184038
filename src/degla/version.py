"""The version of the package, defined only here, and versions of installed libraries."""

from functools import cache
from importlib import metadata

__version__ = "0.1.0"


@cache
def installed_version(package: str) -> str:
    """Return the version of a distribution, for the record of a run, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
