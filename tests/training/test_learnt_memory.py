"""A loss's memory that is a parameter is trained with the model, averaged over processes, and in the checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.losses.core import Embeddings, Objective, Processes, StatefulLoss, Target
from degla.losses.core.embeddings import embeddings_of
from degla.losses.core.objective import Memory, loss_class, wanted_by
from degla.shelf import PARTS
from degla.training.loop import train
from tests.launch import run_together
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

_IMPORTS = """
from dataclasses import dataclass

import torch

from degla.losses import StatefulLoss


"""
_PART = (
    _IMPORTS
    + """@dataclass(frozen=True)
class Tempered(StatefulLoss):
    weight: float = 1.0
    scaled = False
    of_negatives = True

    def start(self, rules):
        return torch.nn.Parameter(torch.tensor([-1.0, 0.2]))

    def value(self, student, teacher, processes, memory):
        wrong = torch.einsum("bd,bkd->bk", student.image, student.negative - student.caption[:, None])
        loss = torch.nn.functional.softplus((memory[1] + wrong) / memory[0].exp())
        return processes.mean(loss, student.valid), memory
"""
)
_COUNTED = (
    _IMPORTS
    + """@dataclass(frozen=True)
class Counted(StatefulLoss):
    weight: float = 1.0
    scaled = False
    of_negatives = True

    def start(self, rules):
        return {"steps": torch.ones(1), "margin": torch.nn.Parameter(torch.full((1,), 0.2))}

    def value(self, student, teacher, processes, memory):
        wrong = torch.einsum("bd,bkd->bk", student.image, student.negative - student.caption[:, None])
        loss = torch.nn.functional.softplus(memory["margin"] + wrong) / memory["steps"].item()
        memory["steps"] += 1
        return processes.mean(loss, student.valid), memory
"""
)
_RARE = (
    _IMPORTS
    + """@dataclass(frozen=True)
class Rare(StatefulLoss):
    weight: float = 1.0
    scaled = False

    def start(self, rules):
        return torch.nn.Parameter(torch.ones(1))

    def value(self, student, teacher, processes, memory):
        loss = processes.mean((student.image - student.caption).square())
        return loss if processes.rank else loss + memory.square().sum(), memory
"""
)


@dataclass(frozen=True)
class Learnt(StatefulLoss):
    """A distance whose weights, one per dimension, are learnt."""

    weight: float = 1.0
    forgets: bool = False
    scaled = False

    def start(self, rules: int) -> Tensor:
        return nn.Parameter(torch.ones(1))

    def value(
        self, student: Embeddings, teacher: Target, processes: Processes, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        apart = (student.image - student.caption).square().sum(-1)
        return processes.mean((memory - apart).square()), memory.detach() if self.forgets else memory


def _config(
    model: Path, pairs: dict[str, Path], out: Path, *, strategy: str = "ddp", forgets: bool = False
) -> TrainConfig:
    config = tiny_config("clip", model=model, pairs=pairs, out=out, strategy=strategy)
    return replace(config, objective=config.objective | {"learnt": Learnt(forgets=forgets)})


def _own_loss(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    file = folder / "parts" / "losses" / f"{name}.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    monkeypatch.setenv(PARTS, str(folder / "parts"))


def test_it_is_trained_and_resumed_bit_for_bit(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    config = _config(tiny_model, tiny_pairs, tmp_path / "run")
    again = config.replay.objective | {"learnt": Learnt()}
    config = replace(config, replay=replace(config.replay, batch_size=4, data=config.data, objective=again))
    whole, resumed = whole_and_resumed(config)
    halfway, *ends = (
        torch.load(folder / "optimizer.pt", weights_only=True)["learnt"]["0.learnt"]
        for folder in (whole.folder.with_name("step-2"), whole.folder, resumed.folder)
    )
    assert 1 != float(halfway) != float(ends[0]), "every step moves it"
    assert torch.equal(*ends)
    replayed = torch.load(whole.folder / "optimizer.pt", weights_only=True)["learnt"]["1.learnt"]
    lines = [json.loads(line) for line in (resumed.folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert [lines[1]["learnt.memory"], lines[-1]["learnt.memory"]] == [float(halfway), float(ends[0])]
    assert lines[-1]["replay.learnt.memory"] == float(replayed) != 1
    weights = [(each.folder / "open_clip_model.safetensors").read_bytes() for each in (whole, resumed)]
    assert weights[0] == weights[1]


def test_a_run_whose_loss_has_changed_is_not_called_damaged(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _own_loss(tmp_path, monkeypatch, "tempered", _PART)
    own = loss_class("tempered")
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    config = replace(config, objective=config.objective | {"tempered": own()})
    train(config)
    (tmp_path / "parts" / "losses" / "tempered.py").write_text(f"{_PART}# It learns nothing now.\n")
    monkeypatch.setattr(own, "start", lambda self, rules: torch.tensor([-1.0, 0.2]))
    with pytest.raises(InputError, match=r"step-\d: losses/tempered\.py in DEGLA_PARTS has changed since this"):
        train(config, resume=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_may_be_several_of_which_some_are_learnt(
    precision: Literal["fp32", "bf16"],
    tiny_model: Path,
    tiny_pairs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _own_loss(tmp_path, monkeypatch, "counted", _COUNTED)
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    config = replace(config, objective=config.objective | {"counted": loss_class("counted")()})
    whole, resumed = whole_and_resumed(replace(config, train=replace(config.train, precision=precision)))
    halfway, *ends = (
        torch.load(folder / "optimizer.pt", weights_only=True)
        for folder in (whole.folder.with_name("step-2"), whole.folder, resumed.folder)
    )
    margins = [float(each["learnt"]["0.counted/margin"]) for each in (halfway, *ends)]
    assert margins[0] not in (0.2, margins[1]) and margins[1] == margins[2]
    assert [float(each["memory"]["counted/steps"]) for each in (halfway, *ends)] == [3, 1 + whole.step, 1 + whole.step]
    lines = [json.loads(line) for line in (resumed.folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["counted.margin"] == margins[1]
    weights = [(each.folder / "open_clip_model.safetensors").read_bytes() for each in (whole, resumed)]
    assert weights[0] == weights[1]


def test_several_are_counted_only_where_they_should_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _own_loss(tmp_path, monkeypatch, "counted", _COUNTED)
    own = loss_class("counted")
    objective, image = Objective({"counted": own()}), torch.eye(2)
    tensors = {"image": image, "caption": image, "negative": image.flip(0)[:, None]}
    objective(**tensors)[0].backward()
    student, teacher = embeddings_of(tensors, wanted_by("test", [own()]), Processes.current())
    objective.value_without_update(student, teacher, Processes.current())
    assert objective.memory["counted"]["steps"] == 2 and objective.learnt["counted/margin"].grad is not None
    value, memory = own()(own().start(rules=1), **tensors)
    assert value > 0 and memory["steps"] == 2
    monkeypatch.setattr(own, "value", lambda self, *_: (torch.zeros(()), {"steps": torch.ones(1)}))
    with pytest.raises(InputError, match=r"counted: Counted\.value must return its learnt memory as it got it\.$"):
        objective(**tensors)


@pytest.mark.parametrize(
    ("name", "part", "key"), [("tempered", _PART, "tempered"), ("counted", _COUNTED, "counted/margin")]
)
def test_processes_and_chunks_change_no_gradient_of_it(
    name: str, part: str, key: str, tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _own_loss(tmp_path, monkeypatch, name, part)
    words = []
    for size in (None, 1):
        plain = to_plain(tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, chunk_size=size))
        plain["objective"][name] = {"weight": 1.0}
        words.append(json.dumps(plain))
    worker, results = str(Path(__file__).with_name("gradient_worker.py")), []
    for count in (1, 2):
        run_together([worker, str(tmp_path / f"{count}.pt"), *words], count=count)
        results += torch.load(tmp_path / f"{count}.pt", weights_only=True).values()
    first, *others = (each["gradients"][f"learnt.0.{key}"] for each in results)
    assert first.abs().min() > 1e-4 and len(others) == 3
    for each in others:
        torch.testing.assert_close(each, first, rtol=1e-5, atol=0)


def test_a_process_may_compute_its_loss_without_it(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _own_loss(tmp_path, monkeypatch, "rare", _RARE)
    plain = to_plain(tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path))
    plain["objective"]["rare"] = {"weight": 1.0}
    worker = str(Path(__file__).with_name("gradient_worker.py"))
    run_together([worker, str(tmp_path / "2.pt"), json.dumps(plain)], count=2)
    (step,) = torch.load(tmp_path / "2.pt", weights_only=True).values()
    assert step["gradients"]["learnt.0.rare"].tolist() == [1], "the mean of 2 and 0"


@dataclass(frozen=True)
class Drawn(Learnt):
    def start(self, rules: int) -> Tensor:
        return torch.rand(1)


def test_a_drawn_memory_depends_on_the_seed_only(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    config = replace(config, objective=config.objective | {"drawn": Drawn()})
    first, again = (first_step(config)[2].main.objective.memory["drawn"] for _ in range(2))
    other = first_step(replace(config, train=replace(config.train, seed=7)))[2].main.objective.memory["drawn"]
    assert torch.equal(first, again) and not torch.equal(first, other)


@dataclass(frozen=True)
class Layered(Learnt):
    def start(self, rules: int) -> Memory:
        return {f"0.{name}": parameter for name, parameter in nn.Linear(1, 1).named_parameters()}

    def value(self, student: Embeddings, teacher: Target, processes: Processes, memory: Any) -> tuple[Tensor, Any]:
        return super().value(student, teacher, processes, memory["0.bias"])[0], memory


def test_it_may_be_the_parameters_of_a_module(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    trainer = first_step(replace(config, objective=config.objective | {"layered": Layered()}))[2]
    trained = {id(value) for group in trainer.optimizer.param_groups for value in group["params"]}
    assert {id(value) for value in trainer.main.objective.learnt.values()} <= trained


@dataclass(frozen=True)
class Fast(Learnt):
    lr_multiple: float = 50.0


def test_it_may_have_a_learning_rate_of_its_own(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    moved, rates = {}, {}
    for name, loss in {"plain": Learnt(), "fast": Fast()}.items():
        config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / name / "run")
        whole, resumed = whole_and_resumed(replace(config, objective=config.objective | {"learnt": loss}))
        first, *ends = (
            torch.load(folder / "optimizer.pt", weights_only=True)["learnt"]["0.learnt"]
            for folder in (whole.folder.with_name("step-2"), whole.folder, resumed.folder)
        )
        assert torch.equal(*ends)
        lines = [json.loads(line) for line in (resumed.folder.parent / "metrics.jsonl").read_text().splitlines()]
        moved[name], rates[name] = float(first) - 1, [line["lr"] for line in lines]
    assert moved["fast"] == pytest.approx(50 * moved["plain"], rel=0.05), "AdamW moves it by the rate, in each step"
    assert rates["fast"] == rates["plain"], "that of the model"


def test_multiples_of_the_learning_rate_are_those_of_each_loss() -> None:
    objective = Objective({"a/b": Fast(), "learnt": Learnt()})
    assert list(objective.lr_multiples.values()) == [50, 1]
    assert list(objective.lr_multiples) == list(objective.learnt.values())
    for wrong in (-1.0, 0.0):
        with pytest.raises(InputError, match=rf"^learnt: the loss's lr_multiple is {wrong}; it must be a number above"):
            _ = Objective({"learnt": Fast(lr_multiple=wrong)}).lr_multiples


def test_a_value_without_the_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.eye(2)
    monkeypatch.setattr(Learnt, "value", lambda self, *_: torch.zeros(()))
    message = r"Learnt\.value returned Tensor; it must return two values, .*: return loss, memory$"
    with pytest.raises(InputError, match=message):
        Objective({"learnt": Learnt()})(image=image, caption=image)
    with pytest.raises(InputError, match=message):
        Learnt()(Learnt().start(rules=1), image=image, caption=image)
    monkeypatch.setattr(Learnt, "value", lambda self, *_: (torch.zeros(()),))
    with pytest.raises(InputError, match=r"Learnt\.value returned a tuple of 1; it must return two values"):
        Objective({"learnt": Learnt()})(image=image, caption=image)
    monkeypatch.setattr(Learnt, "value", lambda self, *others: [torch.zeros(()), others[-1]])
    assert Objective({"learnt": Learnt()})(image=image, caption=image)[0] == 0, "a list of two is a pair, too"


def test_in_a_loop_of_ones_own_an_optimizer_takes_it_from_the_memory() -> None:
    objective = Objective({"learnt": Learnt()})
    optimizer = torch.optim.SGD(objective.learnt.values(), lr=0.5)
    image, caption = torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]])
    objective(image=image, caption=caption)[0].backward()
    optimizer.step()
    assert objective.memory["learnt"].tolist() == [2], "d/dm (m - 2)^2 = -2 at m = 1"


def test_what_would_not_be_trained_is_refused(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"learnt: Learnt\.value must return its learnt memory as it got it\.$"):
        train(_config(tiny_model, tiny_pairs, tmp_path / "run", forgets=True))
    with pytest.raises(InputError, match=r"--train\.strategy fsdp cannot train the memory of learnt\. Use ddp\.$"):
        train(_config(tiny_model, tiny_pairs, tmp_path / "sharded", strategy="fsdp"))
    monkeypatch.setattr(Learnt, "start", lambda self, rules: nn.Linear(1, 1))
    with pytest.raises(InputError, match=r"^learnt: the loss's start returned Linear; it must return a tensor, or a"):
        Objective({"learnt": Learnt()})
