"""The version of the package, which stands here alone, and those of the libraries that it runs with."""

from functools import cache
from importlib import metadata

__version__ = "0.1.0"


@cache
def installed_version(package: str) -> str:
    """Version of a distribution, for the record of a run; "not installed" where it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
