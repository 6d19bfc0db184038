"""A Ray cluster for one command: an existing one, or a local one that ends with the command."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Literal

from degla.errors import DeglaError, InputError

Engine = Literal["local", "ray"]
"""Where work runs: in processes on this machine, or on a Ray cluster."""
RETRIES: Final = 3
"""How often work is retried whose worker was lost."""
_SECONDS: Final = 20
"""How long a connection to a cluster may take."""
_SWITCH: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_CONSTANT: Final = "ENABLE_RAY_CLUSTER"
"""Of `ray._private.ray_constants`: its value when Ray was imported."""


@contextmanager
def open_ray(processes: int | None) -> Iterator[Any]:
    """Yield the module `ray`, connected to the cluster in `RAY_ADDRESS`, or to a local one until the block ends.

    Args:
        processes: size of a local cluster; None: one process per CPU.

    Raises:
        InputError: Ray is not installed.
        DeglaError: none can be started, or none is at the address.
    """
    address = os.environ.get("RAY_ADDRESS")
    address = None if address == "local" else address  # To Ray it is a local cluster, too.
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'degla[ray]'") from None
    module: Any = ray  # Ray's types cover neither options of tasks nor methods of actors.
    started = not module.is_initialized()
    with ExitStack() as stack:
        if started:
            if not address:
                stack.enter_context(_on_this_machine_only(module))
            _connect(module, address, processes)
            stack.callback(module.shutdown)
        yield module


def _connect(module: Any, address: str | None, processes: int | None) -> None:
    # Ray looks by itself for a cluster that runs on this machine, and takes no size beside it.
    cluster = {} if address else {"address": "local", "num_cpus": processes}
    try:
        if place := re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d+)", address or ""):
            # Where nothing listens, Ray tries for minutes.
            socket.create_connection((place[1], int(place[2])), timeout=_SECONDS).close()
        module.init(include_dashboard=False, log_to_driver=False, configure_logging=False, **cluster)
    except Exception as error:  # Of any class, Exception itself too.
        raise DeglaError(
            f"Ray at RAY_ADDRESS={address} cannot be reached ({error}). Check the address, and that it runs."
            if address
            else f"Ray cannot be started ({error}). Try again when this machine is less busy, or without --engine."
        ) from None


@contextmanager
def _on_this_machine_only(module: Any) -> Iterator[None]:
    """Let a local cluster listen on 127.0.0.1 only, as by default on Windows and macOS, unless the user chose.

    Only within the block: a process with that address cannot join the cluster of another machine.
    """
    if _SWITCH in os.environ:
        yield
        return
    with ExitStack() as stack:
        os.environ[_SWITCH] = "0"  # For the processes that Ray starts.
        stack.callback(os.environ.pop, _SWITCH, None)
        # `import ray` has read the environment. A version without this private constant has only the environment.
        constants = getattr(getattr(module, "_private", None), "ray_constants", None)
        if (before := getattr(constants, _CONSTANT, None)) is not None:
            setattr(constants, _CONSTANT, False)
            stack.callback(setattr, constants, _CONSTANT, before)
        yield
