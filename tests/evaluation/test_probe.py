"""Linear probes: the optimum, what they are fitted on, what a fold may see, and what the command prints and refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import degla
from degla.cli import main
from degla.errors import InputError
from degla.evaluation.probe import FOLDS, choose_probe, fit_probe, folds_of, logits_of, only_classes, probe_tasks
from degla.evaluation.questions import ask
from degla.evaluation.results import load_result
from degla.evaluation.run import Evaluation, ask_all
from degla.records import ItemImage, PairItem
from degla.results import PartResult
from degla.shelf import BENCHMARKS
from tests.evaluation.fake_encoders import FakeEncoder, constant, spread_row
from tests.evaluation.published_layouts import TRAINING_WRITERS, WRITERS


def problem(count: int = 120, *, classes: int = 3, noise: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows in a narrow cone, and classes that a noisy linear rule gives."""
    draw = np.random.default_rng(0)
    around = draw.normal(size=(count, 8)) * np.linspace(0.3, 1, 8)
    labels = (around @ draw.normal(size=(8, classes)) + noise * draw.normal(size=(count, classes))).argmax(axis=1)
    rows = 5 + around
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows), torch.from_numpy(labels)


@pytest.mark.parametrize("cost", [1e-4, 1e-2, 1.0, 100.0])
def test_the_fit_is_the_minimum_of_the_stated_objective(cost: float) -> None:
    """By Newton's method on the literal sum, from zeros."""
    rows, labels = problem()
    scaled = rows - rows.mean(dim=0)
    scaled = scaled / scaled.square().mean().sqrt()
    design = torch.cat([scaled, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        weights = flat.view(3, -1)
        errors = torch.nn.functional.cross_entropy(design @ weights.T, labels, reduction="sum")
        return weights[:, :-1].square().sum() / 2 + cost * errors

    flat = torch.zeros(27, dtype=torch.float64)
    for _ in range(100):
        slope = torch.autograd.functional.jacobian(objective, flat)
        curve = torch.autograd.functional.hessian(objective, flat)
        # Equal shifts of all biases change nothing, so the matrix has no inverse.
        step = torch.linalg.pinv(curve, hermitian=True) @ slope
        size = 1.0
        while size > 1e-6 and objective(flat - size * step) > objective(flat):
            size /= 2
        flat = flat - size * step
    assert torch.autograd.functional.jacobian(objective, flat).abs().max() < 1e-8
    expected = design @ flat.view(3, -1).T
    found = logits_of(fit_probe(rows, labels, classes=3, cost=cost), rows)
    gap = (found - found.mean(dim=1, keepdim=True)) - (expected - expected.mean(dim=1, keepdim=True))
    assert gap.abs().max() < 2e-3 * max(1.0, expected.abs().max().item())


def test_a_start_does_not_change_the_fit() -> None:
    rows, labels = problem()
    weights = fit_probe(rows, labels, classes=3, cost=1.0)
    other = fit_probe(rows, labels, classes=3, cost=100.0)
    again = fit_probe(rows, labels, classes=3, cost=1.0, start=other)
    shares = [logits_of(each, rows).softmax(dim=1) for each in (weights, again)]
    assert (shares[0] - shares[1]).abs().max() < 1e-3
    assert (logits_of(other, rows).softmax(dim=1) - shares[0]).abs().max() > 0.05


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond the first block count, also those of a last, shorter one."""
    rows, labels = problem(121)
    whole = fit_probe(rows, labels, classes=3, cost=1.0)
    monkeypatch.setattr("degla.evaluation.probe._BLOCK", 3 * 50)
    assert torch.allclose(fit_probe(rows, labels, classes=3, cost=1.0), whole, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(fit_probe(rows[:100], labels[:100], classes=3, cost=1.0), whole, rtol=1e-2, atol=1e-2)


def test_the_scale_and_place_of_embeddings_change_nothing() -> None:
    rows, labels = problem()
    first = logits_of(fit_probe(rows, labels, classes=3, cost=1.0), rows)
    moved = 0.01 * rows + 3
    second = logits_of(fit_probe(moved, labels, classes=3, cost=1.0), moved)
    assert torch.allclose(first, second, atol=1e-3)


def test_folds_hold_every_class_alike_and_keep_copies_together() -> None:
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(100)]
    labels = [number % 4 for number in range(100)]
    folds = folds_of([*digests, digests[7]], [*labels, labels[7]])
    assert folds[100] == folds[7]
    for label in range(4):
        assert np.bincount(folds[:100][np.array(labels) == label]).tolist() == [5] * FOLDS
    order = np.random.default_rng(0).permutation(100)
    shuffled = folds_of([digests[number] for number in order], [labels[number] for number in order])
    assert shuffled.tolist() == folds[order].tolist(), "the order of the files decides nothing"
    # Two images a class: without turning, three folds would be empty.
    small = folds_of(digests[:20], [number // 2 for number in range(20)])
    assert np.bincount(small).tolist() == [4] * FOLDS


def test_the_lowest_of_the_most_accurate_costs_is_chosen() -> None:
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(120)]
    rows, labels = problem()
    done: list[int] = []
    power, weights = choose_probe(rows, labels, digests, classes=3, advance=done.append)
    held = torch.from_numpy(folds_of(digests, labels.tolist()) == 0)

    def accuracy(power: float) -> float:
        fitted = fit_probe(rows[~held], labels[~held], classes=3, cost=10**power)
        return (logits_of(fitted, rows[held]).argmax(dim=1) == labels[held]).double().mean().item()

    tried = {each: accuracy(each) for each in (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)}
    assert accuracy(power) >= max(tried.values()) > min(tried.values())
    assert all(each > power for each, value in tried.items() if value == accuracy(power) and each != power)
    assert sum(done) == 16 and power * 8 == int(power * 8)
    again = fit_probe(rows, labels, classes=3, cost=10**power)
    shares = [logits_of(each, rows).softmax(dim=1) for each in (weights, again)]
    assert (shares[0] - shares[1]).abs().max() < 1e-3, "all images are used in the end"


def hashing() -> FakeEncoder:
    """Each image has a direction of its own, which says nothing of its colour."""
    return FakeEncoder(
        lambda image: spread_row(image.tobytes(), 24), lambda tokens: spread_row(bytes(tokens[0] % 251), 24)
    )


def seeing() -> FakeEncoder:
    """Rows are an image's mean colour, turned: no prompt is near the right one."""
    return FakeEncoder(
        lambda image: np.append(image.mean(axis=(1, 2)), 1.0),
        lambda tokens: np.array([0.0, 0.0, 0.0, 1.0]),
    )


def noisy(path: Path, channel: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([channel, number])
    pixels = draw.integers(0, 100, (8, 8, 3))
    pixels[:, :, channel] += 60
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve images of each of three colours, and a training split of another data set of the same classes."""
    for channel, name in enumerate(("red", "green", "blue")):
        for number in range(12):
            noisy(tmp_path / "zeroshot" / "folds" / name / f"{number}.png", channel, number)
            noisy(tmp_path / "zeroshot" / "split" / "test" / name / f"{number}.png", channel, 100 + number)
            noisy(tmp_path / "zeroshot" / "split" / "train" / name / f"{number}.png", channel, 200 + number)
    return tmp_path


def parts_of(encoder: FakeEncoder, root: Path) -> dict[str, PartResult]:
    result = Evaluation(["zeroshot"], root, progress=False, scorer="probe").score_named(encoder)
    assert (result.scorer, result.model.label) == ("probe", "fake, probe")
    return {part.name: part for part in result.benchmarks[0].parts}


def test_images_are_classified_whatever_texts_say(root: Path) -> None:
    encoder = seeing()
    plain = Evaluation(["zeroshot"], root, progress=False).score_named(encoder)
    assert all(part.scores[0].value < 0.5 for part in plain.benchmarks[0].parts)
    encoder = seeing()
    parts = parts_of(encoder, root)
    assert encoder.texts_seen == 0 and encoder.images_seen == 108
    assert {name: part.scores[0].value for name, part in parts.items()} == {"folds": 1.0, "split": 1.0}
    assert {score.metric for score in parts["split"].scores} == {"top1", "mean_per_class", "top5"}
    folds, split = (parts[name].probe for name in ("folds", "split"))
    assert folds is not None and split is not None
    assert (folds.images, folds.folds, len(folds.costs), folds.copies) == (36, FOLDS, FOLDS, 0)
    assert (split.images, split.folds, len(split.costs), split.copies) == (36, 0, 1, 0)


def test_no_fold_sees_its_own_images(root: Path) -> None:
    """With rows that say nothing of the class, a probe that had seen an image would know it."""
    parts = parts_of(hashing(), root)
    for part in parts.values():
        assert part.scores[0].value < 0.6
    copied = root / "zeroshot" / "folds"
    for name in ("red", "green", "blue"):
        for number in range(12):
            (copied / name / f"copy {number}.png").write_bytes((copied / name / f"{number}.png").read_bytes())
    assert parts_of(hashing(), root)["folds"].scores[0].value < 0.6, "copies of an image are in one fold"


def test_a_class_of_copies_only_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey = root / "zeroshot" / "folds" / "grey"
    for number in range(2):
        noisy(grey / f"{number}.png", 0, 999)
    parts_of(seeing(), root)
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "folds: all images of class 'grey' are copies of one image, s"
    ]
    noisy(grey / "2.png", 0, 998)
    caplog.clear()
    parts_of(seeing(), root)
    assert not caplog.records


def test_scored_images_in_the_training_split_are_counted(root: Path) -> None:
    split = root / "zeroshot" / "split"
    for number in range(2):
        (split / "train" / "red" / f"copy {number}.png").write_bytes(
            (split / "test" / "red" / f"{number}.png").read_bytes()
        )
    probe = parts_of(hashing(), root)["split"].probe
    assert probe is not None and probe.copies == 2


def test_a_model_that_sees_no_images_has_the_largest_class(root: Path) -> None:
    for part in parts_of(FakeEncoder(**vars(constant()) | {"name": "fake"}), root).values():
        assert part.scores[0].value <= 0.5


def test_the_command_says_what_probes_were_fitted_on(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "probe.json"
    arguments = ["evaluate", "random:0", "--benchmarks", "zeroshot", "--root", str(root), "--scorer", "probe"]
    assert main([*arguments, "--no-cache", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Linear probes were fitted on the training split: split 36 images." in printed
    assert "No training split, so linear probes were fitted by 5-fold cross-validation: folds." in printed
    assert load_result(out).scorer == "probe"
    assert main(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.md").read_text()
    assert "linear probes were fitted on the training split: split 36 images" in page
    assert "Linear probes: logistic regressions on image embeddings, without texts." in page
    # Not where scores by cosine are.
    assert main([*arguments[:-1], "cosine", "--no-cache", "--out", str(out)]) == 2
    assert "which would be lost" in capsys.readouterr().err


def test_a_benchmark_without_classes_is_refused(root: Path) -> None:
    noisy(root / "0.png", 0, 0)
    row = {"image": "0.png", "caption": "a red picture", "negative": "a green picture"}
    (root / "own").mkdir()
    (root / "own" / "mine.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"has no images of classes to probe\. Omit the benchmark"):
        degla.evaluate("no such model", ["own"], root, scorer="probe")


def test_of_a_benchmark_with_classes_only_these_are_scored(root: Path) -> None:
    noisy(root / "0.png", 0, 0)
    mixed = BENCHMARKS.load("zeroshot").BENCHMARK
    pair = PairItem(benchmark="zeroshot", part="pairs", id="zeroshot/pairs/0", images=(ItemImage(path="0.png"),),
                    texts=("a", "b"), gold=((1, 0),))  # fmt: skip
    changed = dataclasses.replace(mixed, items=lambda root: [*mixed.items(root), pair])
    questions = ask(changed, root, allow_missing=False)
    assert "pairs" in {entry.part for entry in questions.entries}
    (left,) = only_classes([questions])
    assert {entry.part for entry in left.entries} == {entry.part for entry in left.passing} == {"folds", "split"}
    twice = dataclasses.replace(left, entries=(*left.entries, left.entries[0]))
    with pytest.raises(InputError, match=r"two classifications are called 'folds'; a probe is fitted for each part"):
        probe_tasks(twice, root, allow_missing=False)


def test_missing_training_images_are_refused_or_left_out(root: Path) -> None:
    folder = root / "zeroshot" / "sun397"
    WRITERS["sun397"](folder)
    TRAINING_WRITERS["sun397"](folder)
    with (folder / "SUN397/Training_01.txt").open("a") as file:
        file.write("/a/abbey/sun_gone.jpg\n")
    questions = only_classes(ask_all(["zeroshot"], root, allow_missing=True))[0]
    with pytest.raises(
        InputError, match=r"sun397, training split: 1 of 3 images are not under .*sun_gone\.jpg\. Put them"
    ):
        probe_tasks(questions, root, allow_missing=False)
    training = probe_tasks(questions, root, allow_missing=True)["sun397"].training
    assert training is not None and len(training.images) == 2


def test_what_cannot_be_probed_is_refused_before_a_model_is_loaded(root: Path) -> None:
    noisy(root / "zeroshot" / "folds" / "grey" / "0.png", 0, 999)
    with pytest.raises(InputError, match=r"folds: class 'grey' has one image, and there are no training images"):
        degla.evaluate("no such model", ["zeroshot"], root, scorer="probe")
    with pytest.raises(InputError, match=r"scorer 'probe' cannot be combined with regions"):
        Evaluation(["zeroshot"], root, scorer="probe", regions=object())  # type: ignore[arg-type]
