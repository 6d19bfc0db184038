"""A Ray cluster for the work of one command: the one that runs, or a local one that ends with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from degla.errors import InputError

Engine = Literal["local", "ray"]
"""Where work is done: in processes of this machine, or on a Ray cluster."""
RETRIES: Final = 3
"""Times that work is given out again whose worker was lost."""


@contextmanager
def open_ray(processes: int | None) -> Iterator[Any]:
    """The module `ray`, started: on the cluster that `RAY_ADDRESS` names, or on this machine until the block ends.

    Args:
        processes: of a local one; None: one a processor.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'degla[ray]'") from None
    module: Any = ray  # Ray's types know neither tasks' options nor actors' methods.
    started = not module.is_initialized()
    if started:
        # A cluster that RAY_ADDRESS names has its own size.
        size = {} if os.environ.get("RAY_ADDRESS") or processes is None else {"num_cpus": processes}
        module.init(include_dashboard=False, log_to_driver=False, configure_logging=False, **size)
    try:
        yield module
    finally:
        if started:
            module.shutdown()
