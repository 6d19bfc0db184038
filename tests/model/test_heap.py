"""A process that runs a model on the CPU keeps freed memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from degla.model.heap import keep_freed_memory
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
    ("environment", "keep"),
    [({}, True), ({"DEGLA_KEEP_FREED_MEMORY": "0"}, False), ({"MALLOC_TRIM_THRESHOLD_": "1"}, False),
     ({"GLIBC_TUNABLES": "glibc.malloc.mmap_max=3"}, False)],
)  # fmt: skip
def test_a_loaded_model_makes_its_process_keep_pages(environment: dict[str, str], keep: bool, tiny_model: Path) -> None:
    process = run(["-c", _PAGES, str(tiny_model)], environment=environment)
    before, after = map(int, process.stdout.split())
    assert before > 10 and (after < before / 4 if keep else after > before / 2), process.stderr


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
