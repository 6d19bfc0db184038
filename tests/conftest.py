"""Shared by all tests: a single thread, and tiny data and models made once per session."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.official import OFFICIAL, SHARED, SOURCES, write_own

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Every checkpoint, result and page waits for the disk, twenty times a run, so that a machine may lose its power; none
# does in a test, and what a process that is killed has written stays.
os.fsync = lambda fd: None
# Nothing that a test embeds may come from, or go to, the user's own cache.
os.environ["DEGLA_CACHE"] = tempfile.mkdtemp(prefix="degla-tests-")


def pytest_configure(config: pytest.Config) -> None:
    # A worker of xdist, whose status nobody reads, and no pytest that a test starts in one, whose status says all.
    if hasattr(config, "workerinput"):
        # What is registered first is done last: taking PyTorch and all else apart would take seconds.
        atexit.register(os._exit, 0)
    atexit.register(shutil.rmtree, os.environ["DEGLA_CACHE"], ignore_errors=True)


# A busy machine may let any example, and any draw of one, wait for seconds. Examples are the same in every run, so that
# no change is refused for one that has nothing to do with it; `--hypothesis-profile search` draws others.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")

gc.disable()  # Before everything is imported, there is no garbage.

# Its bounds are those of COCO's captions; what they bound is tested on captions of ours everywhere.
collect_ignore = [] if OFFICIAL else ["negatives/test_coco_captions.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest tests first; otherwise a single process would work on them at the end."""
    long = (
        "training/test_processes", "test_on_gpu", "test_ray", "study/test_conduct", "test_demo", "test_export",
        "test_loss_parity", "test_loss_processes", "test_interpolate", "test_chunks", "tests/app/", "test_resume",
        "test_docs", "test_survives", "test_server_real", "evaluation/test_processes", "test_batches", "test_examples",
        "test_parts", "test_memory_options", "test_plain_loop", "evaluation/test_report.py", "test_remote", "/study/",
    )  # fmt: skip
    items.sort(key=lambda item: next((place for place, name in enumerate(long) if name in str(item.path)), len(long)))


def pytest_collection_finish() -> None:
    """Imported modules stay to the end, so collect garbage rarely and never scan PyTorch."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute tests by file; all pages run in one process, because each process would load gradio and a browser."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "app" if nodeid.startswith("tests/app/") else super()._split_scope(nodeid)

    return ByFile(config, log)


@pytest.fixture(scope="session", params=SOURCES)
def data_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotation files in the published forms: of our own, and the official ones where they are."""
    return SHARED if request.param == "official" else write_own(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny QuickGELU CLIP in open_clip's folder form."""
    from tests.tiny import write_model

    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def all_tokens_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with open_clip's own tokenizer, which has many more tokens."""
    from tests.tiny import ALL_TOKENS, write_model

    return write_model(tmp_path_factory.mktemp("models") / "tiny", text_cfg=ALL_TOKENS)


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twelve pictures with two captions each, and negatives."""
    from tests.tiny import write_pairs

    return write_pairs(tmp_path_factory.mktemp("pairs") / "tiny")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each load of a model of transformers says of kernels from the hub."""
    transformers = pytest.importorskip("transformers")
    said: list[Any] = []
    load = transformers.PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: type, *args: Any, **options: Any) -> Any:
        said.append(options.get("use_kernels"))
        return load(cls, *args, **options)

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(from_pretrained))
    return said


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take longer than all else of a small page: for tests that read none."""
    from degla.pages.page import Figure

    monkeypatch.setattr(Figure, "drawings", property(lambda self: ("<svg></svg>",) * len(self.widths)))


@pytest.fixture(params=("installed", "4"))
def attention_form(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test that uses it with open_clip's current blocks and with those of version 4."""
    from tests.attention_forms import models_of

    with models_of(request.param):
        yield
