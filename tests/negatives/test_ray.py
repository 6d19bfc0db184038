"""The Ray engine makes the file that the local one makes, even where a worker is killed. Needs the extra `ray`.

Starting a local Ray takes some seconds, so all of it is one run.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from degla.errors import InputError
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.run.dialogue import Maker
from degla.negatives.run.journal import Journal
from degla.negatives.run.questions import Prompts
from degla.negatives.run.ray_engine import BatchResult, PartFolder, Worker, parts_folder, take_in
from degla.negatives.run.stream import BATCH, CaptionStream
from degla.negatives.run.summary import Summary
from tests.negatives import scripted_runs
from tests.negatives.scripted_runs import TEXTS, many, records, rows_of, run, varied

RULES = ("replace_nouns", "swap_nouns")


def open_fatal(folder: Path, command: int) -> ScriptedModel:
    """In a working folder of the worker's own, as on a machine that shares no folder with the command."""
    if os.getpid() != command:
        own = folder / f"machine-{os.getpid()}"
        own.mkdir()
        os.chdir(own)
    return ScriptedModel(partial(scripted_runs.fatal, folder=folder, killed_at=150), capacity=4, shuffle=1)


@pytest.mark.xdist_group("ray")
def test_two_workers_of_which_one_is_killed_make_the_local_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    texts, out, notes = many(2 * BATCH), Path("ray.jsonl"), tmp_path / "notes"
    notes.mkdir()
    run(tmp_path / "local.jsonl", ScriptedModel(varied), texts, rules=RULES)
    for module in (scripted_runs, sys.modules[__name__]):  # workers cannot import the tests
        ray_cluster.cloudpickle.register_pickle_by_value(module)
    model = partial(open_fatal, notes, os.getpid())
    run(out, model, texts, rules=RULES, engine="ray", workers=2)  # type: ignore[arg-type]
    assert (notes / "killed").exists()
    machines = list(notes.glob("machine-*"))
    assert len(machines) >= 3, "two workers, and one in the place of one of them"
    assert not any(any(each.iterdir()) for each in machines)
    assert out.read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert not list(parts_folder(out).glob("*.jsonl"))
    lines = (tmp_path / "ray.jsonl.replies.jsonl").read_text().splitlines()
    kept = Counter((row["caption_id"], row["rule"], row["draw"]) for row in map(json.loads, lines))
    assert set(kept.values()) == {1}
    asked = Counter(tuple(json.loads(line)) for path in notes.glob("*.asked") for line in path.open())
    assert sum(count - 1 for count in asked.values()) <= 4  # what was under way when the worker died
    assert len(asked) == len(kept)


def test_a_batch_that_could_not_be_finished_leaves_its_replies(tmp_path: Path) -> None:
    """What a worker does, in this process: no Ray is needed for it."""
    out, folder = tmp_path / "negatives.jsonl", parts_folder(tmp_path / "negatives.jsonl")
    questions = Prompts("scripted", ("write", "choose"), True, 3, count=0)
    maker = Maker(RULES, 3, 2, questions)
    (batch,) = CaptionStream(records(TEXTS)).batches()
    item = {"batch": np.array([pickle.dumps((batch, []))], object)}

    def work(open_model: Callable[[], ScriptedModel]) -> BatchResult:
        worker = Worker(maker=maker, open_model=open_model, parts=PartFolder(folder))
        result: BatchResult = pickle.loads(worker(item)["result"][0])
        return result

    failed = work(lambda: ScriptedModel(varied, forms=("write", "choose"), fail_after=10))
    assert failed.error is not None
    assert "cannot be reached" in str(failed.error)
    model = ScriptedModel(varied, forms=("write", "choose"))
    made = work(lambda: model)
    assert made.error is None
    assert len(made.replies) == 10 + len(model.asked)  # the ten came from the file
    run(out, ScriptedModel(varied, forms=("write", "choose")), rules=RULES)
    assert made.rows == rows_of(out)
    with Journal(tmp_path / "other.jsonl", Summary(RULES, 1)) as journal:
        take_in(folder, journal)
        journal.index()
        assert all(journal.find(reply.key) == (form, reply) for form, reply in made.replies)
    assert not list(folder.glob("*.jsonl"))


def test_a_model_that_is_open_already_cannot_go_to_workers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a function that opens one"):
        run(tmp_path / "negatives.jsonl", ScriptedModel(varied), engine="ray")


def test_without_ray_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'degla\[ray\]'"):
        generate([], NegativesSettings(RULES, 0), out=tmp_path / "negatives.jsonl", engine="ray")
