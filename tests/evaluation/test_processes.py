"""One evaluation in one and in two processes of one group: equal to the bit, and equally wrong."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from degla import processes
from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.evaluation.results import load_result
from degla.processes import ProcessGroup, joined_processes
from degla.world.draw import draw_benchmark
from tests.launch import Program, start, start_together
from tests.tiny import write_classes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return draw_benchmark(folder, split="test", items_per_part=3, images_per_class=1, retrieval_images=4)


def command(root: Path, out: Path, *flags: str, processes: int) -> list[Program]:
    """The programs of all ranks, ended."""
    words = [
        "-m",
        "degla",
        "evaluate",
        "world",
        "--benchmarks",
        "world",
        "--root",
        str(root),
        "--out",
        str(out),
        "--json",
    ]
    programs = start_together([*words, *flags], count=processes) if processes > 1 else [start([*words, *flags])]
    for program in programs:
        program.wait()
    return programs


def read(out: Path) -> tuple[dict[str, Any], bytes]:
    row = json.loads(out.read_text())
    del row["date"], row["sha256"]  # which covers the date
    return row, out.with_name("result.items.jsonl").read_bytes()


def test_the_number_of_processes_changes_nothing(world: Path, tmp_path: Path) -> None:
    alone, many = tmp_path / "alone" / "result.json", tmp_path / "many" / "result.json"
    (done,) = command(world, alone, "--no-cache", processes=1)
    assert done.wait() == 0, done.stderr
    cache = tmp_path / "cache"
    first, second = command(world, many, "--cache", str(cache), processes=2)
    assert (first.wait(), second.wait()) == (0, 0), first.stderr + second.stderr
    assert read(many) == read(alone)
    assert (len(first.stdout.splitlines()), second.stdout) == (1, ""), "the first process alone prints"
    (message,) = (line for line in (first.stderr + second.stderr).splitlines() if "embeddings read" in line)
    written = int(message.rpartition("read, ")[2].split()[0])
    assert written > 150, "several batches, so that both processes have some"
    # Of a cache that the first process alone has, some rows are there.
    for file in cache.glob("*.sqlite"):
        with contextlib.closing(sqlite3.connect(file)) as rows, rows:
            rows.execute("DELETE FROM rows WHERE rowid % 3 = 0")
    again = command(world, many, "--cache", str(cache), processes=2)
    assert [one.wait() for one in again] == [0, 0], again[0].stderr + again[1].stderr
    (message,) = (line for line in again[0].stderr.splitlines() if "embeddings read" in line)
    hits, misses = (int(word) for word in message.split() if word.isdecimal())
    assert hits > misses > 0 and hits + misses == written
    # In batches of others a row may be rounded otherwise.
    for one, other in zip(*(load_result(out, items=True).items for out in (many, alone)), strict=True):
        assert one.model_copy(update={"margin": other.margin}) == other
        assert one.margin == pytest.approx(other.margin, abs=1e-6)


def test_an_image_that_one_process_cannot_read_ends_all(world: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    shutil.copytree(world, root)
    victim = sorted((root / "images" / "id").glob("*.png"))[-1]
    victim.write_bytes(victim.read_bytes()[:200])
    done = command(root, tmp_path / "result.json", "--no-cache", processes=2)
    assert [one.wait() for one in done] == [2, 2], "bad input"
    assert any(f"{victim}: the image is damaged or cut off" in one.stderr for one in done)
    assert not (tmp_path / "result.json").exists()


def test_shares_are_whole_and_a_broken_environment_is_reported() -> None:
    work = list(range(7))
    shares = [list(ProcessGroup(rank=rank, count=3).share(work)) for rank in range(3)]
    assert (
        sorted(number for share in shares for number in share) == work
        and max(map(len, shares)) - min(map(len, shares)) == 1
    )
    with joined_processes() as alone:
        assert alone == ProcessGroup() and alone.first


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a number from 1.*torchrun"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', not a number from 1"),
        ({"RANK": "x"}, "RANK is 'x', not a number from 0"),
        ({"RANK": "2"}, r"RANK is 2, but must be below 2.*\(WORLD_SIZE\)"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        (
            {"RANK": "", "MASTER_ADDR": "", "MASTER_PORT": ""},
            r"WORLD_SIZE is 2 but RANK, MASTER_ADDR, MASTER_PORT is not set.*torchrun",
        ),
    ],
)
def test_variables_with_which_processes_would_never_meet_are_one_line(
    changed: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"} | changed
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=why), joined_processes():
        pass
    with pytest.raises(InputError, match=why), processes.one_line_if_not_joined():  # Of training.
        pass


def test_one_process_of_a_training_job_evaluates_alone(small_root: Path, tmp_path: Path) -> None:
    """Validation runs on the main process while the others wait elsewhere: nothing may be exchanged."""
    code = (
        "import sys; from pathlib import Path\n"
        "import torch.distributed as dist\n"
        "rank = int(sys.argv[1])\n"
        "dist.init_process_group('gloo', init_method='file://' + sys.argv[2], rank=rank, world_size=2)\n"
        "if rank == 0:\n"
        "    from degla.evaluation.models import load_model\n"
        "    from degla.evaluation.run import Evaluation\n"
        "    result = Evaluation(['zeroshot'], Path(sys.argv[3]), progress=False).score(load_model('random'))\n"
        "    print(result.items_count)\n"
        "dist.barrier()\n"
    )
    for name, number in (("red", 0), ("blue", 3)):
        (small_root / "zeroshot" / "colours" / name).mkdir(parents=True)
        (small_root / f"{number}.png").rename(small_root / "zeroshot" / "colours" / name / "a.png")
    both = [start(["-c", code, str(rank), str(tmp_path / "meet"), str(small_root)]) for rank in (0, 1)]
    assert [one.wait() for one in both] == [0, 0], both[0].stderr
    assert both[0].stdout.splitlines()[-1] == "2"  # gloo of PyTorch 2.8 prints lines of its own before


def test_machines_with_other_weights_are_refused_whatever_the_path(tmp_path: Path) -> None:
    from degla.evaluation.run import Evaluation

    class Two(processes.ProcessGroup):
        def together(self, work: Callable[[], Any]) -> list[Any]:
            own = work()
            return [own, dict.fromkeys(own, "of another machine")]

    root = write_classes(tmp_path, images=1)
    with pytest.raises(
        InputError, match=r"^the model's fingerprint is .*, but 'of another machine' in process 1\. Copy .*: random\."
    ):
        Evaluation(["zeroshot"], root=root, progress=False, processes=Two(count=2)).score_named("random")


def test_text_floors_that_fail_end_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the first process alone would leave the others waiting for it."""
    from degla.evaluation import run

    together: list[int] = []

    class Two(processes.ProcessGroup):
        def together(self, work: Callable[[], Any]) -> list[Any]:
            together.append(1)
            own = work()
            together.pop()
            return [own, own]

    def failing(*_: Any, **__: Any) -> None:
        assert together
        raise InputError("no floors")

    monkeypatch.setattr(run, "find_floors", failing)
    root = write_classes(tmp_path, images=1)
    with pytest.raises(InputError, match="no floors"):
        run.Evaluation(["zeroshot"], root=root, progress=False, processes=Two(count=2)).score_named("random")


def test_text_floors_show_their_progress_as_images_and_texts_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of 20,000 items take seconds."""
    from degla.evaluation import run

    shown: list[str] = []

    class Shown(run.TaskProgress):
        def task(self, name: str, total: int | None, **options: Any) -> Any:
            assert self.show
            shown.append(f"{name} {total}")
            return super().task(name, total, **options)

    monkeypatch.setattr(run, "TaskProgress", Shown)
    root = write_classes(tmp_path, images=1)
    run.Evaluation(["zeroshot"], root=root).score_named("random")
    assert shown[0] == "text floors 1" and len(shown) == 3


def test_machines_with_other_flags_are_refused_but_for_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embeddings of one machine would have another precision, without a word."""

    class Two(processes.ProcessGroup):
        def together(self, work: Callable[[], Any]) -> list[Any]:
            own = work()
            if not isinstance(own, dict):
                return [own, own]
            assert {"--image-reading", "--benchmarks", "--seed"} < own.keys()
            assert own.keys().isdisjoint({"--root", "--out", "--models"})
            return [own, own | {"--precision": "bf16"}]

    monkeypatch.setattr(processes, "joined_processes", lambda: contextlib.nullcontext(Two(count=2)))
    root = write_classes(tmp_path, images=1)
    words = ["evaluate", "random", "--benchmarks", "zeroshot", "--root", str(root), "--out", str(tmp_path / "a.json")]
    assert main(words) == 2
    assert "--precision is 'fp32' in process 0, but 'bf16' in process 1. Start every" in capsys.readouterr().err


def test_machines_with_another_number_of_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One machine ended with status 0 and no result, the other because the first was gone."""

    class Two(processes.ProcessGroup):
        def together(self, work: Callable[[], Any]) -> list[Any]:
            own = work()
            return [own, own | {"the number of models": 2} if isinstance(own, dict) else own]

    monkeypatch.setattr(processes, "joined_processes", lambda: contextlib.nullcontext(Two(count=2)))
    root = write_classes(tmp_path, images=1)
    words = ["evaluate", "random", "--benchmarks", "zeroshot", "--root", str(root), "--out", str(tmp_path / "a.json")]
    assert main(words) == 2
    assert "the number of models is 1 in process 0, but 2 in process 1. Start every" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


def test_verdicts_to_compare_with_are_needed_on_the_first_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second machine ended, and the first waited for it."""
    joined: list[str] = []
    monkeypatch.setattr(processes, "joined_processes", lambda: joined.append("joined") or contextlib.nullcontext())
    monkeypatch.setattr("degla.verbs.evaluate.evaluation", lambda *_, **__: contextlib.nullcontext())
    words = ["evaluate", "random", "--benchmarks", "zeroshot", "--root", str(tmp_path)]
    words += ["--out", str(tmp_path / "a.json"), "--compare-verdicts", str(tmp_path / "missing.jsonl")]
    assert main(words) == 2 and not joined and "missing.jsonl: cannot be read" in capsys.readouterr().err
    monkeypatch.setattr("degla.verbs.evaluate.first_process", lambda: False)
    with pytest.raises(AttributeError):  # No group and no evaluation were given to it.
        main(words)
    assert joined


def test_an_error_of_all_processes_is_reported_by_the_first_and_that_of_one_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_SECONDS_TO_WAIT", 0.1)
    monkeypatch.setattr(processes, "_SECONDS_TO_REPORT", 0)

    def silent_ranks(messages: dict[int, str]) -> list[int]:
        """Ranks whose error is told by another."""
        store = dist.HashStore()
        return [rank for rank, text in messages.items() if processes._first_reports(text, store, rank=rank)]

    assert silent_ranks({0: "a.jpg is missing", 1: "a.jpg is missing", 2: "b.jpg is missing"}) == [1]
    assert silent_ranks({1: "a.jpg is missing", 2: "a.jpg is missing"}) == []


@pytest.mark.parametrize(("message", "output"), [("a is missing", ""), ("b is missing", "degla: b is missing\n")])
def test_a_process_whose_error_another_one_tells_ends_without_a_word(
    message: str, output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = dist.HashStore()
    store.set("degla/error", "a is missing")
    monkeypatch.setattr(processes, "_SECONDS_TO_REPORT", 0)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)

    def fail(arguments: object) -> int:
        with processes.reported_once():
            raise InputError(message)

    monkeypatch.setattr("degla.verbs.evaluate.run", fail)
    assert main(["evaluate", "random", "--benchmarks", "world", "--root", ".", "--out", "x.json"]) == 2
    assert capsys.readouterr().err == output


def test_the_survivor_of_a_killed_process_says_what_may_have_killed_it() -> None:
    error = processes._user_error(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:33"))
    assert "If it printed no reason, it was killed" in str(error) and "reports the reason" not in str(error)


_JOB = """
import os
import sys
import torch
import torch.distributed as dist
import degla.verbs.evaluate as verb
from degla.cli import main
from degla import processes
from degla.processes import joined_processes

# Where one has an error alone it is waited for in vain; else as long as the other takes.
processes._SECONDS_TO_WAIT = 1 if sys.argv[1] == "1" else 120
if sys.argv[1] == "ending":
    processes._is_gone = lambda: False  # As where the first process ends a moment after this question.

def fail():
    raise OSError(28, "No space left on device", "cache/rows")

def run(given):
    with joined_processes() as processes:
        options = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu")).options
        assert options._timeout.total_seconds() == 7200, options._timeout
        if sys.argv[1] == str(processes.rank):
            fail()
        if sys.argv[1] in ("killed", "ending"):
            dist.barrier()  # The other one has joined, too.
            if processes.first:
                os._exit(9)
        processes.together(fail if sys.argv[1] == "both" else int)

verb.run = run
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("where", "status"), [("0", 1), ("1", 1), ("both", 1), ("before", 2), ("words", 2)])
def test_what_ends_processes_of_torchrun_is_reported_once(where: str, status: int) -> None:
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    words = ["evaluate", "random", "--benchmarks", "world", "--root", ".", "--out", "x.json"]
    words = ["evaluat"] if where == "before" else words[:2] if where == "words" else words
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.port), "WORLD_SIZE": "2"}
    group["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    both = [start(["-c", _JOB, where, *words], environment=group | {"RANK": rank}) for rank in "01"]
    assert [one.wait() for one in both] == [status, status]
    message = {"before": "unknown command", "words": "arguments are required"}.get(where, "cache/rows: No space left")
    assert sum(one.stderr.count(message) for one in both) == 1
    assert not any("Traceback" in one.stderr for one in both)
    # PyTorch 2.8 tells of connections.
    lines = [line for one in both for line in one.stderr.splitlines() if not line.startswith("[Gloo]")]
    assert where == "words" or len(lines) == 1


@pytest.mark.parametrize("where", ["killed", "ending"])
def test_without_torchrun_the_survivor_of_the_first_process_says_so_in_one_line(where: str) -> None:
    """The store of the group was gone with it, and PyTorch printed its C++ frames."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = [where, "evaluate", "random", "--benchmarks", "world", "--root", ".", "--out", "x.json"]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    first, other = (start(["-c", _JOB, *words], environment=group | {"RANK": rank}) for rank in "01")
    assert [first.wait(), other.wait()] == [9, 1]
    lines = [line for line in other.stderr.splitlines() if not line.startswith("[Gloo]")]
    assert len(lines) == 1 and lines[0].startswith("degla: another process of this job has ended")


_SHORT_WAIT = """
from degla import processes
processes._SECONDS_TO_JOIN = 0.1
with processes.joined_processes():
    print("joined")
"""


def test_a_process_that_waits_for_others_to_join_says_so() -> None:
    """One too few, and the others waited for two hours without a word."""
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.port), "WORLD_SIZE": "2"}
    group["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    first = start(["-c", _SHORT_WAIT], environment=group | {"RANK": "0"})
    end = time.monotonic() + 60
    while "RANK" not in first.stderr and time.monotonic() < end:
        time.sleep(0.05)
    expected = f"degla: process 0 waits at 127.0.0.1:{agent.port} (MASTER_ADDR:MASTER_PORT) until all 2 processes"
    assert expected in first.stderr and "for up to 2 hours" in first.stderr
    other = start(["-c", _SHORT_WAIT], environment=group | {"RANK": "1"})
    assert [first.wait(), other.wait()] == [0, 0] and first.stdout == "joined\n"


def test_processes_that_cannot_be_joined_say_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the first process ends while another one joins, and where another job has the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1]), "WORLD_SIZE": "2", "RANK": "0"}
        for name, value in group.items():
            monkeypatch.setenv(name, value)
        why = r"cannot be joined at 127\.0\.0\.1:\d+ .*already in use.* --master-port; each .*\.$"
        with pytest.raises(DeglaError, match=why), joined_processes():
            pass
    reset = dist.DistNetworkError("Connection reset by peer")
    with pytest.raises(DeglaError, match="another process of this job"), processes.one_line_if_not_joined():
        raise reset
    with pytest.raises(RuntimeError, match="a bug"), processes.one_line_if_not_joined():
        raise RuntimeError("a bug")
