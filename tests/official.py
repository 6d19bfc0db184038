"""Files in the published formats: a few records made for these tests, and the official ones if available.

The records and pictures under tests/fixtures are ours; they have the forms' traps (a gap in the keys, a caption that is
its own negative, votes, values of several types, an image that is missing). Whoever has the official files in
../shared/data runs the same comparisons over those too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from degla.shelf import BENCHMARKS

_FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).parents[2] / "shared" / "data"
OFFICIAL = SHARED.is_dir()
"""Whether the official files and photographs of COCO are there."""

SOURCES = ("own", "official") if OFFICIAL else ("own",)
"""What a test of a published form runs over."""

_MISSING = "99."
"""How the names of images end that are left out on purpose, before their suffix's name."""


def write_own(root: Path) -> Path:
    """The records of ours as a root of benchmarks, with a picture under every name but those ending in 99."""
    shutil.copytree(_FIXTURES / "benchmarks", root, dirs_exist_ok=True)
    pictures = sorted((_FIXTURES / "pictures").glob("*.jpg"))
    names: dict[str, None] = {}
    for benchmark in ("sugarcrepe", "sugarcrepe_pp", "valse", "cola", "winoground"):
        for item in BENCHMARKS.load(benchmark).BENCHMARK.items(root):
            names |= dict.fromkeys(image.path for image in item.images)
    for number, name in enumerate(name for name in names if _MISSING not in name):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[number % len(pictures)], root / name)
    return root
