"""The limits of a container or job are respected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from degla.allowance import main_memory, usable_cores
from degla.negatives import generate


def _write(system: Path, groups: str | None, limits: dict[str, str]) -> None:
    if groups is not None:
        (system / "proc/self").mkdir(parents=True)
        (system / "proc/self/cgroup").write_text(groups)
    for name, value in limits.items():
        file = system / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/memory.max": "5000", "job/step/memory.max": "max"}, 5000),
        ("0::/host/id\n", {"memory.max": "4000"}, 4000),  # in a container, whose root is its own group
        ("4:memory:/docker/id\n1:cpu:/x\n", {"memory/memory.limit_in_bytes": "3000"}, 3000),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "2000"}, 2000),
        ("0::/\n", {}, None),
        ("0::/\n", {"memory.max": ""}, None),
        (None, {"memory.max": "1"}, None),
    ],
)
@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows tells nothing")
def test_memory_is_what_the_control_groups_allow(
    groups: str | None, limits: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    _write(tmp_path, groups, limits)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert main_memory(tmp_path) == (machine if expected is None else expected)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/cpu.max": "250000 100000", "job/step/cpu.max": "max 100000"}, 3),
        ("0::/host/id\n", {"cpu.max": "50000 100000"}, 1),  # in a container that has half a processor
        ("4:cpu,cpuacct:/docker/id\n1:memory:/x\n",
         {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 64),
        ("0::/\n", {"cpu.max": "6500000 100000"}, 64),
        ("0::/\n", {"cpu.max": "200000"}, 64),  # of no form that is known
        (None, {"cpu.max": "100000 100000"}, 64),
    ],
)  # fmt: skip
def test_cores_are_what_the_control_groups_allow(
    groups: str | None, limits: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    _write(tmp_path, groups, limits)
    assert usable_cores(tmp_path) == expected


def test_negatives_are_made_by_as_many_processes_as_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "usable_cores", lambda: 3)
    many = (generate._MANY, generate._MANY - 1)
    assert [generate.process_count(None, captions, grammar_only=True) for captions in many] == [3, 1]
