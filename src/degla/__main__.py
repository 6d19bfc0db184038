"""Run `degla`, as its script does and `python -m degla`."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> int:
    """Run one command and return its exit status: see `degla.cli.main`. Ctrl-C during its import ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.default_int_handler:  # An exception could arrive where the import turns it into another.
        signal.signal(signal.SIGINT, _end)
    from degla.cli import main

    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, before)
    return main()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"degla: stopped.\n")
    os._exit(130)


if __name__ == "__main__":
    raise SystemExit(main())
