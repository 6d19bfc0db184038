"""Studies in tests fork their workers from a process that has already imported everything; one test spawns them."""

from __future__ import annotations

import pytest

from tests.launch import FORKS


@pytest.fixture(autouse=True)
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.study.workers.WORKERS", FORKS)
