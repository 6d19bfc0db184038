"""A user's own parts: every command knows them by `DEGLA_PARTS`, results name them, and what is wrong is one line."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pyarrow as arrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file

import degla.losses
from degla.config.run import recipe_config
from degla.errors import InputError
from degla.inputs import INPUTS, Input, add_inputs
from degla.losses.core import Embeddings, Loss, Processes, Target
from degla.model.load import load_encoder
from degla.shelf import BENCHMARKS, DRAWS, LOSSES, PARTS, RECIPES, RULES
from degla.study.workers import try_job
from degla.training.pairs import open_pairs
from degla.training.rows import read_pairs
from tests.launch import start, start_together
from tests.tiny import write_classes, write_small_world
from tests.training.configs import tiny_config

_GIVEN = Path(__file__).parent / "fixtures" / "parts"
_COMMANDS = """
import json, multiprocessing, pathlib, shutil, sys
import degla.study.workers
from degla.cli import main
multiprocessing.set_start_method("fork", force=True)  # For loaders; else each would begin with seconds of imports.
for words in json.loads(sys.argv[1]):
    if words[0] == "fork":
        degla.study.workers.WORKERS = multiprocessing.get_context("fork")
        continue
    if words[0] == "write":
        pathlib.Path(words[1]).write_text(words[2])
        continue
    if words[0] == "remove":
        shutil.rmtree(words[1])
        continue
    try:
        status = main(words)
    except SystemExit as end:  # after --help
        status = end.code
    print(f"\\0{status}\\0", flush=True)
    print("\\0", file=sys.stderr, flush=True)
"""
_LOSS = """from degla.inputs import Input
from degla.losses import Loss


class One(Loss):
    inputs = {{"{name}": {input}}}
"""
_OWN = {"draws/last.py", "losses/my_margin.py"}


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


def _degla(*commands: Sequence[object], parts: Path | None) -> list[Outcome]:
    """Run commands one after the other in one new process, in which `write PATH TEXT`, `remove PATH` and `fork`, the
    workers that follow, are no commands."""
    words = json.dumps([list(map(str, command)) for command in commands])
    done = start(["-c", _COMMANDS, words], environment={PARTS: str(parts or "")}, parent=True)
    assert done.wait() == 0, done.stderr[-4000:]
    pieces = done.stdout.split("\0")[:-1]
    return [Outcome(int(status), out, err) for out, status, err in
            zip(pieces[::2], pieces[1::2], done.stderr.split("\0\n"), strict=False)]  # fmt: skip


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return Path(shutil.copytree(_GIVEN, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path) -> Iterator[None]:
    """The modules of parts that this process has imported; those of the package stay, as its classes need them."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_world(tmp_path_factory.mktemp("base") / "small")


def _train(base: Path, pairs: dict[str, Path], out: Path) -> list[object]:
    given = [word for name in ("captions", "images", "negatives") for word in (f"--data.{name}", pairs[name])]
    return ["train", "mine", "--model", base, *given, "--data.negatives-per-caption", 2, "--train.batch-size", 4,
            "--train.steps", 4, "--train.seed", 3, "--checkpoint.every-steps", 2, "--checkpoint.keep", 0, "--data.draw",
            "last", "--out", out]  # fmt: skip


def _questions(pairs: dict[str, Path], root: Path) -> Path:
    shutil.copytree(pairs["images"], root)
    (root / "colours").mkdir()
    rows = [{"image": f"00{number}.png", "true": "a red square", "false": "a blue star"} for number in range(4)]
    (root / "colours" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def _state(run: Path) -> dict[str, dict[str, str]]:
    state: dict[str, dict[str, str]] = json.loads((run / "step-4" / "state.json").read_text())
    return state


def test_parts_are_listed_explained_and_flags_and_nothing_of_them_runs_for_that(parts: Path) -> None:
    (parts / "losses" / "raising.py").write_text('"""Nothing."""\n\nraise RuntimeError("imported")\n')
    ls, one, none = _degla(["ls", "--json"], ["explain", "say_no"], ["train", "mine", "--help"], parts=parts)
    members = json.loads(ls.out)
    assert members["losses"]["my_margin"] == "A margin between captions and negatives."
    assert members["losses"]["raising"] == "Nothing." and "_margins" not in members["losses"]
    found = {shelf: set(members[shelf]) & {"mine", "last", "say_no", "colours"} for shelf in members}
    assert found == {"recipes": {"mine"}, "losses": set(), "rules": {"say_no"}, "positives": set(), "draws": {"last"},
                     "benchmarks": {"colours"}, "systems": set()}  # fmt: skip
    assert one.status == 0 and 'Put "no" before the caption.' in one.out and "Examples" not in one.out
    file = parts / "losses" / "raising.py"
    assert (none.status, none.err) == (2, f"degla: {file} line 3: RuntimeError: imported\n")
    file.unlink()

    texts = _degla(["explain", "my_margin"], ["explain", "colours"], ["explain", "objective.my_margin.margin"],
                   ["train", "mine", "--help", "objective.my-margin"], ["train", "clip", "--print-config"],
                   parts=parts)  # fmt: skip
    assert [text.status for text in texts] == [0] * 5
    loss, benchmark, field, flag, config = (text.out for text in texts)
    assert "Recipes:  mine; see" in loss and "Licence:  ours" in benchmark
    assert "Margin in cosine similarity" in field and "--objective.my-margin.weight" in flag and "Here: 0.5." in flag
    assert "my_margin" not in config, "a loss without a weight is no setting of the run"


def test_a_run_with_parts_says_so_and_resumes_only_with_them(
    parts: Path, base: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    run, plain, file = tmp_path / "run", tmp_path / "plain", parts / "losses" / "my_margin.py"
    data = _questions(tiny_pairs, tmp_path / "data")
    others = ["--objective.my-margin.weight", 0, "--data.draw", "random"]
    text, helper = file.read_text(), file.with_name("_margins.py")
    resume, words = ["train", "--resume", run, "--data.workers", 0], helper.read_text()
    first, other, again, scored, refused, also, resumed = _degla(
        [*_train(base, tiny_pairs, run), "--data.workers", 1],  # A loader's process draws.
        [*_train(base, tiny_pairs, plain), *others],
        ["train", "--config", plain / "config.json", "--print-config"],
        ["evaluate", run, "--benchmarks", "colours", "--root", data, "--out", tmp_path / "result.json"],
        ["remove", run / "step-4"],
        ["write", file, text + "# another\n"],
        resume,
        ["write", file, text],
        ["write", helper, words + "# another\n"],
        resume,
        ["write", helper, words],
        resume,
        parts=parts,
    )
    assert first.status == other.status == scored.status == 0, first.err + scored.err
    assert again.status == 0 and "my_margin" not in again.out, "the weight of its recipe is not the run's"
    told = f"degla: {run / 'step-2'}: losses/my_margin.py in DEGLA_PARTS has changed since this checkpoint."
    for each in (refused, also):
        assert each.status == 2 and each.err.splitlines()[-1].startswith(told), each.err
    assert resumed.status == 0, resumed.err
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [0 < row["my_margin"] < 2 for row in metrics] == [True] * len(metrics)
    assert {name for name in _state(run)["data"] if name.endswith(".py")} == _OWN
    assert "recipes/mine.py" in _state(run)["versions"]
    assert not {name for name in _state(plain)["data"] if name.endswith(".py")}
    assert "benchmarks/colours.py" in json.loads((tmp_path / "result.json").read_text())["versions"]

    shutil.rmtree(run / "step-4")
    shutil.rmtree(plain / "step-4")
    unknown, resumed = _degla(resume, ["train", "--resume", plain], parts=None)
    assert unknown.status == 2
    assert unknown.err.startswith(f"degla: {run / 'step-2' / 'config.json'}: unknown loss 'my_margin'.")
    assert "If it is your own, set DEGLA_PARTS to its folder." in unknown.err and unknown.err.count("\n") == 1
    assert resumed.status == 0, "whoever lacks the parts reads a run that uses none of them"


@pytest.mark.parametrize(
    "words",
    [
        "from degla.losses.my_margin import MyMargin as One",
        "from degla.losses import MyMargin as One",
        "import degla.losses.my_margin",
        "from .my_margin import MyMargin",
        "from . import my_margin",
        "from degla import losses\nOne = losses.MyMargin",
        "import degla\nOne = degla.losses.MyMargin",
        "from degla import losses as ours\nOne = ours.MyMargin",
        "import degla.losses as ours\nOne = ours.MyMargin",
    ],
)
def test_a_part_that_imports_another_has_the_digest_of_both(
    parts: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARTS, str(parts))
    losses, both = parts / "losses", {"losses/my_loss.py", "losses/my_margin.py"}
    (losses / "my_loss.py").write_text(f"{words}\n")
    (parts / "recipes" / "other.py").write_text("from degla.losses import MyLoss\n")
    before = LOSSES.digests(["my_loss"])
    assert before.keys() == both and LOSSES.digests(["my_weighted"]).keys() == {"losses/my_weighted.py"}
    assert RECIPES.digests(["other"]).keys() == {"recipes/other.py", *both}
    margin = losses / "my_margin.py"
    margin.write_text(f"from degla.losses import MyLoss\n{margin.read_text()}")  # in a circle
    after = LOSSES.digests(["my_loss"])
    assert {name for name in both if before[name] != after[name]} == {"losses/my_margin.py"}
    (losses / "my_loss.py").write_text("'MyMargin'\n")
    for wrong in ("(", "from ....elsewhere import One"):
        (losses / "_broken.py").write_text(wrong)
        assert LOSSES.digests(["my_loss"]).keys() == {"losses/my_loss.py"}
    (losses / "_broken.py").write_text("from degla.losses.my_weighted import MyWeighted\n")
    assert LOSSES.digests(["my_loss"]).keys() == {"losses/my_loss.py", "losses/my_weighted.py"}


def test_processes_of_torchrun_know_the_parts(
    parts: Path, base: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    words = [str(word) for word in _train(base, tiny_pairs, tmp_path / "run")]
    words = ["-m", "degla", *words]
    for each in start_together(words, count=2, environment={PARTS: str(parts)}, parent=True):
        assert each.wait() == 0, each.stderr[-4000:]
    assert {name for name in _state(tmp_path / "run")["data"] if name.endswith(".py")} == _OWN


def test_a_loss_reads_a_column_of_its_own(parts: Path, base: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    rows = [{name: row[name] for name in ("id", "image", "text", "image_id")} for row in rows]
    for number, row in enumerate(rows):
        row |= {"trust": number / 8 if number % 3 else None, "said": f"one says {row['text']}"}
    files = {ending: tmp_path / f"captions.{ending}" for ending in ("jsonl", "csv", "parquet")}
    files["jsonl"].write_text("\n".join(json.dumps(row) for row in rows))
    arrow.csv.write_csv(arrow.Table.from_pylist(rows), files["csv"])
    arrow.parquet.write_table(arrow.Table.from_pylist(rows), files["parquet"])
    bad = {"lacks": {"said": None}, "text": {"trust": "much"}, "infinite": {"trust": float("inf")}}
    for name, change in bad.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, [*rows[:5], rows[5] | change, *rows[6:]])))

    def words(captions: Path, name: str, *more: object) -> list[object]:
        return ["train", "clip", "--model", base, "--data.captions", captions, "--data.images", tiny_pairs["images"],
                "--objective.my-weighted.weight", 1, "--objective.my-paraphrase.weight", 1, "--train.batch-size", 8,
                "--train.steps", 3, "--checkpoint.every-steps", 2, "--checkpoint.keep", 0, "--tracking.every-steps", 1,
                "--out", tmp_path / name, *more]  # fmt: skip

    *trained, lacks, text, infinite, none, split = _degla(
        *(words(file, ending) for ending, file in files.items()),
        words(files["jsonl"], "chunks", "--train.chunk-size", 2),
        ["remove", tmp_path / "csv" / "step-3"],
        ["train", "--resume", tmp_path / "csv"],
        *(words(tmp_path / f"{name}.jsonl", name) for name in bad),
        words(tiny_pairs["captions"], "none", "--objective.my-paraphrase.weight", 0),
        ["prepare", "split", files["parquet"], "--out", tmp_path / "halves"],
        parts=parts,
    )
    assert [each.status for each in trained] == [0] * 5, "".join(each.err for each in trained)
    ends = [json.loads((tmp_path / name / "step-3" / "state.json").read_text())["data"] for name in (*files, "chunks")]
    assert {"trust", "said"} <= ends[0].keys() and ends == [ends[0]] * 4
    losses = {name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
              for name in (*files, "chunks")}  # fmt: skip
    for name in losses:
        for row, first in zip(losses[name], losses["jsonl"], strict=True):
            for loss in ("my_weighted", "my_paraphrase"):
                assert first[loss] > 0 and row[loss] == pytest.approx(first[loss], rel=1e-5)
    weights = [load_file(tmp_path / name / "step-3" / "open_clip_model.safetensors") for name in ("jsonl", "csv")]
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items()), "resumed, it is the whole run"
    assert f"caption {rows[5]['id']!r} has no field said, but a loss of this recipe reads it for every" in lacks.err
    assert "text.jsonl line 6: field 'trust': Input should be a valid number" in text.err
    assert "infinite.jsonl line 6" in infinite.err
    assert split.status == 0, split.err
    halves = [json.loads(line) for file in ("train", "held_out")
              for line in (tmp_path / "halves" / f"{file}.jsonl").read_text().splitlines()]  # fmt: skip
    assert sorted(halves, key=lambda row: rows.index(next(each for each in rows if each["id"] == row["id"]))) == rows
    assert "no caption has the field trust, but a loss of this recipe reads it." in none.err


def test_a_number_of_its_own_reaches_the_loss_at_its_pair(
    parts: Path, base: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARTS, str(parts))
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    trust = {row["id"]: number / 8 if number % 3 else None for number, row in enumerate(rows)}
    captions = tmp_path / "captions.jsonl"
    captions.write_text("\n".join(json.dumps(row | {"trust": trust[row["id"]]}) for row in rows))
    with patch.dict(INPUTS):
        loss = LOSSES.member("my_weighted", "MyWeighted")()
        pairs = tiny_pairs | {"captions": captions}
        config = tiny_config("clip", model=base, pairs=pairs, out=tmp_path / "run", batch_size=24)
        config = replace(config, objective=config.objective | {"my_weighted": loss})
        encoder = load_encoder(str(base))
        opened = open_pairs(config, encoder=encoder, processes=Processes())
        batch = next(opened.batches(0, start=0, device=encoder.device))
        assert batch.extra["trust"].dtype == torch.float32
        there = [number if valid else None for number, valid in
                 zip(batch.extra["trust"].tolist(), batch.extra["trust_valid"].tolist(), strict=True)]  # fmt: skip
        assert dict(zip(batch.ids, there, strict=True)) == trust
        image, caption = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).unbind()
        apart = 1 - torch.cosine_similarity(image, caption)
        numbers, kept = torch.tensor([0.5, 2.0, torch.nan, 1.0]), torch.tensor([True, True, False, True])
        expected = (numbers * apart)[kept].mean()
        torch.testing.assert_close(loss(image=image, caption=caption, trust=numbers, trust_valid=kept), expected)
        whole = loss(image=image, caption=caption, trust=torch.ones(4))
        torch.testing.assert_close(whole, apart.mean())
        with pytest.raises(InputError, match=r"MyWeighted: missing trust \[B\], trust_valid \[B\]\."):
            loss(image=image, caption=caption)


@pytest.mark.parametrize("number", [1e39, -1e39, 1e-50, 16_777_217, -(2**53) + 1])
def test_a_number_that_float32_lacks_is_refused(
    number: float, parts: Path, base: Path, tiny_pairs: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(PARTS, str(parts))
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    trusts: list[float | None] = [0.1, None, 3e38, 16_777_216, 2**40, number]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("\n".join(json.dumps(row | {"trust": each}) for row, each in zip(rows, trusts, strict=False)))
    with patch.dict(INPUTS):
        loss = LOSSES.member("my_weighted", "MyWeighted")()
        config = tiny_config("clip", model=base, pairs=tiny_pairs | {"captions": captions}, out=tmp_path / "run")
        stream = replace(config.streams[0], objective={"my_weighted": loss})
        with pytest.raises(InputError, match=rf"captions\.jsonl: caption '{rows[5]['id']}': trust is -?\d.*float32"):
            read_pairs(stream, seed=0, processes=Processes())
        captions.write_text(captions.read_text().rpartition("\n")[0])
        read_pairs(stream, seed=0, processes=Processes())


def test_a_loss_of_the_name_of_a_base_class_leaves_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "embeddings.py").write_text("")
    (tmp_path / "losses" / "__init__.py").write_text("")
    monkeypatch.setenv(PARTS, str(tmp_path))
    assert "embeddings" in LOSSES.names() and degla.losses.Embeddings is Embeddings


def test_an_own_loss_refuses_a_weight_below_0_as_any_other() -> None:
    @dataclass(frozen=True)
    class OfAnyWeight(Loss):
        weight: float = 1.0

        def value(self, student: Embeddings, teacher: Target, processes: Processes) -> torch.Tensor:
            return student.image.sum()

    with pytest.raises(InputError, match=r"weight is -1.0; it must be 0 or more, a finite number"):
        OfAnyWeight(weight=-1.0)


def test_an_input_that_lost_its_mask_is_checked_again(
    base: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("\n".join(json.dumps(row | {"sure": 1 if row["label"] else None}) for row in rows))
    config = tiny_config("clip", model=base, pairs=tiny_pairs | {"captions": captions}, out=tmp_path / "run")
    with patch.dict(INPUTS):
        reads = add_inputs({"sure": Input("B", "value", column="sure", mask="sure_valid")}, loss="One")
        stream = replace(config.streams[0], objective={"one": SimpleNamespace(weight=1.0, reads=reads, needs=())})
        read_pairs(stream, seed=0, processes=Processes())
        INPUTS["sure"] = replace(INPUTS["sure"], mask="")
        with pytest.raises(InputError, match=r"caption '.*' has no field sure, but a loss of this recipe reads it"):
            read_pairs(stream, seed=0, processes=Processes())


def test_negatives_of_a_rule_name_its_file(parts: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    out, file = tmp_path / "negatives.jsonl", parts / "rules" / "say_no.py"
    make = ["negatives", tiny_pairs["captions"], "--rules", "say_no", "replace_nouns", "--workers", 2, "--out", out]
    made, refused = _degla(make, ["write", file, file.read_text() + "# another\n"], make, parts=parts)
    assert made.status == 0, made.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["text"] for row in rows[:1]] == ["There is no a red square above a blue circle"]
    manifest = json.loads((tmp_path / "negatives.jsonl.manifest.json").read_text())
    assert manifest["own"].keys() == {"rules/say_no.py"}
    assert refused.status == 2 and "made with other settings or captions (own: was {'rules/say_no.py'" in refused.err


def test_workers_of_a_study_know_the_parts_and_train_again_after_a_change(
    parts: Path, base: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    data = {f"data.{name}": str(tiny_pairs[name]) for name in ("captions", "images", "negatives")}
    data |= {"train.steps": 2, "train.batch_size": 4, "data.negatives_per_caption": 2}  # type: ignore[dict-item]
    root = write_classes(_questions(tiny_pairs, tmp_path / "data"), images=4)
    plan = {"title": "Mine", "base": str(base), "benchmarks": {"names": ["colours", "zeroshot"], "root": str(root)},
            "set": data, "arms": [{"recipe": "mine"}, {"recipe": "clip", "objective.my_margin.weight": 1.0,
            "data.draw": "last"}], "seeds": 1}  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    study = ["study", tmp_path / "plan.yaml", "--out", tmp_path / "out", "--processes", 1]
    first, again = _degla(study, ["fork"], study, parts=parts)
    assert first.status == again.status == 0, first.err[-3000:] + again.err[-3000:]
    record = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [model["label"] for model in record["models"]] == ["base", "mine", "clip"]
    assert "benchmarks/colours.py" in record["versions"]
    runs = [next(tmp_path.glob(f"out/runs/{name}*/step-2/state.json")) for name in ("mine", "clip")]
    times = [run.stat().st_mtime_ns for run in runs]
    file = parts / "draws" / "last.py"
    file.write_text(file.read_text() + "# another\n")
    (changed,) = _degla(["fork"], study, parts=parts)
    assert changed.status == 0, changed.err[-3000:]
    now = [next(tmp_path.glob(f"out/runs/{name}*/step-2/state.json")).stat().st_mtime_ns for name in ("mine", "clip")]
    assert [before == after for before, after in zip(times, now, strict=True)] == [True, False]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"DEGLA_PARTS: .*mine: no such folder\."),
        ({"my_margin.py": ""}, r"DEGLA_PARTS: .*mine: has no folder recipes, losses, .* or benchmarks with parts\."),
        ({"losses/my-margin.py": ""}, r".*my-margin\.py: a loss's name must be a Python identifier\. .*"),
        ({"losses/class.py": ""}, r".*class\.py: a loss's name must be a Python identifier\. Rename the file\."),
        ({"losses/contrastive_.py": ""}, r".*contrastive_\.py: a loss's name must be in lower case, with one _ .*"),
        ({"losses/Contrastive.py": ""}, r".*Contrastive\.py: a loss's name must be in lower case, with one _ .*"),
        ({"losses/one.py": "import sys\n\nsys.exit(0)\n"}, r".*losses/one\.py line 3: SystemExit: 0"),
        ({"losses/one.py": "raise ValueError('a\\nb')\n"}, r".*losses/one\.py line 1: ValueError: a b"),
        ({"losses/contrastive.py": ""}, r".*contrastive\.py: the name 'contrastive' is taken by .*contrastive\.py\..*"),
        ({"losses/core.py": ""}, r".*core\.py: the name 'core' is taken by .*core\. Rename the file\."),
        ({"losses/lr.py": ""}, r".*lr\.py: the name 'lr' is taken by another column of metrics\.jsonl\. Rename .*"),
        ({"losses/one.py": "a = 1\nb = (\n"}, r".*losses/one\.py line 2: SyntaxError: '\(' was never closed"),
        ({"losses/one.py": "import nothing_of_this_name\n"}, r".*one\.py line 1: ModuleNotFoundError: No module.*"),
        ({"losses/one.py": "x = 1\n"}, r".*losses/one\.py: must define One for the loss 'one'\..*"),
        ({"losses/one.py": "from degla.losses._two import y\n", "losses/_two.py": "x = 1\n\ny = x / 0\n"},
         r".*losses/_two\.py line 3: ZeroDivisionError: division by zero"),
        ({"losses/one.py": _LOSS.format(name="label", input='Input("B", "value", column="mine")')},
         r".*one\.py line 5: TypeError: One\.inputs: the name 'label' is taken by another input"),
        ({"losses/one.py": _LOSS.format(name="mine", input='Input("BK", "value", column="mine")')},
         r".*one\.py line 5: TypeError: One\.inputs: mine: must have a column and be a .*"),
        *(({"losses/one.py": _LOSS.format(name="mine", input=f'Input("B", "value", column="{column}")')},
           rf".*one\.py line 5: TypeError: One\.inputs: mine: its column cannot be called '{column}'; .*")
          for column in ("label", "negatives", "_score", "model_config")),
        ({"losses/one.py": _LOSS.format(name="mine", input='Input("BD", "text", column="positives")')},
         r".*one\.py line 5: TypeError: One\.inputs: mine: its column cannot be called 'positives'; .*"),
        ({"recipes/clip2.py": "from degla.losses import Nothing\n"}, r".*clip2\.py line 1: ImportError: cannot.*"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(
    files: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv(PARTS, str(folder))
    with pytest.raises(InputError, match=rf"\A{message}\Z"):
        for shelf in (LOSSES, RECIPES):
            for name in shelf.own():
                shelf.member(name, name.capitalize())


def test_what_raises_in_use_is_one_line(parts: Path, base: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    (parts / "recipes" / "six.py").write_text("def six():\n    return {}['x']\n")
    (parts / "draws" / "seven.py").write_text("def seven(offer, count, chance):\n    return [1 / 0]\n")
    draw = [*_train(base, tiny_pairs, tmp_path / "run"), "--data.draw", "seven", "--data.workers", 1]
    called, drawn = _degla(["train", "six", "--out", tmp_path / "run"], draw, parts=parts)
    assert (called.status, drawn.status) == (2, 2)
    assert called.err == f"degla: {parts}/recipes/six.py line 2: KeyError: 'x'\n"
    assert drawn.err.splitlines()[-1] == f"degla: {parts}/draws/seven.py line 2: ZeroDivisionError: division by zero"
    assert "Traceback" not in drawn.err


@pytest.fixture
def levels() -> Iterator[None]:
    """Set the level of logging again, which a worker raises in its process."""
    before = logging.getLogger("degla").level
    yield
    logging.getLogger("degla").setLevel(before)


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize(
    ("error", "passes"),
    [("ValueError('a\\nb')", False), ("RuntimeError('Connection closed by peer')", True), ("MemoryError", True),
     ("BrokenPipeError", True)],
)  # fmt: skip
def test_an_exception_in_own_code_names_its_place_in_workers_too(
    error: str, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "eight.py").write_text(f"def eight():\n    raise {error}\n")
    monkeypatch.setenv(PARTS, str(tmp_path))
    ended = try_job(recipe_config, "eight")
    place = f"{tmp_path}/recipes/eight.py line 2: ValueError: a b"
    assert (ended.error == place) is not passes
    assert "eight.py" in ended.details and "Traceback" in ended.details
    assert try_job(recipe_config, "nine").details == ""


@pytest.mark.usefixtures("levels")
def test_packages_below_the_folder_of_parts_are_no_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / ".venv" / "site-packages"
    site.mkdir(parents=True)
    (site / "installed_below.py").write_text("def fail(*_):\n    raise ValueError('bad')\n")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "ten.py").write_text("import installed_below\n\n\ndef ten():\n    installed_below.fail()\n")
    monkeypatch.setenv(PARTS, str(tmp_path))
    monkeypatch.syspath_prepend(site)
    assert try_job(recipe_config, "ten").error == f"{tmp_path}/recipes/ten.py line 5: ValueError: bad"
    import installed_below  # type: ignore[import-not-found]

    assert try_job(installed_below.fail, None).error == "ValueError: bad"


def test_what_is_no_part_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from degla.negatives.rule import load_rule

    rule = "from degla.negatives.rule import NegativeRule\n\n\nclass Empty(NegativeRule):\n    pass\n"
    files = {
        "losses/three.py": "Three = 3\n", "draws/four.py": "four = 'x'\n", "benchmarks/five.py": "BENCHMARK = 3\n",
        "rules/bare.py": "class Bare:\n    pass\n", "rules/empty.py": rule,
        "rules/made.py": "from degla.negatives.rules.swap_nouns import SwapNouns\n\nMade = SwapNouns()\n",
        "losses/alone.py": "class Alone:\n    weight = 1.0\n",
        "losses/namesake.py": "class Loss:\n    pass\n\n\nclass Namesake(Loss):\n    weight = 1.0\n",
        "losses/valueless.py": "from degla.losses import Loss\n\n\nclass Valueless(Loss):\n    weight = 1.0\n",
        "recipes/six.py": "def six():\n    return [6]\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv(PARTS, str(tmp_path))
    loss = r"a degla\.losses\.Loss or degla\.losses\.StatefulLoss"
    for call, message in (
        (lambda: LOSSES.member("three", "Three"), rf"losses/three\.py: Three must be {loss}; it is 3\."),
        (lambda: LOSSES.member("alone", "Alone"), rf"Alone must be {loss}; it is <class '.*Alone'>\."),
        (lambda: LOSSES.member("namesake", "Namesake"), rf"Namesake must be {loss}; it is <class '.*Namesake'>\."),
        (lambda: LOSSES.member("valueless", "Valueless"), r"valueless\.py: Valueless must define value\."),
        (lambda: DRAWS.member("four", "four"), r"draws/four\.py: four must be a function; it is 'x'\."),
        (lambda: BENCHMARKS.member("five", "BENCHMARK"), r"five\.py: BENCHMARK must be a .*Benchmark; it is 3\."),
        (lambda: load_rule("bare"), r"bare\.py: Bare must be a degla\..*\.NegativeRule; it is .*Bare'>\."),
        (lambda: load_rule("made"), r"made\.py: Made must be a .*; it is <.*SwapNouns object at .*>\."),
        (lambda: load_rule("empty"), r"empty\.py: Empty must define applies, propose, refusal\."),
        (lambda: recipe_config("six"), r"recipes/six\.py: six\(\) must return a TrainConfig; it returned \[6\]\."),
    ):
        with pytest.raises(InputError, match=rf"{message}\Z"):
            call()


def test_a_benchmark_may_be_of_a_subclass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmarks").mkdir()
    head = "from degla.evaluation.benchmark import Benchmark\n\n\nclass Mine(Benchmark):\n    pass\n\n\n"
    (tmp_path / "benchmarks" / "seven.py").write_text(
        f"{head}BENCHMARK = Mine(name='seven', title='Seven', parts=(), items=list)\n"
    )
    monkeypatch.setenv(PARTS, str(tmp_path))
    assert BENCHMARKS.member("seven", "BENCHMARK").title == "Seven"


def test_a_home_of_nobody_and_a_folder_that_may_not_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARTS, "~nobody-of-this-name/parts")
    with pytest.raises(InputError, match=r"DEGLA_PARTS: ~nobody-of-this-name/parts: Could not determine home"):
        DRAWS.names()
    (tmp_path / "draws").mkdir()
    monkeypatch.setenv(PARTS, str(tmp_path))
    with (
        patch("os.listdir", side_effect=PermissionError),
        patch("os.scandir", side_effect=PermissionError),
        pytest.raises(PermissionError),
    ):
        DRAWS.own()


def test_a_name_of_two_folders_or_of_a_rule_and_a_positive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from degla.negatives.rule import load_rule

    for name in ("one", "two"):
        (tmp_path / name / "draws").mkdir(parents=True)
        (tmp_path / name / "draws" / "same.py").write_text("")
    monkeypatch.setenv(PARTS, f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'one'}")
    assert "same" in DRAWS.names(), "a folder that is named twice is one"
    monkeypatch.setenv(PARTS, f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}")
    with pytest.raises(InputError, match=r"two/draws/same\.py: the name 'same' is taken by .*one/draws/same\.py\."):
        DRAWS.names()
    for name in ("one", "two"):
        (tmp_path / name / "draws" / "same.py").rename(tmp_path / name / "draws" / "_same.py")
    with pytest.raises(InputError, match=r"two/draws/_same\.py: the name '_same' is taken by .*one/draws/_same\.py\."):
        DRAWS.names()
    shutil.rmtree(tmp_path / "two")
    (tmp_path / "one" / "rules").mkdir()
    (tmp_path / "one" / "rules" / "front_place.py").write_text("")
    monkeypatch.setenv(PARTS, str(tmp_path / "one"))
    assert "front_place" in RULES.names()
    load_rule.cache_clear()  # Earlier tests may have loaded it.
    with pytest.raises(InputError, match=r"rules/front_place\.py: the name .* is taken by .*positives/front_"):
        load_rule("front_place")
