"""A small part of `bench/hostile.py`: two or three trials of each kind of file, and the audit's commands on files."""

from __future__ import annotations

from pathlib import Path

import pytest

from degla.cli import main
from tests.hostile.odd import COMMANDS
from tests.hostile.texts import text_kinds
from tests.hostile.trials import run_trials


def test_damaged_files_are_refused_or_harmless(tmp_path: Path) -> None:
    kinds = text_kinds(tmp_path)
    tallies = {kind.name: run_trials(kind, count=4, seed=1) for kind in kinds}
    assert sum(tally.trials for tally in tallies.values()) >= 60
    assert {name: tally.failed for name, tally in tallies.items() if tally.failed} == {}


def test_odd_inputs_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    for name, words in (one for part, commands in COMMANDS.items() for one in commands(tmp_path / part)):
        status = main(words)
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("degla: ")]
        assert status in (1, 2) and len(errors) == 1 and len(errors[0]) < 1500, name
    assert not [str(warning.message) for warning in recwarn if "decompression bomb" in str(warning.message)]
