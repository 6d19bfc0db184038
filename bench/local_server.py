"""Run a measurement's server in a separate process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from degla.errors import DeglaError


@contextlib.contextmanager
def local_server(*words: str, quiet: bool = False) -> Iterator[tuple[str, int]]:
    """Start `python WORDS`, whose first output line is its loopback port or address.

    Args:
        words: a file and its arguments, or -c with a program and its arguments.
        quiet: discard its stderr.

    Yields:
        Base URL and process id.

    Raises:
        DeglaError: the server ended at once.
    """
    stderr = subprocess.DEVNULL if quiet else None
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert server.stdout
        told = server.stdout.readline().strip()
        if not told:
            raise DeglaError("the measurement's server ended before it named its port or address.")
        yield (told if told.startswith("http") else f"http://127.0.0.1:{told}") + "/v1", server.pid
    finally:
        server.kill()
        server.wait()
