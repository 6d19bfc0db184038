"""Run a measurement in a separate process: memory peaks do not mix, and a failure does not affect others."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, get_type_hints

from pydantic import BaseModel

from degla.errors import DeglaError

Settings = TypeVar("Settings", bound=BaseModel)
Result = TypeVar("Result", bound=BaseModel)

_ERROR = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Failed))(?:: (.*))?")
"""The line of a traceback that names the error; lines after it may be a compiler's advice."""


def run_apart(
    measure: Callable[[Settings], Result], settings: Settings, *, what: str, device: str,
    environment: Mapping[str, str] | None = None,
) -> Result:  # fmt: skip
    """Run a function in a separate process and return its result.

    Args:
        measure: a module-level function, with annotated argument `settings` and return type.
        settings: its argument.
        what: the measurement's name, for messages.
        device: "cpu" hides the GPUs.
        environment: additional environment variables.

    Raises:
        DeglaError: it failed; gives the reason.
    """
    variables = {**os.environ, **(environment or {})}
    if device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        function = (measure.__module__, measure.__name__)
        command = [sys.executable, "-m", __name__, *function, settings.model_dump_json(), str(out)]
        done = subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0 or not out.is_file():
            raise DeglaError(f"{what} failed: {reason_of(done.stderr, status=done.returncode)}.")
        kind: type[Result] = get_type_hints(measure)["return"]
        return kind.model_validate_json(out.read_text(encoding="utf-8"))


def reason_of(output: str, *, status: int) -> str:
    """Return why a process ended, in one line without a full stop.

    Args:
        output: its stderr.
        status: its exit status.
    """
    if status < 0:
        return "it was killed, most likely because it ran out of memory"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [match for line in lines if (match := _ERROR.fullmatch(line))]
    if not errors:
        return lines[-1].rstrip(".") if lines else "no message"
    name, text = errors[-1].groups()
    # This package's own errors are sentences; for others the name matters as much as the text.
    return (text if text and name.startswith("degla.") else errors[-1].group()).rstrip(".")


def main() -> None:
    """Entry point of the process: takes module and name of the function, its settings as JSON, and the result file."""
    module, name, settings, out = sys.argv[1:]
    measure = getattr(importlib.import_module(module), name)
    result = measure(get_type_hints(measure)["settings"].model_validate_json(settings))
    Path(out).write_text(result.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
