"""Jobs in processes: order, failures, processes that die, signals."""

from __future__ import annotations

import errno
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from degla import stopping
from degla.data import loader
from degla.errors import InputError
from degla.locks import lock
from degla.stopping import WORKERS, leave_signals
from degla.study.workers import Ended, LocalWorkers, default_processes, run_jobs
from tests.launch import FORKS


def work(job: tuple[Any, ...]) -> tuple[str, int]:
    what = job[0]
    if what == "refuse":
        raise InputError("no such thing; give another.")
    if what == "break":
        raise ZeroDivisionError("by nothing")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        Path("pid").write_text(str(os.getpid()))
        threading.Event().wait()
    if what == "wait":
        threading.Event().wait()
    if what == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "cache/rows")
    if what == "cores":
        loader.usable_cores = lambda: 12  # type: ignore[assignment]  # in this process alone
        return what, loader.choose_workers("auto", on_gpu=True)
    if what == "memory":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")
    if what == "children":
        child = WORKERS.Process(target=leave_signals, daemon=True)
        child.start()
        child.join()
        return what, child.exitcode or 0
    if what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(job[2]).touch()
        threading.Event().wait()
    return what, os.getpid()


def be_killed(folder: Path) -> None:
    """A study's process: its workers hang until somebody kills it."""
    os.chdir(folder)
    run_jobs(work, [("hang", 0)], processes=1, ended=pass_by, folder_lock=lock(folder))


def pass_by(number: int, end: Ended[Any]) -> None:
    pass


def test_failures_and_deaths_stop_nothing_else() -> None:
    jobs = [("fine", 0), ("refuse", 0), ("die", 0), ("break", 0), ("fine", 1)]
    seen: list[int] = []
    ends, stopped = run_jobs(work, jobs, processes=1, ended=lambda number, end: seen.append(number))
    assert stopped == "" and seen == [0, 1, 2, 3, 4]
    first, refused, died, broken, last = ends
    assert first is not None and last is not None and first.value and last.value
    assert first.value[1] != last.value[1], "the process that died was replaced"
    assert refused is not None and refused.error == "no such thing; give another." and refused.details == ""
    assert died is not None and "SIGKILL" in died.error and "memory" in died.error
    assert broken is not None and "ZeroDivisionError" in broken.error and "Traceback" in broken.details


def test_a_job_may_start_processes_of_its_own() -> None:
    """With `data.workers`, every run of a study failed: "daemonic processes are not allowed to have children"."""
    (end,), _ = run_jobs(work, [("children", 0)], processes=1, ended=pass_by)
    assert end is not None and end.value == ("children", 0), end


@pytest.mark.parametrize(("processes", "jobs", "workers"), [(1, 2, 8), (4, 2, 5)])
def test_runs_at_a_time_divide_the_cores_for_decoding(processes: int, jobs: int, workers: int) -> None:
    """Each took all of the machine's."""
    ends, _ = run_jobs(work, [("cores", 0)] * jobs, processes=processes, ended=pass_by)
    assert [end and end.value for end in ends] == [("cores", workers)] * jobs


def test_a_full_disk_and_memory_that_runs_out_are_said_in_a_sentence() -> None:
    """The page of a study, and its last line, showed the words of the allocator and of errno."""
    ends, _ = run_jobs(work, [("full", 0), ("memory", 0)], processes=1, ended=pass_by)
    full, memory = (end.error for end in ends if end is not None)
    assert full == "cache/rows: No space left on device."
    assert memory.startswith("memory ran out, 64 bytes could not be allocated. ") and "fewer --processes" in memory
    assert all(end is not None and "Traceback" in end.details for end in ends)


def test_a_second_ctrl_c_ends_workers_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One in a long step, or stopped by SIGSTOP, was waited for at the end of the command, however long."""

    def look(running: Sequence[int]) -> None:
        if (tmp_path / "busy").exists():
            threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            os.kill(os.getpid(), signal.SIGINT)

    began, others = time.monotonic(), {process.pid for process in multiprocessing.active_children()}
    with pytest.raises(KeyboardInterrupt):
        run_jobs(work, [("stubborn", 0, str(tmp_path / "busy"))], processes=1, ended=pass_by, watch=look)
    assert {process.pid for process in multiprocessing.active_children()} <= others
    assert time.monotonic() - began < 60
    assert "stopping when what is running has saved its work. Ctrl-C again: stop at once." in capfd.readouterr().err


def test_an_idle_process_that_died_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr("degla.study.workers.wait", lambda connections, timeout: waited.extend(connections))
    idle, busy = (SimpleNamespace(number=number, connection=str(number)) for number in (None, 0))
    LocalWorkers(work, None).wait([idle, busy])  # type: ignore[list-item]
    assert waited == ["0"]


def test_no_more_processes_than_processors_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert default_processes() == 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert default_processes() == 1, "runs would share the GPU's memory"


def test_a_signal_ends_it() -> None:
    def look(running: Sequence[int]) -> None:
        if running == [0]:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)  # Other libraries of the same process may have set one.
    ends, stopped = run_jobs(work, [("wait", 0), ("fine", 0)], processes=1, ended=pass_by, watch=look)
    assert stopped == "SIGTERM" and ends == [None, None]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("stopped", [True, False])
def test_workers_get_time_to_save_after_a_signal_alone(stopped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(running: Sequence[int]) -> None:
        if not stopped:
            raise InputError("enough")
        os.kill(os.getpid(), signal.SIGTERM)

    patience: list[float] = []
    end = LocalWorkers.end

    def ended(self: LocalWorkers, workers: Any, **given: float) -> None:
        patience.append(given["patience"])
        end(self, workers, patience=0.0)

    monkeypatch.setattr(LocalWorkers, "end", ended)
    with nullcontext() if stopped else pytest.raises(InputError, match="enough"):
        run_jobs(work, [("wait", 0)], processes=1, ended=pass_by, watch=look)
    assert [seconds >= 60 for seconds in patience] == [stopped]


def test_workers_of_a_killed_process_end_and_only_then_its_folder_is_free(tmp_path: Path) -> None:
    parent = FORKS.Process(target=be_killed, args=(tmp_path,))
    parent.start()
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        parent.join(0.05)
        assert parent.exitcode is None
    worker = os.pidfd_open(int((tmp_path / "pid").read_text()))
    with pytest.raises(InputError, match=f"in use by process {parent.pid} on "):
        lock(tmp_path)
    parent.kill()
    parent.join()
    with lock(tmp_path):
        assert select.select([worker], [], [], 30)[0], "the worker still runs"
    os.close(worker)


@pytest.mark.parametrize("path", ["script.py", "-"])
def test_workers_do_not_run_the_callers_script(tmp_path: Path, path: str) -> None:
    """Without `if __name__ == "__main__"` it would start workers of its own; read from stdin, it is no file."""
    script = """
from degla.stopping import WORKERS, leave_signals
print("the script", flush=True)
worker = WORKERS.Process(target=print, args=("the worker",))
worker.start()
worker.join()
"""
    (tmp_path / "script.py").write_text(script)
    ended = subprocess.run([sys.executable, path], cwd=tmp_path, input=script, capture_output=True, text=True)
    assert (ended.stdout.split("\n"), ended.stderr) == (["the script", "the worker", ""], "")


def test_a_worker_that_ended_before_it_read_its_arguments_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    resource_tracker.ensure_running()
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode(shutil.which("false") or ""))
    worker = WORKERS.Process(target=len, args=(bytes(1 << 20),))  # More than a pipe holds.
    starting = threading.Thread(target=worker.start, daemon=True)
    starting.start()
    starting.join(30)
    assert not starting.is_alive()
    assert not hasattr(worker, "_pickled"), "start raised an error"
    worker.join()
    assert worker.exitcode == 1


@pytest.mark.parametrize(("setup", "status"), [("leave_signals", 0), ("end_with_parent", -signal.SIGINT)])
def test_a_worker_that_starts_leaves_ctrl_c_to_its_parent_or_ends_by_it(setup: str, status: int) -> None:
    """The first one, too, with which `multiprocessing` starts another process and unblocks SIGINT."""
    script = f"""
import os, signal
from degla.stopping import WORKERS, {setup}
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(2):
    worker = WORKERS.Process(target={setup})
    worker.start()
    os.kill(worker.pid, signal.SIGINT)
    worker.join()
    print(worker.exitcode)
print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == (f"{status}\n{status}\nFalse\n", "")


@pytest.mark.parametrize("sent", [b"", b"\0\0\1\0the beginning"])
def test_a_worker_whose_parent_ended_before_it_had_sent_the_arguments_ends_without_a_traceback(sent: bytes) -> None:
    reader, writer = WORKERS.Pipe(duplex=False)
    with writer:
        os.write(writer.fileno(), sent)
    with pytest.raises(SystemExit, match="1"):
        stopping._receive(reader)


def test_threads_that_start_workers_leave_the_script_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    script, both = sys.modules["__main__"], threading.Barrier(2)

    def start(worker: Any) -> None:
        worker._pickled = b""
        with suppress(threading.BrokenBarrierError):
            time.sleep(0.1 * both.wait(0.2))  # Whoever came second leaves second.

    monkeypatch.setattr(SpawnProcess, "start", start)
    threads = [threading.Thread(target=WORKERS.Process(target=print).start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after, sys.modules["__main__"] = sys.modules["__main__"], script
    assert after is script


def test_a_closed_terminal_does_not_end_the_process_that_tracks_semaphores() -> None:
    """The next one, started for the locks' end, knew none of their names: a traceback for each."""
    script = """
import os, signal, time
from multiprocessing import resource_tracker
from degla.stopping import WORKERS, leave_signals
locks = [WORKERS.Lock() for _ in range(2)]
os.kill(resource_tracker._resource_tracker._pid, signal.SIGHUP)
time.sleep(0.5)
"""
    ended = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_error_raised_at_the_end_of_a_job_stops_all() -> None:
    def refuse(number: int, end: Ended[Any]) -> None:
        raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        run_jobs(work, [("fine", 0), ("wait", 0)], processes=2, ended=refuse)
