"""The Ray engine makes the file that the local one makes, even where a worker is killed. Needs the extra `ray`.

Starting a local Ray takes some seconds, so all of it is one run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from degla.errors import DeglaError, InputError
from degla.negatives.generate import generate
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.ray_engine import parts_folder
from degla.negatives.stream import BATCH
from tests.negatives import scripted_runs
from tests.negatives.scripted_runs import many, run, varied

RULES = ("replace_nouns", "swap_nouns")


def open_fatal(folder: Path) -> ScriptedModel:
    return ScriptedModel(partial(scripted_runs.fatal, folder=folder, killed_at=150), capacity=4, shuffle=1)


def open_failing() -> ScriptedModel:
    return ScriptedModel(varied, fail_after=10)


@pytest.mark.xdist_group("ray")
def test_two_workers_of_which_one_is_killed_make_the_local_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    texts, out, notes = many(3 * BATCH), tmp_path / "ray.jsonl", tmp_path / "notes"
    notes.mkdir()
    run(tmp_path / "local.jsonl", ScriptedModel(varied), texts, rules=RULES)
    for module in (scripted_runs, sys.modules[__name__]):  # workers cannot import the tests
        ray.cloudpickle.register_pickle_by_value(module)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        settings = {"rules": RULES, "engine": "ray", "workers": 2}
        with pytest.raises(DeglaError, match="cannot be reached any more"):
            run(out, open_failing, texts, **settings)  # type: ignore[arg-type]
        paid = [path.read_text().count("\n") for path in parts_folder(out).glob("*.jsonl")]
        assert sum(paid) >= 10
        run(out, partial(open_fatal, notes), texts, **settings)  # type: ignore[arg-type]
    finally:
        ray.shutdown()
    assert (notes / "killed").exists()
    assert out.read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert not list(parts_folder(out).glob("*.jsonl"))
    lines = (tmp_path / "ray.jsonl.replies.jsonl").read_text().splitlines()
    kept = Counter((row["caption_id"], row["rule"], row["draw"]) for row in map(json.loads, lines))
    assert set(kept.values()) == {1}
    asked = Counter(tuple(json.loads(line)) for path in notes.glob("*.asked") for line in path.open())
    assert sum(count - 1 for count in asked.values()) <= 4  # what was under way when the worker died
    assert sum(paid) + len(asked) == len(kept)


def test_a_model_that_is_open_already_cannot_go_to_workers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a function that opens one"):
        run(tmp_path / "negatives.jsonl", ScriptedModel(varied), engine="ray")


def test_without_ray_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'degla\[ray\]'"):
        generate([], rules=RULES, out=tmp_path / "negatives.jsonl", seed=0, progress=False, engine="ray")
