"""Freed memory stays with a process that computes a model on the processor."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from degla.model.heap import keep_freed_memory, main_memory
from tests.launch import run

_HAS_GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})

_PAGES = """
import resource, sys
import torch
from degla.model.load import load_encoder

def pages():
    torch.ones(10 << 20)  # 40 MiB, above all that glibc keeps by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = pages()
load_encoder(sys.argv[1])
print(before, pages())
"""


@pytest.mark.skipif(not _HAS_GLIBC, reason="only glibc is told")
@pytest.mark.parametrize(
    ("environment", "kept"),
    [({}, True), ({"DEGLA_KEEP_FREED_MEMORY": "0"}, False), ({"MALLOC_TRIM_THRESHOLD_": "1"}, False),
     ({"GLIBC_TUNABLES": "glibc.malloc.mmap_max=3"}, False)],
)  # fmt: skip
def test_a_loaded_model_makes_its_process_keep_pages(environment: dict[str, str], kept: bool, tiny_model: Path) -> None:
    told = run(["-c", _PAGES, str(tiny_model)], environment=environment)
    before, after = map(int, told.stdout.split())
    assert before > 10 and (after < before / 4 if kept else after > before / 2), told.stderr


@pytest.mark.parametrize("error", [ValueError, AttributeError, None])
def test_other_libraries_are_left_alone(error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def confstr(name: str) -> str | None:
        if error:
            raise error(name)
        return None

    monkeypatch.delenv("DEGLA_KEEP_FREED_MEMORY", raising=False)
    monkeypatch.setattr(os, "confstr", confstr)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("a library was opened"))
    assert not keep_freed_memory.__wrapped__()


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/memory.max": "5000", "job/step/memory.max": "max"}, 5000),
        ("0::/host/id\n", {"memory.max": "4000"}, 4000),  # in a container, whose root is its own group
        ("4:memory:/docker/id\n1:cpu:/x\n", {"memory/memory.limit_in_bytes": "3000"}, 3000),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "2000"}, 2000),
        ("0::/\n", {}, None),
        (None, {"memory.max": "1"}, None),
    ],
)
@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows tells nothing")
def test_memory_is_what_the_control_groups_allow(
    groups: str | None, limits: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, value in limits.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert main_memory(tmp_path) == (machine if expected is None else expected)
