"""Tasks in sequence: summaries of a matrix, rejected plans, where each task starts from, what is reused."""

from __future__ import annotations

import json
import math
import re
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.aggregate import ItemScore
from degla.evaluation.overlap import Leakage, Overlap
from degla.evaluation.results import TracedResult, save_result
from degla.evaluation.trainings import TrainedPairs, Training, Trainings
from degla.locks import lock
from degla.pages.plot import PHONE, standalone_picture
from degla.shelf import BENCHMARKS
from degla.study.jobs import Chain, Cost, Job, JobResult, Measure, StudyQuestions
from degla.study.retention import (
    SUMMARIES,
    Retention,
    Sequences,
    average,
    cells_read,
    draw_sequence,
    forgetting,
    last,
    page_of,
    retention_questions,
    transfer,
    zero_shot,
)
from degla.study.sequence import _sequences, sequence_chains
from degla.study.sequence_plan import SequencePlan, read_sequence_plan
from degla.study.tuning import tune_all
from degla.study.workers import Ended
from degla.verbs._arguments import command_line
from degla.world.domains import DOMAINS
from degla.world.recognition import draw_recognition
from tests.evaluation.made_up import draw_result
from tests.tiny import write_small_world

SHIPPED = Path(__file__).parents[2] / "docs" / "studies" / "continual" / "plan.yaml"
TINY: dict[str, Any] = {
    "set": {"train.steps": 2, "train.batch_size": 8, "replay.batch_size": 6, "train.precision": "fp32",
            "optim.lr": 1e-3, "optim.warmup_steps": 0},
    "arms": [{"recipe": "gift"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base, two tasks with their own tests, and pairs to replay, as a user would have them."""
    folder = tmp_path_factory.mktemp("tasks")
    for domain in ("digit", "count"):
        draw_recognition(folder / domain, domains=(domain,), style="turned", images_per_class=2)
        test = folder / "benchmarks" / "zeroshot" / domain
        draw_recognition(test, domains=(domain,), style="turned", split="test", images_per_class=2)
    draw_recognition(folder / "again", domains=("place",), images_per_class=2)
    write_small_world(folder / "base")
    return folder


def _write(folder: Path, drawn: Path, **fields: Any) -> Path:
    again = {"captions": str(drawn / "again" / "captions.jsonl"), "images": str(drawn / "again")}
    tasks = [
        {"name": name, "data.captions": str(drawn / name / "captions.jsonl"), "data.images": str(drawn / name),
         "data.classes": str(drawn / name / "classes.txt"), "data.class_template": "a photo of {}",
         **{f"replay.data.{field}": path for field, path in again.items()}}
        for name in ("digit", "count")
    ]  # fmt: skip
    benchmarks = {"names": ["zeroshot"], "root": str(drawn / "benchmarks")}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.yaml"
    own = {"base": str(drawn / "base"), "tasks": tasks, "benchmarks": benchmarks}
    path.write_text(yaml.safe_dump({**TINY, **own, **fields}, sort_keys=False))
    return path


def test_summaries_by_hand() -> None:
    matrix = (
        (0.10, 0.20, 0.30),  # base
        (0.90, 0.18, 0.25),
        (0.70, 0.80, 0.21),
        (0.80, 0.60, 0.95),
    )
    assert zero_shot(matrix) == pytest.approx((0.20 + 0.30) / 2)
    assert transfer(matrix) == pytest.approx((0.18 + (0.25 + 0.21) / 2) / 2)
    assert average(matrix) == pytest.approx((0.90 + 0.18 + 0.25 + 0.70 + 0.80 + 0.21 + 0.80 + 0.60 + 0.95) / 9)
    assert last(matrix) == pytest.approx((0.80 + 0.60 + 0.95) / 3)
    # The first task was best after it was learnt, the second at 0.80; the base's score does not count.
    assert forgetting(matrix) == pytest.approx(((0.90 - 0.80) + (0.80 - 0.60)) / 2)
    grown = ((0.1, 0.2), (0.5, 0.2), (0.6, 0.9))
    assert forgetting(grown) == pytest.approx(-0.1), "a task that got better was not forgotten"


def test_an_interval_over_seeds_and_a_picture(tmp_path: Path, drawn: Path) -> None:
    plan = read_sequence_plan(_write(tmp_path, drawn, also=["recognition"]))
    matrices = (((0.1, 0.2), (0.5, 0.2), (0.4, 0.9)), ((0.1, 0.2), (0.7, 0.2), (0.6, 0.8)))
    arm = Retention("one", (0, 1), matrices, {"recognition": ((0.9, 0.8, 0.7), (0.9, 0.6, 0.5))})
    assert arm.cell(1, 0).mean == pytest.approx(0.6) and arm.cell(0, 0).half_width == pytest.approx(0)
    assert arm.beside("recognition", 2).mean == pytest.approx(0.6)
    assert arm.summaries.keys() == SUMMARIES.keys() and arm.summaries["Last"].mean == pytest.approx(2.7 / 4)
    picture = standalone_picture(draw_sequence(Sequences(plan, (arm,), ())))
    assert picture.startswith('<svg style="background:#ffffff" ') and "var(--" not in picture
    assert all(name in picture for name in ("digit", "count", "recognition", "one"))
    document = page_of(Sequences(plan, (arm,), ()), command="")
    text = re.sub(r" ± [\d.]+", "", document.markdown())
    assert "| one | 2 | 20.0 | 20.0 | 53.8 | 67.5 | 10.0 | 60.0 | – |" in text
    assert "| (base) | 10.0 | 20.0 | 90.0 |\n| digit | **60.0** | 20.0 | 70.0 |\n" in text
    assert "| count | 50.0 | **85.0** | 60.0 |" in text
    page = document.html()
    assert page.count("<table") == page.count('<table class="stacked">') == 2, "both fit a phone"
    # On a phone, the legend of many arms wraps to further lines instead of being cut off.
    arms = tuple(replace(arm, arm=f"an arm with a long name, {number}") for number in range(4))
    pictures = [draw_sequence(Sequences(plan, some, ()), PHONE) for some in ((arm,), arms)]
    heights = [float(picture.split('viewBox="', 1)[1].split()[3][:-1]) for picture in pictures]
    assert heights[1] == pytest.approx(heights[0] + 72 * 3 * 0.22, abs=1)
    # A name longer than the picture or its panel is wide goes on below.
    tasks = tuple(
        task.model_copy(update={"name": f"{task.name}s in a style with a very long name"}) for task in plan.tasks
    )
    named = (replace(arm, arm="an arm that was trained with neither replay nor consolidation, " * 2),)
    picture = draw_sequence(Sequences(plan.model_copy(update={"tasks": tasks}), named, ()), PHONE)
    assert "very long" in picture and max(map(len, re.findall(r">([^<>]+)</text>", picture))) <= 44


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": [{"name": "a", "domain": "digit"}]}, "tasks"),
        ({"tasks": [{"name": "a", "domain": "digit"}, {"name": "a", "domain": "count"}]}, "two tasks are named 'a'"),
        ({"tasks": [{"name": "a", "domain": "digits"}, {"name": "b", "domain": "count"}]}, "Did you mean 'digit'"),
        ({"tasks": [{"name": "a", "domain": "digit", "style": "turnd"}, {"name": "b"}]}, "Did you mean 'turned'"),
        ({"tasks": [{"name": "a", "domain": "digit"}, {"name": "b"}]}, "task 'b'"),
        ({"arms": [{"recipe": "gift", "optim.lr": [1e-4, 2e-4]}]}, r"arm 'gift': optim\.lr cannot span a grid"),
        ({"arms": [{"recipe": "gift", "optim.learning": 1}]}, r"arm 'gift'.*unknown field 'optim\.learning'"),
        ({"benchmarks": {"names": ["zeroshot"], "root": "x"}}, "either 'world' or 'benchmarks'"),
        ({"seeds": 0}, "distinct seeds, 0 or above, or their number, 1 or more"),
    ],
)
def test_plans_that_cannot_be_meant(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tasks = [{"name": "a", "domain": "digit"}, {"name": "b", "domain": "count"}]
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"world": {}, "tasks": tasks, "arms": [{"recipe": "gift"}]} | change))
    with pytest.raises(InputError, match=message):
        read_sequence_plan(path)


def test_the_plan_that_ships_and_its_overrides() -> None:
    plan = read_sequence_plan(SHIPPED, overrides=["seeds=[7]", "train.steps=3", "world.images_per_class=2"])
    assert isinstance(plan, SequencePlan) and plan.seeds == (7,) and plan.set["train.steps"] == 3
    assert plan.world is not None and plan.world.images_per_class == 2
    assert len(plan.tasks) == 3 and {arm.recipe for arm in plan.arms} == {"gift"}


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_depends_on_the_cells_that_it_reads(name: str, tasks: int) -> None:
    scores = np.random.default_rng(0).random((tasks + 1, tasks))
    before = SUMMARIES[name](scores)
    read = {(row, task) for task, rows in cells_read(name, tasks).items() for row in rows}
    for row, task in np.ndindex(scores.shape):
        changed = scores.copy()
        changed[row, task] = 2.0
        assert (SUMMARIES[name](changed) != before) == ((row, task) in read), (row, task)


@pytest.mark.parametrize("images", [12, 20, 40])
def test_one_tested_task_alone_is_as_uncertain_as_its_score(images: int) -> None:
    """With two tasks, zero-shot and Transfer are a score of the second task, whatever the first one's."""
    stages = [
        {
            name: ItemScore(np.ones(50), np.full(count, 1 / count), np.ones(count), np.arange(count) + place)
            for name, count, place in (("one", 400, 0), ("two", images, 400))
        }
        for _ in range(3)
    ]
    variances = retention_questions(stages, ("one", "two"), ())
    for name, cell in (("zero-shot", "0:1"), ("Transfer", "1:1")):
        assert variances[name].variance == variances[cell].variance


@pytest.mark.parametrize(("images", "right"), [(80, 40), (10, 5), (80, 5)])
def test_what_other_questions_would_do_to_a_summary(images: int, right: int) -> None:
    """The spread over draws; if few images differ in a cell that the summary reads, at least that of those cells."""
    random = np.random.default_rng(0)
    tasks, worths = ("one", "two"), (np.arange(images) % 2.0, (np.arange(images) < right).astype(float))
    stages = [
        {
            name: ItemScore(random.random(50), np.full(images, 1 / images), worth, np.arange(images) + place * images)
            for place, (name, worth) in enumerate(zip(tasks, worths, strict=True))
        }
        for _ in range(3)
    ]
    variances = retention_questions(stages, tasks, ())
    one, two = (np.array([stage[name].draws for stage in stages]) for name in tasks)
    errors = {
        "zero-shot": two[0], "Transfer": two[1], "Average": (one[1:] + two[1:]).mean(axis=0) / 2,
        "Last": (one[2] + two[2]) / 2, "forgetting": one[1] - one[2],
    }  # fmt: skip
    for name, values in errors.items():
        cells = cells_read(name, 2)
        worst = [max(variances[f"{row}:{task}"].error for row in rows) for task, rows in cells.items()]
        few = any((images // 2, right)[task] < 20 for task in cells)
        least = math.hypot(*worst) / len(worst) if few else 0.0
        assert variances[name].error == pytest.approx(max(least, np.std(values, ddof=1))), name
        assert variances[name].images == len(cells) * images
    # A draw without any image of a task has no value there.
    nothing = [
        {name: replace(score, draws=np.append(score.draws, np.nan)) for name, score in stage.items()}
        for stage in stages
    ]
    assert retention_questions(nothing, tasks, ()) == variances


def _jobs(path: Path, out: Path, overrides: Sequence[str] = ()) -> list[Chain]:
    return sequence_chains(read_sequence_plan(path, overrides=overrides), out=out, where="plan")


def test_a_plan_may_ask_about_the_images_that_are_there(tmp_path: Path) -> None:
    data = {"data.captions": "a.csv", "data.images": "images", "data.classes": "a.txt"}
    for name in ("a.csv", "a.txt"):
        (tmp_path / name).write_text("image,text\nx.jpg,a dog\n")
    tasks = [{"name": name, **data} for name in ("dtd", "pets")]
    values = {"benchmarks": {"names": ["zeroshot"], "root": ".", "allow_missing": True}, "tasks": tasks}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values | {"arms": [{"recipe": "clip"}]}))
    jobs = _jobs(path, tmp_path / "out")
    assert all(job.questions.allow_missing for chain in jobs for job in chain.jobs)


def test_a_tasks_fields_go_before_an_arms_and_those_before_the_plans(tmp_path: Path, drawn: Path) -> None:
    path = _write(tmp_path, drawn, seeds=[3, 5], arms=[{"recipe": "gift", "optim.lr": 2e-3}])
    values = yaml.safe_load(path.read_text())
    values["tasks"][1]["optim.lr"] = 5e-4
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    chains = _jobs(path, tmp_path / "out")[1:]
    configs = [[job.config for job in chain.jobs if job.config is not None] for chain in chains]
    assert [chain.seed for chain in chains] == [3, 5]
    assert [[config.train.seed for config in some] for some in configs] == [[3, 3], [5, 5]]
    assert [[config.optim.lr for config in some] for some in configs] == [[2e-3, 5e-4]] * 2
    assert {config.train.batch_size for some in configs for config in some} == {8}
    assert len({config.out for some in configs for config in some}) == 4
    assert len({job.measures[0].path for chain in chains for job in chain.jobs}) == 4


def test_tasks_of_the_world_are_learnt_and_tested_on_pictures_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[dict[str, Any]] = []

    def draw(folder: Path, **options: Any) -> Path:
        draws.append(options)
        return folder

    monkeypatch.setattr("degla.study.sequence.draw_benchmark", draw)  # All of it takes seconds.
    for look in ("digests", "leakage"):  # Each would draw it.
        monkeypatch.setattr(f"degla.study.sequence.CurrentQuestions.{look}", lambda *_, **__: None)
    tasks = [
        {"name": f"{style}-digits", "domain": "digit", "style": style, "optim.lr": lr}
        for style, lr in (("plain", 1e-3), ("turned", 2e-3))
    ]
    world = {"images_per_class": 2, "test_images_per_class": 1, "items_per_part": 5, "split": "validation",
             "replay_domains": ["count"], "replay_images_per_class": 1}  # fmt: skip
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"world": world, "tasks": tasks, "arms": [{"recipe": "gift"}], "base": "none"}))
    chain = _jobs(path, tmp_path / "out")[1]
    assert draws == [{"split": "validation", "items_per_part": 5, "images_per_class": 1, "retrieval_images": 5}]
    tests = chain.jobs[0].questions
    assert tests.benchmarks == ("world", "zeroshot")
    sets: list[set[bytes]] = []
    for job, task in zip(chain.jobs, tasks, strict=True):
        assert job.config is not None and job.config.data.classes is not None
        assert job.config.optim.lr == task["optim.lr"]
        assert len(job.config.data.classes.read_text().splitlines()) == 10
        folders = (job.config.data.images, tests.root / "zeroshot" / str(task["name"]), job.config.replay.data.images)
        sets += [{file.read_bytes() for file in folder.rglob("*.png")} for folder in folders if folder is not None]
        digits = draw_recognition(
            tmp_path / job.label, domains=["digit"], style=str(task["style"]), split="validation", images_per_class=1
        )
        assert sets[-2] == {file.read_bytes() for file in digits.images.rglob("*.png")}
    assert [len(pictures) for pictures in sets[:3]] == [20, 10, len(DOMAINS["count"].classes)]
    assert all(not one & other for place, one in enumerate(sets) for other in sets[:place]), "one picture is in two"

    # A style that was changed and a task that was renamed: nothing of the earlier tasks is asked about.
    tasks = [tasks[0] | {"style": "mosaic"}, tasks[1] | {"name": "other"}]
    path.write_text(yaml.safe_dump({"world": world, "tasks": tasks, "arms": [{"recipe": "gift"}], "base": "none"}))
    root = _jobs(path, tmp_path / "out")[0].jobs[0].questions.root
    assert {folder.name for folder in (root / "zeroshot").iterdir()} == {"plain-digits", "other"}


def test_every_seed_has_the_matrix_of_its_own_results(tmp_path: Path) -> None:
    """In a second arm, one seed fails and one was stopped after its first task."""
    zeroshot = BENCHMARKS.load("zeroshot").BENCHMARK
    cut = replace(zeroshot, parts=tuple(part for part in zeroshot.parts if part.name in ("dtd", "pets")))
    tasks, arms = [{"name": name} for name in ("dtd", "pets")], [{"recipe": "gift"}, {"recipe": "clip"}]
    plan = SequencePlan.model_validate(
        {"benchmarks": {"names": ["zeroshot"], "root": "."}, "tasks": tasks, "arms": arms, "seeds": 2}
    )
    questions = StudyQuestions(("zeroshot",), tmp_path, "digest")
    matrices: dict[int | None, list[tuple[float, ...]]] = {}

    def job(label: str, seed: int | None, level: float) -> Job:
        path = tmp_path / f"{label} {seed}.json"
        result = draw_result(label, (0, 0, 0, level), seed, benchmark=cut, n=20)
        overlap = Overlap(benchmark="zeroshot", images=20, by_id=0, by_content=label == "two", examples=("a.jpg",))
        leakage = Leakage(captions=(), images=1, overlaps=(overlap,))
        save_result(TracedResult(**dict(result), leakage=leakage), path)
        own = {part.name: part.scores[0].value for part in result.benchmarks[0].parts}
        matrices.setdefault(seed, []).append((own["dtd"], own["pets"]))
        return Job(label, "base", None, {}, (Measure(label, 1.0, path),), questions)

    chains = [Chain("base", None, (job("base", None, 0.2),))]
    chains += [Chain("gift", seed, (job("one", seed, 0.5), job("two", seed, 0.8))) for seed in (0, 1)]
    chains += [Chain("clip", seed, chains[1].jobs) for seed in (0, 1)]
    cost = Cost(10.0, 1.0, teacher=False, negatives=0)
    one, two = (JobResult((Path("x"),), cost=replace(cost, seconds=seconds)) for seconds in (10.0, 20.0))
    ends = [Ended((one,)), Ended((one, one)), Ended((one, two)), Ended(error="broke"), Ended((one,))]
    sequences = _sequences(plan, chains, ends)
    (arm,) = sequences.arms
    assert (arm.arm, arm.seeds, arm.seconds) == ("gift", (0, 1), 25.0)
    assert arm.matrices == tuple((*matrices[None], *matrices[seed]) for seed in (0, 1))
    assert sequences.failures == (("clip, seed 0", "broke"), ("clip, seed 1", "not finished"))
    (caveat,) = sequences.caveats
    assert "gift: 1 of 20 benchmark images are in the training data" in caveat
    assert caveat in page_of(sequences, command="").warnings


def test_arms_that_would_share_folders_are_refused(tmp_path: Path, drawn: Path) -> None:
    path = _write(tmp_path, drawn, arms=[{"recipe": "gift", "label": label} for label in ("a b", "a-b")])
    with pytest.raises(InputError, match="plan: 'a b' and 'a-b' would share a file"):
        _jobs(path, tmp_path / "out")


def test_each_task_starts_where_the_one_before_ended_and_what_is_done_stays_done(tmp_path: Path, drawn: Path) -> None:
    path, out = _write(tmp_path, drawn), tmp_path / "out"
    job = _jobs(path, out)[1]
    first = tune_all(job)
    assert [done.trained for done in first] == [True, True]
    runs = [each.config.out for each in job.jobs if each.config is not None and each.config.out is not None]
    recorded = json.loads((runs[1] / "step-2" / "config.json").read_text())
    assert recorded["model"] == str(runs[0] / "step-2")
    start = load_file(runs[0] / "step-2" / "open_clip_model.safetensors")
    # A frozen teacher of the second task would be the model after the first; two steps later it is close but not equal.
    end = load_file(runs[1] / "step-2" / "open_clip_model.safetensors")
    moved = [name for name in start if not (start[name] == end[name]).all()]
    assert moved and all((start[name] - end[name]).abs().max() < 0.01 for name in moved)

    made_from = json.loads((runs[1] / "record.json").read_text())["made_from"]["inputs"]
    assert made_from.keys() >= {"captions", "images", "classes", "start", "base"}

    again = tune_all(job)
    assert not any(done.trained or done.measured for done in again)
    weights = runs[0] / "step-2" / "open_clip_model.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(intact[: len(intact) // 2])  # Damaged once all is there: no result is deleted.
    assert not any(done.trained or done.measured for done in tune_all(job))
    weights.write_bytes(intact)
    # Neither the folder nor the names of replayed pairs matter.
    out = out.rename(tmp_path / "moved")
    (tmp_path / "other name").symlink_to(drawn / "again")
    path.write_text(path.read_text().replace(str(drawn / "again"), str(tmp_path / "other name")))
    assert not any(done.trained or done.measured for done in tune_all(_jobs(path, out)[1]))
    # A changed second task keeps the first; a changed first one retrains both.
    values = yaml.safe_load(path.read_text())
    values["tasks"][1]["optim.lr"] = 5e-4
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    changed = tune_all(_jobs(path, out)[1])
    assert [done.trained for done in changed] == [False, True]
    assert changed[1].notes == ("retrained: optim.lr was 0.001, is 0.0005",)
    values["tasks"][0]["optim.lr"] = 5e-4
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    changed = tune_all(_jobs(path, out)[1])
    assert [done.trained for done in changed] == [True, True]
    assert "inputs.start was" in changed[1].notes[0] or "start" in changed[1].notes[0]


def test_benchmark_images_that_a_task_trains_on_are_reported_of_all_tasks_after_it(tmp_path: Path, drawn: Path) -> None:
    path = _write(tmp_path, drawn, benchmarks={"names": ["zeroshot"], "root": str(tmp_path)})
    shutil.copytree(drawn / "benchmarks" / "zeroshot", tmp_path / "zeroshot")
    trained = next((drawn / "digit").rglob("*.png"))
    shutil.copy(trained, tmp_path / "zeroshot" / "digit" / trained.parent.name / "9.png")
    chains = _jobs(path, tmp_path / "out")
    assert _shared(chains) == [None, 1, 1]
    # What the base was trained on counts for itself and every task.
    base = tmp_path / "base"
    shutil.copytree(drawn / "base", base)
    tested = next((tmp_path / "zeroshot" / "count").rglob("*.png"))
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "1", "image": str(tested), "text": "a", "image_id": "1"}))
    Trainings(data=(Training(data=TrainedPairs(captions=str(tmp_path / "c.jsonl"))),)).write(base)
    values = yaml.safe_load(path.read_text()) | {"base": str(base)}
    path.write_text(yaml.safe_dump(values))
    assert _shared(_jobs(path, tmp_path / "other")) == [1, 2, 2]


def _shared(chains: Sequence[Chain]) -> list[int | None]:
    return [job.leakage and job.leakage.overlaps[0].shared for chain in chains for job in chain.jobs]


def test_the_command_on_a_page_has_no_password() -> None:
    words = Namespace(plan=Path("plan.yaml"), out=Path("out"), set=["base=sftp://me:secret@host/run"])
    assert command_line(words, verb="study") == "degla study plan.yaml --out out --set base=sftp://host/run"


def test_from_the_command_line(tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {"train.train_image_tower": False, "train.train_text_tower": False}
    plain = {"replay.objective.logit_distillation.weight": 0, "l2_sp.weight": 0,
             "replay.objective.soft_alignment.weight": 0}  # fmt: skip
    arms = [{"recipe": "gift", "label": "plain", **plain}, {"recipe": "gift", "label": "fails", **nothing}]
    path, out = _write(tmp_path, drawn, arms=arms, also=["recognition"]), tmp_path / "out"
    assert main(["continual", str(path), "--out", str(out), "--processes", "1", "--json"]) == 1
    output = capsys.readouterr()
    assert "1 sequence failed: fails, seed 0:" in output.err
    data = json.loads(output.out)
    assert data == json.loads((out / "continual.json").read_text())
    (arm,) = data["arms"]
    assert arm["arm"] == "plain" and len(arm["matrices"][0]) == 3 and len(arm["also"]["recognition"][0]) == 3
    assert arm["summaries"]["Last"]["mean"] == pytest.approx(sum(arm["matrices"][0][2]) / 2)
    # One seed: intervals over the questions, of every cell and summary.
    assert set(arm["questions"]) == {*SUMMARIES, *(f"{row}:{of}" for row in range(3) for of in (0, 1, "recognition"))}
    assert all(value["error"] > 0 and value["images"] > 1 for value in arm["questions"].values())
    page = (out / "continual.md").read_text()
    assert re.search(r"\| plain \| 1 \| [\d.]+ ± [1-9]", page)
    assert "| plain | 1 |" in page and "**Note.** fails, seed 0" in page and (out / "continual.svg").is_file()
    rehearsed = json.loads((out / "runs" / "plain-0" / "1-digit" / "step-2" / "config.json").read_text())["replay"]
    assert rehearsed["data"]["captions"] is None, "an arm that does not rehearse takes no data for it"

    (out / "results").rename(tmp_path / "shared")
    (out / "results").symlink_to(tmp_path / "shared")
    with lock(tmp_path / "shared"):
        assert main(["continual", str(path), "--out", str(out), "--processes", "1"]) == 2
    assert "results: in use by process" in capsys.readouterr().err, "another study's results, too"

    path = _write(tmp_path, drawn, arms=arms[:1], also=["recogniton"])
    assert main(["continual", str(path), "--out", str(out), "--processes", "1"]) == 2
    assert "field 'also'" in capsys.readouterr().err
    assert main(["continual", str(path), "--out", str(out / "runs" / "plain-0" / "1-digit")]) == 2
    assert "1-digit: already holds a training run. Choose another --out." in capsys.readouterr().err
    (tmp_path / "study" / "runs" / "plain-0").mkdir(parents=True)
    (tmp_path / "study" / "runs" / "plain-0" / "record.json").touch()
    assert main(["continual", str(path), "--out", str(tmp_path / "study")]) == 2
    assert "study: already holds a study. Choose another --out." in capsys.readouterr().err
