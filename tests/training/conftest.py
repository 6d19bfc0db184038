"""Models that several of these test files train."""

from __future__ import annotations

from pathlib import Path

import pytest

from degla.model.load import load_encoder
from degla.model.teacher import Teacher, TeacherConfig
from tests.tiny import CONFIG, write_model


@pytest.fixture(scope="module")
def many_patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with sixteen patches per image."""
    vision = CONFIG["vision_cfg"] | {"patch_size": 8}
    return write_model(tmp_path_factory.mktemp("patches") / "model", vision_cfg=vision)


@pytest.fixture(scope="module")
def teacher(many_patches: Path) -> Teacher:
    return Teacher(load_encoder(str(many_patches)), TeacherConfig())
