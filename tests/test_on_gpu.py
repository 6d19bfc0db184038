"""The GPU test cases, in a separate process with an emulated GPU; see `tests/emulated_gpu`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulated_gpu import missing

CASES = Path("tests", "on_gpu", "cases.py")


@pytest.mark.skipif(bool(missing()), reason=f"the emulated GPU {missing()}")
def test_what_holds_on_a_gpu_holds_on_the_emulated_one() -> None:
    words = ["-p", "tests.emulated_gpu.plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", str(CASES)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pytest_that_a_worker_of_xdist_starts_ends_by_its_own_status(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    raise AssertionError\n")
    words = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull, str(tmp_path)]
    environment = os.environ | {"PYTEST_XDIST_WORKER": "gw0"}
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=root, env=environment, capture_output=True)
    assert done.returncode == 1, done.stdout.decode() + done.stderr.decode()
