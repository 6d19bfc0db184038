"""A Ray cluster for one command: an existing one, or a local one that ends with the command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from degla.errors import InputError

Engine = Literal["local", "ray"]
"""Where work runs: in processes on this machine, or on a Ray cluster."""
RETRIES: Final = 3
"""How often work is retried whose worker was lost."""


@contextmanager
def open_ray(processes: int | None) -> Iterator[Any]:
    """Yield the module `ray`, connected to the cluster in `RAY_ADDRESS`, or to a local one until the block ends.

    Args:
        processes: size of a local cluster; None: one process per CPU.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'degla[ray]'") from None
    module: Any = ray  # Ray's types cover neither options of tasks nor methods of actors.
    started = not module.is_initialized()
    if started:
        # Ray looks by itself for a cluster that runs on this machine, and takes no size beside it.
        cluster = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "num_cpus": processes}
        module.init(include_dashboard=False, log_to_driver=False, configure_logging=False, **cluster)
    try:
        yield module
    finally:
        if started:
            module.shutdown()
