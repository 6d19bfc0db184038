"""What every test shares: one thread, and tiny data and models made once a session."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing that a test embeds may come from, or go to, the user's own cache.
os.environ["DEGLA_CACHE"] = tempfile.mkdtemp(prefix="degla-tests-")
atexit.register(shutil.rmtree, os.environ["DEGLA_CACHE"], ignore_errors=True)

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real COCO photographs and official annotation files, where they are."""
    if not SHARED.is_dir():
        pytest.skip("no real data: ../shared/data is not there")
    return SHARED


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny QuickGELU CLIP in open_clip's folder form."""
    from tests.tiny import write_model

    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twelve pictures with two captions each, and negatives."""
    from tests.tiny import write_pairs

    return write_pairs(tmp_path_factory.mktemp("pairs") / "tiny")
