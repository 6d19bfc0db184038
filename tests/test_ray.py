"""Negatives, studies and evaluations on Ray: the results of the local engine, even if a worker is killed.

Needs the extra `ray`. Starting a local Ray takes some seconds, so all that needs one is in this file.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.evaluation.results import load_result
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.llm import Reply
from degla.negatives.run.dialogue import Maker, Prompts
from degla.negatives.run.output import Journal, journal_path, parts_folder
from degla.negatives.run.ray_engine import BatchResult, PartFolder, Worker, WorkerSetup, _in_order
from degla.negatives.run.stream import CaptionStream
from degla.negatives.run.summary import Summary
from degla.ray import open_ray
from degla.stopping import Interruption
from degla.study.workers import ClusterWorkers, open_cluster, run_jobs
from tests.evaluation.shelf_contract import paint
from tests.negatives import scripted_runs
from tests.negatives.scripted_runs import TEXTS, UnsteadyModel, many, records, rows_of, run, varied
from tests.study.test_workers import pass_by

RULES = ("replace_nouns", "swap_nouns")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """Ray with two processors."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    for prestart in ("enable_worker_prestart", "prestart_worker_first_driver"):  # Each is a new interpreter.
        os.environ.setdefault(f"RAY_{prestart}", "0")
    from ray._private.node import Node

    with pytest.MonkeyPatch.context() as patch:
        # Interpreters for logs, usage and the size of the cluster, of which no test reads anything.
        for name in ("start_log_monitor", "start_api_server", "start_monitor"):
            patch.setattr(Node, name, lambda *_, **__: None, raising=False)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def open_fatal(folder: Path, command: int, large: bytes) -> UnsteadyModel:
    """In a working folder of the worker's own, as on a machine that shares no folder with the command."""
    assert len(large) == 200_000, "Ray keeps what is large apart, and a worker that starts again needs it again"
    if os.getpid() != command:
        own = folder / f"machine-{os.getpid()}"
        own.mkdir()
        while len(list(folder.glob("machine-*"))) < 2:  # The other worker gets its share, however late it starts.
            time.sleep(0.05)
        os.chdir(own)
    return UnsteadyModel(partial(scripted_runs.fatal, folder=folder, killed_at=40), capacity=4, shuffle=1)


def test_two_workers_of_which_one_is_killed_make_the_local_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("degla.negatives.run.stream.BATCH", 32)
    texts, out, notes = many(4 * 32), Path("ray.jsonl"), tmp_path / "notes"
    notes.mkdir()
    run(tmp_path / "local.jsonl", UnsteadyModel(varied), texts, rules=RULES)
    for module in (scripted_runs, sys.modules[__name__]):  # workers cannot import the tests
        ray_cluster.cloudpickle.register_pickle_by_value(module)
    model = partial(open_fatal, notes, os.getpid(), bytes(200_000))
    run(out, model, texts, rules=RULES, engine="ray", workers=2)  # type: ignore[arg-type]
    assert (notes / "killed").exists()
    machines = list(notes.glob("machine-*"))
    assert len(machines) >= 3, "two workers, and one in the place of one of them"
    assert not any(any(each.iterdir()) for each in machines)
    assert out.read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert not list(parts_folder(journal_path(out)).glob("*.jsonl"))
    lines = (tmp_path / "ray.jsonl.replies.jsonl").read_text().splitlines()
    replies = Counter((row["caption_id"], row["rule"], row["draw"]) for row in map(json.loads, lines))
    assert set(replies.values()) == {1}
    requests = Counter(tuple(json.loads(line)) for path in notes.glob("*.asked") for line in path.open())
    assert sum(count - 1 for count in requests.values()) <= 4  # in progress when the worker died
    assert len(requests) == len(replies)


class LatestFirst:
    """Ray's `wait` and `get`; actors start at once, and of what they were given the latest ends first."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []
        self.ended: set[int] = set()
        self.early = 0

    def actor(self) -> SimpleNamespace:
        def give(*what: Any) -> int:
            self.given.append(what)
            return len(self.given) - 1

        return SimpleNamespace(ready=SimpleNamespace(remote=give), work=SimpleNamespace(remote=give))

    def wait(self, under_way: Sequence[int]) -> tuple[list[int], list[int]]:
        done = next((each for each in under_way if not self.given[each]), max(under_way))
        self.ended.add(done)
        return [done], [each for each in under_way if each != done]

    def get(self, number: int) -> Any:
        self.early += number not in self.ended
        return self.given[number]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_come_back_in_their_order_however_they_end(workers: int) -> None:
    pretended = LatestFirst()
    work = iter([(number, []) for number in range(60)])
    most, back = 0, []
    for number, _ in _in_order(pretended, [pretended.actor() for _ in range(workers)], work):  # type: ignore[misc]
        back.append(number)
        most = max(most, len(pretended.given) - workers - len(back))
    assert back == list(range(60))
    assert 8 * workers - 2 <= most < 8 * workers or workers == 1, "what waits does not grow with the captions"
    assert pretended.early <= workers, "only at the end is one waited for while others could work"


def test_a_batch_that_could_not_be_finished_leaves_its_replies(tmp_path: Path) -> None:
    """The work of a worker, in this process, without Ray."""
    out, forms = tmp_path / "negatives.jsonl", ("write", "choose")
    folder = parts_folder(journal_path(out))
    questions = Prompts("scripted", forms, True, 3, count=0)
    maker = Maker(RULES, 3, 2, questions)
    (batch,) = CaptionStream(records(TEXTS)).batches()

    def work(open_model: Callable[[], UnsteadyModel]) -> BatchResult:
        return Worker().work(WorkerSetup(maker, open_model, PartFolder(folder)), batch, [])

    failed = work(lambda: UnsteadyModel(varied, forms=forms, fail_after=10))
    assert failed.error is not None
    assert "cannot be reached" in str(failed.error)

    def not_there() -> UnsteadyModel:
        raise InputError("no such model")

    assert isinstance((not_opened := work(not_there)).error, InputError) and not not_opened.rows
    model = UnsteadyModel(varied, forms=forms)
    result = work(lambda: model)
    assert result.error is None
    assert len(result.replies) == 10 + len(model.requests)  # the ten came from the file
    (form, first), *others = result.replies
    unreachable = Reply(first.key, "unreachable")
    for name, earlier, keys in (("a", result.replies, []), ("b", [(form, unreachable), *others], [first.key])):
        answers = UnsteadyModel(varied, forms=forms)
        setup = WorkerSetup(maker, partial(lambda opened: opened, answers), PartFolder(tmp_path / name))
        assert Worker().work(setup, batch, earlier).rows == result.rows
        assert [request.key for request in answers.requests] == keys
    with pytest.raises(InputError, match=r"replies.000000000000.jsonl: already exists, but .* cannot be resumed"):
        run(out, UnsteadyModel(varied, forms=forms), rules=RULES)
    (part,) = folder.iterdir()
    part.rename(tmp_path / "part")
    with pytest.raises(DeglaError, match="cannot be reached"):
        run(out, UnsteadyModel(varied, forms=forms, fail_after=3), rules=RULES)
    (tmp_path / "part").rename(part)
    with journal_path(out).open("a") as stream:
        stream.write('{"caption_id":"c0","ru')  # torn by a full disk
    # The local engine also resumes from the workers' replies.
    asked_again = UnsteadyModel(varied, forms=forms)
    run(out, asked_again, rules=RULES)
    assert not asked_again.requests
    assert result.rows == rows_of(out)
    assert not list(folder.glob("*.jsonl"))
    with Journal(journal_path(out), Summary(RULES, 1)) as journal:
        journal.index()
        assert all(journal.find(reply.key) == (form, reply) for form, reply in result.replies)


def test_a_model_that_is_open_already_cannot_go_to_workers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass a function that opens one"):
        run(tmp_path / "negatives.jsonl", UnsteadyModel(varied), engine="ray")


def test_without_ray_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'degla\[ray\]'"):
        generate([], NegativesSettings(RULES, 0), out=tmp_path / "negatives.jsonl", engine="ray")


def study_work(job: tuple[str, Path]) -> tuple[str, str]:
    what, folder = job
    if what == "break":
        raise ZeroDivisionError("by nothing")
    if what == "die once" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        with Interruption() as stop:
            (folder / "waiting").touch()
            while stop.name is None:
                time.sleep(0.01)
        (folder / "saved").touch()
    return what, str(Path.cwd())


def test_tasks_end_as_processes_do_and_a_lost_one_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    with open_cluster(study_work, folder=Path(), processes=2) as workers:
        jobs = [("die once", tmp_path), ("break", tmp_path), ("fine", tmp_path)]
        seen: list[int] = []
        (lost, broken, fine), stopped = run_jobs(
            study_work, jobs, processes=workers.size, ended=lambda number, end: seen.append(number), workers=workers
        )
        assert stopped == "" and sorted(seen) == [0, 1, 2] and workers.size == 2
        assert lost is not None and lost.value == ("die once", str(tmp_path)) and (tmp_path / "died").exists()
        assert broken is not None and "ZeroDivisionError" in broken.error and "Traceback" in broken.details
        assert fine is not None and fine.value == ("fine", str(tmp_path))
        far = ClusterWorkers(ray_cluster, study_work, folder=tmp_path / "not shared", size=1, gpus=0)
        (unseen,), _ = run_jobs(study_work, [("fine", tmp_path)], processes=1, ended=pass_by, workers=far)
        assert unseen is not None and unseen.error.endswith("needs a disk that all machines share under the same path.")
        (tmp_path / "only_here.py").write_text("def work(job): return job")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path)
            missing = importlib.import_module("only_here").work
        far = ClusterWorkers(ray_cluster, missing, folder=tmp_path, size=1, gpus=0)
        (lacking,), _ = run_jobs(missing, [("fine", tmp_path)], processes=1, ended=pass_by, workers=far)
        assert lacking is not None and "Traceback" in lacking.details
        assert lacking.error == "Ray could not run it: ModuleNotFoundError: No module named 'only_here'"

        def look(running: Sequence[int]) -> None:
            if (tmp_path / "waiting").exists():
                os.kill(os.getpid(), signal.SIGTERM)

        ends, stopped = run_jobs(
            study_work, [("wait", tmp_path)], processes=1, ended=pass_by, watch=look, workers=workers
        )
        assert stopped == "SIGTERM" and ends == [None] and (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("has", "free", "lacks"),
    [({"CPU": 2}, {"CPU": 1}, ""), ({"CPU": 2}, {}, "processor"), ({"CPU": 2, "GPU": 1}, {"CPU": 2}, "GPU"),
     ({"CPU": 2, "GPU": 1}, {"GPU": 1}, "")],
)  # fmt: skip
def test_a_cluster_without_room_is_reported(
    has: dict[str, float],
    free: dict[str, float],
    lacks: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Runs would seem to be under way."""
    cluster = Mock(cluster_resources=lambda: has, available_resources=lambda: free)
    monkeypatch.setattr("degla.study.workers.open_ray", lambda _: nullcontext(cluster))
    with open_cluster(study_work, folder=Path(), processes=None) as workers:
        assert workers.size == has.get("GPU", has["CPU"])
    assert caplog.messages == ([f"the cluster has no free {lacks} now: the runs wait for one"] if lacks else [])


def test_models_are_evaluated_as_they_are_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ray_cluster: Any,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paint(tmp_path, ["a.png", "b.png"])
    rows = [{"image": f"{each}.png", "caption": f"true {each}", "negative": f"false {each}"} for each in "ab"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    options = ["--benchmarks", "own", "--root", ".", "--no-cache"]
    two = ["evaluate", str(tiny_model), "random:3", *options]
    assert main([*two, "--out", "here.json"]) == 0
    table = capsys.readouterr().out.partition("differences from")[2]
    assert main([*two, "--out", "there.json", "--engine", "ray"]) == 0
    assert table and capsys.readouterr().out.partition("differences from")[2] == table
    far = ["evaluate", str(tiny_model), "random:3", "nowhere", *options, "--out", "far.json", "--engine", "ray"]
    assert main(far) == 1
    assert "nowhere: unknown model 'nowhere'" in capsys.readouterr().err
    for number in (1, 2):
        here, there = load_result(Path(f"here-{number}.json")), load_result(Path(f"far-{number}.json"))
        unlike = {"date", "items_file", "sha256"}
        assert here.model_dump(exclude=unlike) == there.model_dump(exclude=unlike)
        assert Path(f"here-{number}.items.jsonl").read_bytes() == Path(f"far-{number}.items.jsonl").read_bytes()
    assert not Path("far-3.json").exists()


def test_another_cluster_of_this_machine_is_used_only_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Mock(is_initialized=Mock(return_value=False))
    monkeypatch.setitem(sys.modules, "ray", ray)
    for each in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", each)
        with open_ray(2):
            assert (ray.init.call_args.kwargs["address"], ray.init.call_args.kwargs["num_cpus"]) == ("local", 2)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with open_ray(2):
        assert not {"address", "num_cpus"} & ray.init.call_args.kwargs.keys()


_HERE = """
import socket
from degla.ray import open_ray

with open_ray(1) as ray:
    nodes = ray.nodes()
    assert [node["NodeManagerAddress"] for node in nodes] == ["127.0.0.1"], nodes
    with socket.socket() as elsewhere:  # Linux routes all of 127.0.0.0/8 here, like any other address of the machine.
        assert elsewhere.connect_ex(("127.0.0.2", nodes[0]["NodeManagerPort"])) != 0
        print("only here")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, 127.0.0.1 is Ray's own default")
def test_a_local_cluster_listens_on_this_machine_only() -> None:
    pytest.importorskip("ray")
    hidden = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = hidden | {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
    command = [sys.executable, "-c", _HERE]
    for _ in range(3):  # On a busy machine, Ray may not start in time.
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if "Ray cannot be started" not in ended.stderr:
            break
    assert "only here" in ended.stdout, ended.stderr


def test_the_address_of_a_local_cluster_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that kept it could not join the cluster of another machine."""
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    ray = Mock(is_initialized=Mock(return_value=False))
    constants = ray._private.ray_constants
    constants.ENABLE_RAY_CLUSTER = True
    monkeypatch.setitem(sys.modules, "ray", ray)
    for each in (name, "RAY_ADDRESS"):
        monkeypatch.delenv(each, raising=False)
    with open_ray(2):
        assert os.environ[name] == "0" and constants.ENABLE_RAY_CLUSTER is False
    assert name not in os.environ and constants.ENABLE_RAY_CLUSTER is True
    ray.init.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), open_ray(2):
        pass
    assert name not in os.environ and constants.ENABLE_RAY_CLUSTER is True
    ray.init.side_effect = None
    for private in (Mock(ray_constants=Mock(spec=[])), Mock(spec=[]), None):  # Of other versions.
        ray._private = private
        with open_ray(2):
            assert os.environ[name] == "0"
        assert name not in os.environ
    ray._private = Mock(ray_constants=constants)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with open_ray(2):
        assert name not in os.environ and constants.ENABLE_RAY_CLUSTER is True


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises Exception itself on a busy machine, and ValueError for an address of another form."""
    ray = Mock(is_initialized=Mock(return_value=False))
    ray.init.side_effect = Exception("timed out during startup.")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(DeglaError, match=r"Ray cannot be started \(timed out"), open_ray(2):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(DeglaError, match="RAY_ADDRESS=nonsense"), open_ray(2):
        pass
    # Ray itself tries for minutes where nothing listens.
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    for each in (address, f"ray://{address}"):
        monkeypatch.setenv("RAY_ADDRESS", each)
        with pytest.raises(DeglaError, match=rf"RAY_ADDRESS={each} cannot be reached \(.*refused\)"), open_ray(2):
            pass
