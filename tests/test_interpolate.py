"""Averages of two models: exact ends, the selection rule, early rejection of wrong names, output files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Metric
from degla.evaluation.cache import DiskCache
from degla.evaluation.choice import Point, Sweep, choose, render_sweep
from degla.evaluation.neutral import score_names
from degla.evaluation.overlap import TrainingImages
from degla.evaluation.results import load_result
from degla.evaluation.run import Evaluation
from degla.interpolate import Goal, interpolate
from degla.model.checkpoint import average_weights, check_alike, save_encoder
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.shelf import BENCHMARKS
from degla.world.draw import draw_benchmark
from tests.tiny import write_classes, write_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_benchmark(
        tmp_path_factory.mktemp("world"), split="validation", items_per_part=4, images_per_class=1, retrieval_images=4
    )


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of few questions, whose page has one plot beside the frontier."""
    return write_classes(tmp_path_factory.mktemp("classes"), images=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("pair")
    return str(write_model(folder / "base", seed=0)), str(write_model(folder / "tuned", seed=1))


def points(*rows: tuple[float, float, float]) -> list[Point]:
    return [Point(alpha, gain, kept, Path(f"alpha-{alpha:g}.json")) for alpha, gain, kept in rows]


def chosen(rows: list[Point], keep: float | None = None) -> float:
    return choose(rows, gain="composition", kept="recognition", keep=keep).chosen.alpha


FRONTIER = points((0, 0.50, 0.800), (0.25, 0.58, 0.795), (0.5, 0.64, 0.790), (0.75, 0.68, 0.76), (1, 0.66, 0.70))


@pytest.mark.parametrize(
    ("keep", "alpha"), [(None, 0.5), (79.0, 0.5), (79.1, 0.25), (80.0, 0.0), (76.0, 0.75), (0.0, 0.75)]
)
def test_the_best_gain_of_those_that_keep_enough(keep: float | None, alpha: float) -> None:
    assert chosen(FRONTIER, keep) == alpha


def test_the_rule_is_reported_and_its_failure_too() -> None:
    sweep = choose(FRONTIER, gain="composition", kept="recognition")
    assert sweep.rule == (
        "alpha 0.5: the best composition (64.0) of the 3 of 5 alphas that keep recognition at most 1 point below the "
        "base's 80.0 points"
    )
    assert "at least 76 points" in choose(FRONTIER, gain="composition", kept="recognition", keep=76).rule
    with pytest.raises(
        InputError, match=r"no average keeps recognition at 90\.0 points.*the best is 80\.0, at alpha 0\. Lower"
    ):
        chosen(FRONTIER, 90)


@pytest.mark.parametrize(("count", "told"), [(1, False), (5, True)])
def test_that_no_average_gains_is_told_of_several(count: int, told: bool) -> None:
    sweep = choose(FRONTIER[:count], gain="composition", kept="recognition", keep=80)
    caption = str(render_sweep(sweep).caption)
    assert sweep.chosen.alpha == 0 and ("No average gains anything" in caption) == told


def test_equal_gains_take_what_keeps_most_and_then_the_smallest() -> None:
    assert chosen(points((0, 0.5, 0.8), (0.5, 0.6, 0.80), (1, 0.6, 0.81))) == 1
    assert chosen(points((0, 0.5, 0.8), (0.5, 0.6, 0.80), (1, 0.6, 0.80))) == 0.5
    assert chosen(points((0, 0.5, 0.8), (0.5, 0.4, 0.9))) == 0


def sweep_of(models: tuple[str, str], world: Path, out: Path, **settings: object) -> Sweep:
    options: dict[str, Any] = {
        "alphas": [0, 0.5, 1],
        "benchmarks": ["world"],
        "root": world,
        "progress": False,
    } | settings
    goal = Goal(**{name: options.pop(name) for name in ("gain", "kept", "keep") if name in options})
    alphas = options.pop("alphas")
    return interpolate(*models, Evaluation(**options), alphas=alphas, out=out, goal=goal)


def test_every_alpha_is_measured_and_the_chosen_one_loads(models: tuple[str, str], world: Path, tmp_path: Path) -> None:
    sweep = sweep_of(models, world, tmp_path / "out")
    assert [point.alpha for point in sweep.points] == [0, 0.5, 1]
    for point in sweep.points:
        result = load_result(point.file, items=True)
        assert result.model.label == {0: "base", 1: "tuned"}.get(point.alpha, f"alpha {point.alpha:g}")
        averages = {score.name: score.value for score in result.benchmarks[0].averages}
        assert (point.gain, point.kept) == (averages["composition.id"], averages["recognition"])
    for name, point in zip(models, (sweep.points[0], sweep.points[-1]), strict=True):
        alone = Evaluation(["world"], world, progress=False).score(load_encoder(name))
        ours = load_result(point.file, items=True)
        assert ours.model.fingerprint == alone.model.fingerprint
        assert ours.items == alone.items
    page = (tmp_path / "out" / "report.html").read_text()
    assert "alpha 0.5" in page and "more composition" in page
    picture = (tmp_path / "out" / "frontier.svg").read_text()
    assert picture.startswith("<svg") and "var(--" not in picture and "alpha 0.5" in picture
    assert "background:#ffffff" in picture, "dark ink on whatever page it is shown"
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["chosen"]["alpha"] == sweep.chosen.alpha

    folder = tmp_path / "out" / "chosen"
    note = json.loads((folder / "interpolation.json").read_text())
    assert note["base"] == models[0] and note["rule"] == sweep.rule
    loaded, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    base, tuned = map(load_encoder, models)
    wanted = average_weights(base, tuned, share=sweep.chosen.alpha)
    for name, value in wanted.clip.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert load_encoder(str(folder)).fingerprint == load_result(sweep.chosen.file).model.fingerprint
    assert transform(Image.new("RGB", (50, 40))).shape == (3, 32, 32)


@pytest.mark.parametrize("name", ["noise", "all", "column"])
def test_a_score_of_which_less_is_better_is_refused_before_anything_is_scored(
    name: str, models: tuple[str, str], classes: Path, tmp_path: Path
) -> None:
    shelf: Benchmark = BENCHMARKS.member("zeroshot", "BENCHMARK")
    mistakes = Benchmark(
        name="mistakes",
        title="Mistakes",
        parts=(BenchmarkPart("*", "recognition", metrics=(Metric("mistakes", "top1", lower=True),)),),
        averages=(Average("all", of=("*",)),),
        headline={"column": "all"},
        items=lambda root: [entry.model_copy(update={"benchmark": "mistakes"}) for entry in shelf.items(root)],
    )
    with pytest.raises(InputError, match=f"--gain '{name}': the benchmarks have no such part or named average where"):
        sweep_of(models, classes, tmp_path, benchmarks=[mistakes], gain=name, kept=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("undrawn")
def test_every_average_has_seen_what_the_tuned_model_has(
    models: tuple[str, str], classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = next(path for path in sorted(classes.rglob("*")) if path.suffix in (".png", ".jpg"))
    seen = TrainingImages((tmp_path / "c.json",), frozenset({image}))
    monkeypatch.setattr("degla.interpolate.training_images", {models[0]: None, models[1]: seen}.get)
    sweep = sweep_of(models, classes, tmp_path, benchmarks=["zeroshot"], gain="recognition", alphas=[0.5])
    base, average = (load_result(point.file).leakage for point in sweep.points)
    assert base is None and average is not None and average.overlaps[0].shared > 0
    assert "the tuned model and its averages: " in " ".join(sweep.warnings)


@pytest.mark.usefixtures("undrawn")
def test_the_second_sweep_embeds_nothing_again(models: tuple[str, str], classes: Path, tmp_path: Path) -> None:
    how = {"benchmarks": ["zeroshot"], "gain": "recognition", "alphas": [0.5]}
    with DiskCache(tmp_path / "cache") as cache:
        one = sweep_of(models, classes, tmp_path / "one", cache=cache, **how)
    with DiskCache(tmp_path / "cache") as again:
        two = sweep_of(models, classes, tmp_path / "two", cache=again, **how)
    assert [point.alpha for point in one.points] == [0, 0.5]
    assert again.written == 0 and again.read == cache.written > 0
    assert [(point.gain, point.kept) for point in one.points] == [(point.gain, point.kept) for point in two.points]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"gain": "compositon"},
            r"--gain 'compositon': .*Did you mean 'composition'\? Known: composition, other words, swap",
        ),
        (
            {"kept": "recognision"},
            r"--kept 'recognision': .*Did you mean 'recognition'.*or add a benchmark that has it",
        ),
        ({"gain": "world:swap.idd"}, r"Did you mean 'world:swap\.id'"),
        ({"alphas": [0, 1.5]}, r"--alphas is 1\.5; each must be from 0 to 1, the share of the tuned weights"),
        ({"alphas": []}, "no alphas: give shares"),
        ({"alphas": [0.1, 0.10000001]}, "equal to six digits"),
        ({"keep": 101}, "--keep is 101"),
        ({"benchmarks": ["wrold"]}, "Did you mean 'world'"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_loaded(
    settings: dict[str, object], message: str, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        sweep_of(("no/such/base", "no/such/tuned"), world, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_loaded(world: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file is not a folder\. Choose another --out"):
        sweep_of(("no/such/base", "no/such/tuned"), world, tmp_path / "file")


def test_an_average_of_data_sets_that_are_not_there_is_refused_before_anything_is_loaded(
    classes: Path, tmp_path: Path
) -> None:
    how: dict[str, object] = {"benchmarks": ["zeroshot"], "gain": "mean.there.per_class"}
    with pytest.raises(InputError, match=r"--kept 'mean': .* Known: recognition, noise, mean\.there, "):
        sweep_of(("no/such/base", "no/such/tuned"), classes, tmp_path / "out", kept="mean", **how)


def test_an_average_of_which_a_part_is_not_there_is_no_score() -> None:
    benchmark = BENCHMARKS.member("sugarcrepe", "BENCHMARK")
    parts = [part.name for part in benchmark.parts]
    assert "macro7" in score_names(benchmark, parts) and "macro7" not in score_names(benchmark, parts[1:])


@pytest.mark.usefixtures("undrawn")
def test_results_of_an_earlier_sweep_do_not_stand_among_those_of_the_next(
    models: tuple[str, str], classes: Path, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine.json").write_text("{}")
    for alphas in ([0.3], [1]):
        sweep_of(models, classes, tmp_path, benchmarks=["zeroshot"], gain="recognition", alphas=alphas)
    names = {file.name for file in (tmp_path / "results").iterdir()}
    ours = {f"alpha-{share}.{end}" for share in (0, 1) for end in ("json", "items.jsonl")}
    assert names == {"mine.json", *ours}


def test_other_scores_can_be_chosen_by_and_are_drawn(models: tuple[str, str], world: Path, tmp_path: Path) -> None:
    sweep = sweep_of(models, world, tmp_path, gain="ood/swap_noun", kept="world:recognition/letter", alphas=[1])
    parts = {part.name: part.scores[0].value for part in load_result(sweep.points[1].file).benchmarks[0].parts}
    assert (sweep.points[1].gain, sweep.points[1].kept) == (parts["ood/swap_noun"], parts["recognition/letter"])
    picture = re.sub(r"<[^>]+>", "", (tmp_path / "frontier.svg").read_text())
    assert "ood/swap_noun" in picture and "recognition/letter" in picture
    page = (tmp_path / "report.html").read_text()
    first = page.index("Ood/swap_noun gained, recognition/letter kept")
    assert first < page.index("Composition gained, recognition kept")
    assert "ood/swap_noun (%)  →  more gained" in page and "recognition/letter (%)  →  more kept" in page


def changed(encoder: Encoder, **fields: object) -> Encoder:
    for name, value in fields.items():
        getattr(encoder.description, name.partition("__")[0])[name.partition("__")[2]] = value
    return encoder


def test_models_that_cannot_stand_for_one_another_are_refused(tmp_path: Path, models: tuple[str, str]) -> None:
    base = load_encoder(models[0])
    gelu = load_encoder(str(write_model(tmp_path / "gelu", quick_gelu=False)))
    with pytest.raises(InputError, match="one uses quick_gelu, the other gelu"):
        check_alike(base, gelu)
    save_encoder(gelu, tmp_path / "saved")
    assert load_encoder(str(tmp_path / "saved")).activation == "gelu"
    with pytest.raises(InputError, match="different architectures"):
        check_alike(base, load_encoder(str(write_model(tmp_path / "small", embed_dim=8))))
    with pytest.raises(InputError, match="preprocessing differs in 'mean'"):
        check_alike(base, changed(load_encoder(models[1]), preprocess_config__mean=[0.1, 0.2, 0.3]))
    with pytest.raises(InputError, match="preprocessing differs in 'interpolation', bicubic and bilinear"):
        check_alike(base, changed(load_encoder(models[1]), preprocess_config__interpolation="bilinear"))
    other = load_encoder(models[1])
    other.tokenize = lambda texts: base.tokenize([text.upper() + "s" for text in texts])
    with pytest.raises(InputError, match="tokenizers"):
        check_alike(base, other)
    mean = tuple(base.description.preprocess_config["mean"])
    check_alike(base, changed(load_encoder(models[1]), preprocess_config__mean=mean, preprocess_config__size=32))


def test_a_folder_of_the_users_own_is_left_alone(models: tuple[str, str], world: Path, tmp_path: Path) -> None:
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="was not made by degla interpolate"):
        sweep_of(models, world, tmp_path)
    assert (tmp_path / "chosen" / "precious.txt").read_text() == "mine"
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(InputError, match=r"report\.md: already exists"):
        sweep_of(("no/such/base", "no/such/tuned"), world, tmp_path)


def test_the_embedded_model_and_its_checkpoint_are_alike(tmp_path: Path) -> None:
    base = load_encoder("world")
    save_encoder(base, tmp_path / "saved")
    check_alike(base, load_encoder(str(tmp_path / "saved")))


def test_the_command_refuses_alphas_before_the_benchmark_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("degla.verbs.interpolate.evaluation", lambda arguments: pytest.fail("was drawn"))
    words = ["interpolate", "no/such/base", "no/such/tuned", "--benchmarks", "world", "--root", str(tmp_path)]
    assert main([*words, "--out", str(tmp_path / "out"), "--alphas", "2"]) == 2
    assert "--alphas is 2" in capsys.readouterr().err


def test_the_command(models: tuple[str, str], world: Path, classes: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["interpolate", *models, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main([*words, "--alphas", "1", "--benchmarks", "world", "--root", str(world), "--json"]) == 0
    sweep = json.loads(capsys.readouterr().out)
    assert [point["alpha"] for point in sweep["points"]] == [0, 1]
    assert sweep["rule"].startswith(f"alpha {sweep['chosen']['alpha']:g}: the best composition")
    assert "chosen on these items" in sweep["note"]
    words += ["--alphas", "0.5", "1", "--benchmarks", "zeroshot", "--root", str(classes), "--gain", "recognition"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "chosen" in captured.out and "0.5" in captured.out and "report.html" in captured.err
    assert main([*words, "--keep", "100"]) == 2
    assert "no average keeps recognition at 100.0 points or more" in capsys.readouterr().err
    # The choice of an earlier sweep must not be mistaken for this one's.
    assert not (tmp_path / "out" / "chosen").exists() and not (tmp_path / "out" / "sweep.json").exists()
    assert main([*words, "--kept", "recognized"]) == 2
    assert "Did you mean 'recognition'" in capsys.readouterr().err
