"""The tiny model with all of CLIP's tokens: what is tested here depends on its files, or on its tokenizer's numbers."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(all_tokens_model: Path) -> Path:
    return all_tokens_model
