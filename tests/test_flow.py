"""The README's flow diagram matches the rooms' docstrings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_diagram_follows_from_the_code() -> None:
    spec = importlib.util.spec_from_file_location("flow", ROOT / "tools" / "flow.py")
    assert spec is not None and spec.loader is not None
    flow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flow)
    page = (ROOT / "README.md").read_text()
    assert flow.placed(page) == page, "run: python tools/flow.py --write"
    rooms = {path.name for path in flow.PACKAGE.iterdir() if path.is_dir() and flow.flow_of(path) is not None}
    assert rooms == set(flow.ROOMS)
    # Every output of a room is an input of another, or a result for the user.
    steps = [flow.flow_of(flow.PACKAGE / room) for room in flow.ROOMS]
    entering = {thing for step in steps for thing in step[0]}
    leaving = {thing for step in steps for part in step[1:] for thing in part}
    assert leaving - entering == {"report", "table", "frontier and tests", "folders for other programs"}
    assert entering - leaving == {"captions", "images", "recipe", "questions of benchmarks", "plan"}
