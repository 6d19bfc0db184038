"""Recognition under attack: what is counted, how strong the attack is, and what the command prints and refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import degla
from degla.cli import main
from degla.errors import InputError
from degla.evaluation.benchmark import Classification
from degla.evaluation.benchmarks import zeroshot
from degla.evaluation.benchmarks.zeroshot import BENCHMARK, items
from degla.evaluation.results import AttackedScores, name_epsilon
from degla.evaluation.robustness import Attacker, AttackSettings, attack_model
from degla.evaluation.run import Evaluation, ask_all
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.records import PairItem
from degla.world.domains import DOMAINS, class_slug
from degla.world.draw import save_picture
from degla.world.scenes import stream
from tests.tiny import write_classes

EPSILONS = [1 / 255, 4 / 255]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes: two pictures of each shape of the embedded world."""
    folder = tmp_path_factory.mktemp("attacked")
    domain = DOMAINS["shape"]
    for name in domain.classes:
        place = folder / "zeroshot" / "shapes" / class_slug(name)
        place.mkdir(parents=True)
        for number in range(2):
            save_picture(domain.paint(name, stream("attacked", name, number)).picture, place / f"{number}.png")
    classes = {class_slug(name): name for name in domain.classes}
    described = {"classes": classes, "templates": ["a picture of {}", "{}"]}
    (folder / "zeroshot" / "shapes" / "classes.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("world")


def _top1(scores: AttackedScores) -> float:
    return scores.scores[0].value


def test_clean_accuracy_is_that_of_evaluate_and_attacks_lower_it(encoder: Encoder, root: Path) -> None:
    kinds = [value.requires_grad for value in encoder.parameters()]
    settings = AttackSettings(EPSILONS[::-1], steps=3)
    result = attack_model(encoder, settings, ask_all(["zeroshot"], root), root=root)
    (benchmark,) = result.benchmarks
    clean, *attacked = benchmark.attacked
    assert [scores.epsilon for scores in benchmark.attacked] == [0.0, *EPSILONS], "sizes in order, whatever the user's"
    plain = Evaluation(["zeroshot"], root, progress=False).score(encoder).benchmarks[0]
    assert clean.scores == plain.parts[0].scores[:2] and clean.averages == plain.averages
    assert _top1(clean) > 0.8 and clean.scores[0].interval is not None
    values = [_top1(clean), *map(_top1, attacked)]
    assert values == sorted(values, reverse=True) and values[-1] < values[0] - 0.3
    assert {score.metric for score in attacked[0].scores} == {"top1", "mean_per_class"}
    assert attacked[0].averages and attacked[0].scores[0].interval is not None
    assert [value.requires_grad for value in encoder.parameters()] == kinds
    assert all(value.grad is None for value in encoder.parameters())


def test_an_attack_finds_what_random_changes_do_not(encoder: Encoder, root: Path) -> None:
    (entry,) = items(root)
    assert isinstance(entry, Classification)
    clean, attacked = Attacker(encoder, root, AttackSettings([2 / 255], steps=5)).judge(BENCHMARK, entry)
    wrong = sum(row.verdict.ok["top1"] == 0 for row in attacked)
    # Steps of next to nothing leave the random start.
    _, noisy = Attacker(encoder, root, AttackSettings([2 / 255], steps=1, step_size=1e-9)).judge(BENCHMARK, entry)
    assert wrong > 2 + sum(row.verdict.ok["top1"] == 0 for row in noisy)
    for before, after in zip(clean, attacked, strict=True):
        assert after.verdict.id == before.verdict.id
        assert after.verdict.ok["top1"] <= before.verdict.ok["top1"], "no attack makes an image right"
        assert after.verdict.margin is not None and before.verdict.margin is not None


def test_what_a_smaller_attack_made_wrong_stays_wrong(
    encoder: Encoder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = items(root)
    assert isinstance(entry, Classification)
    strengths = []

    def attacked(self: Attacker, pixels: torch.Tensor, *_: object, epsilon: float) -> torch.Tensor:
        strengths.append(self.settings.share)
        return torch.zeros_like(pixels) if epsilon < 2 / 255 else pixels

    monkeypatch.setattr(Attacker, "_attack", attacked)
    rounds = Attacker(encoder, root, AttackSettings(EPSILONS, steps=10)).judge(BENCHMARK, entry)
    right = [sum(row.verdict.ok["top1"] for row in judged) for judged in rounds]
    assert right[0] > right[1] + 2 and right[1] == right[2]
    assert set(strengths) == {0.25}, "2.5 epsilon in all, enough to reach any corner"


def test_attacked_pixels_stay_within_epsilon_and_do_not_depend_on_batches(
    encoder: Encoder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = items(root)
    assert isinstance(entry, Classification)
    batches: list[torch.Tensor] = []
    original = Attacker._attack

    def watched(self: Attacker, pixels: torch.Tensor, *rest: object, epsilon: float) -> torch.Tensor:
        attack = original(self, pixels, *rest, epsilon=epsilon)  # type: ignore[arg-type]
        change = (attack - pixels).abs() * 0.25  # The world's standard deviation.
        assert change.max() < epsilon + 1e-6 and change.mean() > epsilon / 2
        batches.append(attack)
        return attack

    monkeypatch.setattr(Attacker, "_attack", watched)
    small = entry.model_copy(update={"images": entry.images[:8], "labels": entry.labels[:8]})
    verdicts = [
        Attacker(encoder, root, AttackSettings([1 / 255], steps=3), images_per_batch=size).judge(BENCHMARK, small)
        for size in (8, 3)
    ]
    whole, *parts = batches
    assert len(parts) > 1
    same = (torch.cat(parts) - whole).abs() < 1e-5
    assert same.float().mean() > 0.99  # Where a gradient is nearly 0, the order of sums decides its sign.
    ok = [[[row.verdict.ok for row in judged] for judged in rounds] for rounds in verdicts]
    assert ok[0] == ok[1]


def test_the_command_compares_models(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("degla.progress._SOONEST", 0.0)
    words = ["--benchmarks", "zeroshot", "--root", str(root), "--epsilon", "1/255", "0.01", "--steps", "2", "--images",
             "10"]  # fmt: skip
    out = tmp_path / "new" / "attack.json"
    assert main(["attack", "world", "world", *words, "--label", "one", "other", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "shapes: 10 of 10" in caplog.text and "shapes 1/255: " in caplog.text
    for word in ("clean", "ε 1/255", "ε 0.01", "one", "other", "shapes"):
        assert word in printed, printed
    first, second = json.loads(out.read_text())["models"]
    assert first["benchmarks"] == second["benchmarks"] and first["model"]["label"] == "one"
    assert [each["epsilon"] for each in first["benchmarks"][0]["attacked"]] == [0.0, 1 / 255, 0.01]
    assert first["benchmarks"][0]["attacked"][0]["scores"][0]["n"] == 10
    assert main(["attack", "world", *words, "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["models"]
    assert again["benchmarks"] == first["benchmarks"], "the same seed attacks alike"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["world", "--benchmarks", "sugarcrap"], "Did you mean 'sugarcrepe'"),
        (["random", "--benchmarks", "zeroshot"], "is a baseline, not a network"),
        (["world", "--benchmarks", "zeroshot", "--label", "a", "b"], "--label gives 2 names for 1 model."),
        (["world", "--benchmarks", "zeroshot", "--out", "x.txt"], "must end in .json"),
        (["world", "--benchmarks", "zeroshot", "--steps", "0"], ": --steps is 0"),
        (["world", "--benchmarks", "zeroshot", "--images", "0"], ": --images is 0"),
        (["world", "--benchmarks", "zeroshot", "--step-size", "0"], ": --step-size is 0"),
        (["world", "--benchmarks", "zeroshot", "--step-size", "nan"], ": --step-size is nan"),
    ],
)
def test_wrong_words_say_what_is_right(
    words: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attack", *words, "--root", str(root)]) == 2
    assert message in capsys.readouterr().err


def test_a_benchmark_without_classes_is_refused(encoder: Encoder, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = items(root)
    question = PairItem(
        id="zeroshot/shapes/0", benchmark="zeroshot", part="shapes", images=entry.images[:1], texts=("a", "b"),
        gold=((1, 0),),
    )  # fmt: skip
    monkeypatch.setattr(zeroshot, "BENCHMARK", dataclasses.replace(BENCHMARK, items=lambda _: iter([question])))
    with pytest.raises(InputError, match="has no zero-shot classification to attack"):
        attack_model(encoder, AttackSettings([0.1]), ask_all(["zeroshot"], root), root=root)


def test_a_benchmark_without_classes_is_refused_before_a_model_is_looked_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "own" / "a.jsonl").write_text('{"image": "a.png", "caption": "a cat", "negative": "a dog"}\n')
    assert main(["attack", "no/model", "--benchmarks", "own", "--root", str(tmp_path)]) == 2
    assert "has no zero-shot classification to attack" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "message"),
    [("1/0", "nor a fraction"), ("1e400", "nor a fraction"), ("8", "at most 1"), ("small", "nor a fraction")],
)
def test_wrong_sizes_are_refused(size: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["attack", "world", "--benchmarks", "zeroshot", "--root", ".", "--epsilon", size])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(InputError, match="--epsilon is"):
        AttackSettings([])


def test_sizes_have_the_names_that_people_use() -> None:
    assert [name_epsilon(size) for size in (1 / 255, 4 / 255, 0.01, 1e-9)] == ["1/255", "4/255", "0.01", "1e-09"]


def test_results_of_other_models_and_benchmarks_are_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "result.json"

    def measure(model: str, *benchmarks: str) -> int:
        return main(["evaluate", model, "--benchmarks", *benchmarks, "--root", str(tmp_path), "--out", str(out)])

    write_classes(tmp_path, images=1)
    assert measure("random:1", "zeroshot") == 0
    before = out.read_bytes()
    for words in (["random:2", "zeroshot"], ["random:1", "own"]):
        assert measure(*words) == 2
        assert f"{out}: has results of random:1 on zeroshot, which would be lost" in capsys.readouterr().err
    attack = ["attack", "world", "--benchmarks", "zeroshot", "--root", str(tmp_path), "--out", str(out)]
    assert main(attack) == 2 and out.read_bytes() == before
    assert measure("random:1", "zeroshot") == 0 and "replacing earlier results" in caplog.text
    for number, kept in ((1, before), (2, b"{}")):
        out.with_stem(f"result-{number}").write_bytes(kept)
    caplog.clear()
    two = ["random:1", "random:2", "--benchmarks", "zeroshot", "--root", str(tmp_path), "--out", str(out)]
    assert main(["evaluate", *two]) == 2 and "replacing" not in caplog.text, "the second is refused"
    out.write_text("[]")
    with pytest.raises(InputError, match="exists already and does not contain results"):
        degla.evaluate("random", ["zeroshot"], tmp_path, out=out)
