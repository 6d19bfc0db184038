"""The Slurm script under a simulated Slurm: what it starts on each machine and how it resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "slurm" / "train.sbatch"
_SRUN = """#!/usr/bin/env bash
echo srun >> "$NOTES/slurm"
while [[ $1 == --* ]]; do shift; done
pids=() started= stopped=
trap 'stopped=yes; [ -z "$started" ] || kill -TERM "${pids[@]}"' TERM
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do SLURM_NODEID=$node "$@" & pids+=($!); done
# A process that has just been forked would lose the signal.
until [ -e "$NOTES/node-0" ] && [ -e "$NOTES/node-1" ]; do sleep 0.01; done
started=yes
touch "$NOTES/started"
[ -z "$stopped" ] || kill -TERM "${pids[@]}"
ended=0
for pid in "${pids[@]}"; do
    status=0; wait "$pid" || status=$?
    while [ "$status" -gt 128 ] && kill -0 "$pid" 2>/dev/null; do status=0; wait "$pid" || status=$?; done
    [ "$status" -eq 0 ] || ended=$status
done
exit "$ended"
"""
_SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> "$NOTES/slurm"
[ "$1" != show ] || printf 'first\\nsecond\\n'
"""
_TORCHRUN = """#!/usr/bin/env bash
trap 'echo stopped > "$NOTES/stopped-$SLURM_NODEID"; kill $!; exit 1' TERM
printf '%s\\0' "$@" > "$NOTES/node-$SLURM_NODEID"
[ -z "$WAITS" ] || { sleep 1000 & wait $!; }
exit "$ENDS"
"""


@pytest.fixture
def played(tmp_path: Path) -> dict[str, str]:
    """An environment of two machines whose programs record their arguments."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL), ("torchrun", _TORCHRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "NOTES": str(tmp_path), "SLURM_JOB_ID": "41007",
            "SLURM_JOB_NODELIST": "x[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8", "ENDS": "0",
            "WAITS": ""}  # fmt: skip


def _called(notes: Path) -> list[list[str]]:
    return [(notes / f"node-{node}").read_text().split("\0")[:-1] for node in (0, 1)]


def _start(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["bash", str(SCRIPT), *words], env=environment, stderr=subprocess.PIPE, text=True)


def test_each_machine_gets_one_torchrun_with_the_words_as_they_are(played: dict[str, str], tmp_path: Path) -> None:
    words = ["degla", "--data.captions", "a folder/*.tar", "--out", "runs/one two", "--train.seed", "1"]
    assert _start(played, *words).wait() == 0
    for node, called in enumerate(_called(tmp_path)):
        assert called == ["--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "8", "--master-addr", "first",
                          "--master-port", "29507", "-m", "degla", "train", *words]  # fmt: skip


@pytest.mark.parametrize("out", [["--out", "s3://bucket/run"], ["--out=s3://bucket/run"]])
def test_a_job_that_was_started_again_resumes(out: list[str], played: dict[str, str], tmp_path: Path) -> None:
    assert _start(played | {"SLURM_RESTART_COUNT": "1", "ENDS": "3"}, "degla", *out).wait() == 3
    assert all(called[-5:] == ["-m", "degla", "train", "--resume", "s3://bucket/run"] for called in _called(tmp_path))


def test_without_a_place_for_the_run_nothing_starts(played: dict[str, str], tmp_path: Path) -> None:
    refused = _start(played, "degla")
    assert refused.wait() == 2 and refused.stderr is not None
    assert "add --out FOLDER or --out ADDRESS after" in refused.stderr.read() and not (tmp_path / "slurm").exists()


@pytest.mark.parametrize("line", ["srun", "running="])
def test_a_job_that_is_to_stop_while_it_starts_is_queued_again(
    line: str, played: dict[str, str], tmp_path: Path
) -> None:
    # Before this line of the script.
    (tmp_path / "early").write_text(
        f"""trap 'case $0/$BASH_COMMAND in *train.sbatch/{line}*) kill -TERM $$;; esac' DEBUG"""
    )
    job = _start(played | {"WAITS": "yes", "BASH_ENV": str(tmp_path / "early")}, "degla", "--out", "run")
    assert job.wait(300) == 0
    assert (tmp_path / "slurm").read_text().splitlines()[-1] == "scontrol requeue 41007"


@pytest.mark.parametrize("line", ["-z*stopped", "-n*stopped"])
def test_a_signal_after_the_processes_have_ended_queues_the_job_again(
    line: str, played: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "late").write_text(
        f"""trap 'case $0/$BASH_COMMAND in *train.sbatch/*{line}*) wait "$running"; kill -TERM $$;; esac' DEBUG"""
    )
    job = _start(played | {"BASH_ENV": str(tmp_path / "late")}, "degla", "--out", "run")
    assert job.wait(300) == 0
    assert (tmp_path / "slurm").read_text().splitlines()[-1] == "scontrol requeue 41007"


def test_when_its_time_is_up_the_job_stops_its_processes_and_is_queued_again(
    played: dict[str, str], tmp_path: Path
) -> None:
    job = _start(played | {"WAITS": "yes"}, "degla", "--out", "run")
    while not all((tmp_path / name).exists() for name in ("node-0", "node-1", "started")):
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(300) == 0
    assert all((tmp_path / f"stopped-{node}").exists() for node in (0, 1))
    assert (tmp_path / "slurm").read_text().splitlines()[-1] == "scontrol requeue 41007"
