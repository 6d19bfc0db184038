"""The same run with one, two and four processes: losses and weights agree; a run can switch between them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from degla.config.fields import to_plain
from degla.config.run import ReplayConfig, TrainConfig
from degla.config.sections import ValidationConfig
from degla.losses import RawDistillation, losses_by_name
from degla.training.loop import train
from tests.launch import run, run_together, start_together
from tests.tiny import write_classes, write_model, write_nan_model
from tests.training.configs import TRAIN, cut_off, needs_slices, tiny_config, train_in

Pairs = dict[str, Path]
WEIGHTS = ("open_clip_model.safetensors", "teacher.safetensors")


def _metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def config(tiny_model: Path, tiny_pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of four steps with checkpoints at steps 2 and 4."""
    out = tmp_path_factory.mktemp("single") / "run"
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=out, batch_size=8)
    weights = {"intra_modal": 0.1, "cross_modal_rank": 0.2}
    more = {name: replace(config.objective[name], weight=weight) for name, weight in weights.items()}
    return replace(
        config,
        objective=config.objective | more,
        checkpoint=replace(config.checkpoint, every_steps=2),
        # Adam's first steps follow the sign of pure rounding errors, so the learning rate is small.
        optim=replace(config.optim, warmup_steps=50, clip_norm=0.5),
    )


@pytest.fixture(scope="module")
def watched(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The same run in chunks, with an evaluation every two steps."""
    root = write_classes(tmp_path_factory.mktemp("classes") / "classes")
    validation = ValidationConfig(benchmarks=("zeroshot",), root=root, every_steps=2, score="recognition")
    return replace(config, validation=validation, train=replace(config.train, chunk_size=2))


@pytest.fixture(scope="module")
def single(config: TrainConfig) -> Path:
    return train(config).folder.parent


@pytest.fixture(scope="module")
def double(watched: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("double") / "run"
    train_in(2, replace(watched, out=out))
    return out


def _cut_copy(run: Path, config: TrainConfig, out: Path) -> TrainConfig:
    """The configuration of a copy of a run that ends after step 2."""
    shutil.copytree(run, out, symlinks=True)
    cut_off(replace(config, out=out), at=2)
    return replace(config, out=out)


def _assert_close(one: Path, other: Path) -> None:
    for name in WEIGHTS:
        left, right = load_file(one / name), load_file(other / name)
        assert left.keys() == right.keys()
        for key, value in left.items():
            # Adam's first steps turn tiny gradients, which depend on the order of sums, into full steps.
            torch.testing.assert_close(right[key], value, rtol=0, atol=2e-4)
            assert (right[key] - value).abs().mean() < 2e-6, key


@pytest.mark.parametrize("processes", [2, 4])
def test_number_of_processes_changes_nothing(
    processes: int, config: TrainConfig, single: Path, double: Path, tmp_path: Path
) -> None:
    out = double if processes == 2 else tmp_path / "run"
    if processes != 2:
        train_in(processes, replace(config, out=out))
    for one, many in zip(_metrics(single), _metrics(out), strict=True):
        for name in one.keys() - {"pairs_per_second"}:
            assert many[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), (one["step"], name)
    _assert_close(single / "step-4", out / "step-4")
    # Otherwise dropout and stochastic depth would treat the rows of several processes alike.
    states = torch.load(out / "step-4" / "optimizer.pt", weights_only=True)["random"]
    assert len({state["torch"].numpy().tobytes() for state in states}) == processes, "numbers of their own"


def test_a_run_of_one_process_continues_in_two_of_torchrun(config: TrainConfig, single: Path, tmp_path: Path) -> None:
    out, forked = tmp_path / "run", tmp_path / "forked"
    _cut_copy(single, config, out)
    # torchrun starts two new interpreters, which do not even share the hash seed.
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = run([*torchrun, "-m", "degla", "train", "--resume", str(out)])
    assert done.wait() == 0, done.stderr[-4000:]
    assert done.stderr.count(" pairs of ") == done.stderr.count("finished at step 4: ") == 1, "one reports it for both"
    state = json.loads((out / "step-4" / "state.json").read_text())
    assert (state["step"], state["processes"]) == (4, 2)
    assert [row["step"] for row in _metrics(out)] == [1, 2, 3, 4]
    for one, moved in zip(_metrics(single), _metrics(out), strict=True):
        for name in one.keys() - {"pairs_per_second"}:
            assert moved[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), (one["step"], name)
    _assert_close(single / "step-4", out / "step-4")
    # Two that share it, and all that the first has computed before, take the same steps bit for bit.
    train_in(2, _cut_copy(single, config, forked), resume=True)
    assert [row["loss"] for row in _metrics(forked)] == [row["loss"] for row in _metrics(out)]
    for name in WEIGHTS:
        left, right = (load_file(run / "step-4" / name) for run in (out, forked))
        assert all(torch.equal(value, right[key]) for key, value in left.items()), name


_TWICE = """
import json, sys
import torch.distributed as dist
from degla.config.fields import from_plain
from degla.errors import DeglaError
from degla.training.loop import train

plain, own = json.loads(sys.argv[1]), sys.argv[2] == "own"
if own:
    dist.init_process_group("gloo")
train(from_plain(plain, where="test"))
assert dist.is_initialized() == own
try:
    train(from_plain({**plain, "out": plain["out"] + "-again"}, where="test"))
    assert own
    dist.barrier()
except DeglaError as error:
    assert not own and "Call torch.distributed.init_process_group() before the first run" in str(error), error
"""


@pytest.mark.parametrize("group", ["own", "none"])
def test_a_group_of_the_caller_outlives_a_run(group: str, config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, out=tmp_path / "run", train=replace(config.train, steps=1))
    run_together(["-c", _TWICE, json.dumps(to_plain(short)), group], count=2)


@pytest.mark.parametrize("stream", ["pairs", "replayed"])
def test_trained_weights_that_a_stream_does_not_read_are_refused(
    stream: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """Their gradients would not be averaged over processes, and the second step would end in a traceback."""
    config = tiny_config("negbench", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    images = losses_by_name(raw_distillation=RawDistillation())
    if stream == "pairs":
        config = replace(config, objective=images, replay=ReplayConfig())
    else:
        config = replace(config, replay=replace(config.replay, objective=images))
    with pytest.raises(AssertionError, match=r"InputError: several processes cannot train weights that .* not read"):
        train_in(2, config)


_ON_A_MACHINE = (
    """
import os, sys
os.chdir(os.path.join(sys.argv.pop(1), os.environ["RANK"]))
os.environ["DEGLA_CACHE"] = os.getcwd()
"""
    + TRAIN
)


@pytest.mark.parametrize(
    ("differing", "message"),
    [("data", "training data: the digest of captions is .* in process 0, but .* in process 1\\. Copy the same files"),
     ("model", "the model's fingerprint is .* in process 0, but .* in process 1\\. Copy the same model")],
)  # fmt: skip
def test_machines_whose_data_or_models_differ_are_refused(
    differing: str, message: str, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """Each takes its part of a batch from its own rows, and its teacher from its own model, without a word."""
    for machine in "01":
        shutil.copytree(tiny_pairs["captions"].parent, tmp_path / machine)
        write_model(tmp_path / machine / "model", seed=int(machine) if differing == "model" else 0)
    if differing == "data":
        captions = tmp_path / "1" / "captions.jsonl"
        captions.write_text("".join(reversed(captions.read_text().splitlines(keepends=True))))
    here = {name: Path(path.name) for name, path in tiny_pairs.items()}
    config = tiny_config("negclip", model=Path("model"), pairs=here, out=tmp_path / "run")
    words = ["-c", _ON_A_MACHINE, str(tmp_path), json.dumps(to_plain(config))]
    with pytest.raises(AssertionError, match=message):
        run_together(words, count=2)


_OTHER_PATH = (
    """
import json, os, sys
plain = json.loads(sys.argv[1])
plain["model"] += os.environ["RANK"]
sys.argv[1] = json.dumps(plain)
"""
    + TRAIN
)


def test_machines_may_have_the_same_model_at_different_paths(config: TrainConfig, tmp_path: Path) -> None:
    for rank in "01":
        shutil.copytree(config.model, tmp_path / f"model{rank}")
    here = replace(config, model=str(tmp_path / "model"), out=tmp_path / "run")
    run_together(["-c", _OTHER_PATH, json.dumps(to_plain(here))], count=2)


_OTHER_SETTINGS = (
    """
import json, os, sys
plain, other = json.loads(sys.argv[1]), os.environ["RANK"] == "1"
if other:
    plain["model"], plain["data"]["images"], plain["data"]["workers"] = "here", "here", 1
plain["optim"]["lr"] = 2e-3 if other else 1e-3
sys.argv[1] = json.dumps(plain)
"""
    + TRAIN
)


def test_settings_that_differ_are_refused_but_for_paths_and_workers(config: TrainConfig, tmp_path: Path) -> None:
    words = ["-c", _OTHER_SETTINGS, json.dumps(to_plain(replace(config, out=tmp_path / "run")))]
    with pytest.raises(AssertionError, match=r"optim\.lr is 0\.001 in process 0, but 0\.002 in process 1\."):
        run_together(words, count=2)


def test_a_loss_that_is_not_finite_is_reported_once_with_the_whole_batch(config: TrainConfig, tmp_path: Path) -> None:
    broken = replace(config, model=str(write_nan_model(tmp_path / "nan", Path(config.model))), out=tmp_path / "run")
    (tmp_path / "config.json").write_text(json.dumps(to_plain(broken)))
    words = ["-m", "degla", "train", "--config", str(tmp_path / "config.json")]
    programs = start_together(words, count=2)
    assert [program.wait() for program in programs] == [1, 1]
    assert sum(program.stderr.count("step 1: the loss is nan") for program in programs) == 1
    (note,) = (tmp_path / "run").glob("nonfinite*")
    assert len(set(json.loads(note.read_text())["caption_ids"])) == 8


_WAITING = """
import torch
import torch.distributed as dist
from degla.recipes.clip import clip
from degla.training.build import open_accelerator

open_accelerator(clip())
options = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu")).options
assert options._timeout.total_seconds() == 7200, options._timeout
"""


def test_processes_wait_for_what_takes_the_first_long() -> None:
    run_together(["-c", _WAITING], count=2)


@needs_slices
def test_slices_give_the_same_run_as_copies_and_each_continues_as_the_other(
    watched: TrainConfig, double: Path, tmp_path: Path
) -> None:
    copies, slices = tmp_path / "ddp", tmp_path / "fsdp"
    shutil.copytree(double, copies, symlinks=True)
    sliced = replace(watched, train=replace(watched.train, strategy="fsdp"))
    assert "Warning" not in train_in(2, replace(sliced, out=slices))
    first = _metrics(copies)
    assert [row["loss"] for row in _metrics(slices)] == pytest.approx([row["loss"] for row in first], rel=1e-5)
    for one, other in zip(_validated(copies), _validated(slices), strict=True):
        assert other == pytest.approx(one, abs=0.1)
    _assert_close(copies / "step-4", slices / "step-4")
    for out in (copies, slices):
        cut_off(replace(watched, out=out), at=2)
    train_in(2, replace(sliced, out=copies), resume=True)
    train(replace(watched, out=slices), resume=True)
    for out in (copies, slices):
        losses = [row["loss"] for row in _metrics(out)]
        assert losses == pytest.approx([row["loss"] for row in first], rel=1e-4), out.name
        _assert_close(double / "step-4", out / "step-4")


def _validated(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


def test_a_run_of_two_processes_evaluates_in_both_and_continues_in_one(
    watched: TrainConfig, single: Path, double: Path, tmp_path: Path
) -> None:
    out, shared = tmp_path / "run", _validated(double)
    assert [row["step"] for row in shared] == [0, 2, 4], "each score is written once"
    train(_cut_copy(double, watched, out), resume=True)
    assert [row["step"] for row in _metrics(out)] == [1, 2, 3, 4]
    assert _validated(out)[:2] == shared[:2] and _validated(out)[2] == pytest.approx(shared[2], abs=0.1)
    for one, moved in zip(_metrics(single), _metrics(out), strict=True):
        assert moved["loss"] == pytest.approx(one["loss"], rel=1e-4)
    _assert_close(single / "step-4", out / "step-4")
