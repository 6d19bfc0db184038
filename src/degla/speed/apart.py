"""A measurement in a process of its own: peaks of memory do not mix, and what fails there ends nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from degla.errors import DeglaError
from degla.records import RecordType

_ERROR = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Failed))(?:: (.*))?")
"""The line of a traceback that names the error: what stands behind it may be advice of a compiler."""


def run_apart(
    module: str, settings: BaseModel, found: type[RecordType], *, what: str, device: str,
    environment: Mapping[str, str] | None = None,
) -> RecordType:  # fmt: skip
    """Run `python -m MODULE SETTINGS OUT` and read what it found.

    Args:
        module: reads settings as JSON in its first word, and writes what it found to the file named by its second.
        settings: for it.
        found: what it writes, as JSON.
        what: is measured, for messages.
        device: "cpu" hides the GPUs.
        environment: more variables.

    Raises:
        DeglaError: it failed; with the reason.
    """
    variables = {**os.environ, **(environment or {})}
    if device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", module, settings.model_dump_json(), str(out)]
        done = subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0 or not out.is_file():
            raise DeglaError(f"{what} failed: {reason_of(done.stderr, status=done.returncode)}.")
        return found.model_validate_json(out.read_text(encoding="utf-8"))


def reason_of(told: str, *, status: int) -> str:
    """Why a process ended, in one line without its full stop.

    Args:
        told: what it wrote to stderr.
        status: of its exit.
    """
    if status < 0:
        return "it was killed, most likely for want of memory"
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [match for line in lines if (match := _ERROR.fullmatch(line))]
    if not errors:
        return lines[-1].rstrip(".") if lines else "no message"
    name, text = errors[-1].groups()
    # This package's own errors are sentences; of others the name says as much as the text.
    return (text if text and name.startswith("degla.") else errors[-1].group()).rstrip(".")
