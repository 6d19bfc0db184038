"""FREE: losses and scores by hand, other classes, gradients of centres, noise, files of xlsa17, validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import nn

import degla.api
from degla.errors import DeglaError, InputError
from degla.systems.free import SYSTEM
from degla.systems.free.cases import ZeroShotProblem
from degla.systems.free.data import (
    COLOURS_SHOWN,
    SHAPES_SHOWN,
    ZeroShotData,
    embed_shapes,
    is_unseen,
    made_features,
    read_features,
)
from degla.systems.free.networks import (
    Refiner,
    ResidualAdapter,
    class_accuracy,
    cycle_loss,
    gradient_penalty,
    harmonic_mean,
    margin_loss,
    other_class,
    variational_loss,
)
from degla.systems.free.settings import FreeSettings
from degla.systems.free.training import (
    FreeModel,
    _Steps,
    by_prototypes,
    class_means,
    classify,
    fit_softmax,
    linear_map,
    nearest_semantics,
    refined,
    score_rows,
    train_free,
)

TWO = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]], dtype=torch.double)


def test_the_margin_by_hand() -> None:
    rows, label = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.double), torch.tensor([0, 2])
    # Nearest others: of (1, 0) the centre (0, 1) at 2, of (0, 1) the centre (0, 0) at 1.
    value = margin_loss(rows, label, TWO, margin=0.5, balance=0.75, choice="nearest")
    assert value.item() == pytest.approx(((0.5 + 0.75 - 0.5) + (0.5 + 0 - 0.25)) / 2)
    far = margin_loss(rows, label, TWO, margin=-5.0, balance=0.75, choice="nearest")
    assert far.item() == 0


def test_the_gradient_of_the_margin_is_right() -> None:
    rows = torch.randn(4, 2, dtype=torch.double, requires_grad=True)
    centres = torch.randn(3, 2, dtype=torch.double, requires_grad=True)

    def value(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        label = torch.tensor([0, 1, 2, 0])
        return margin_loss(rows, label, centres, margin=3.0, balance=0.3, choice="nearest")

    assert torch.autograd.gradcheck(value, (rows, centres))
    # For a row on its centre, the distance is smooth and its gradient is not NaN.
    on = TWO[:1].clone().requires_grad_()
    margin_loss(on, torch.tensor([0]), TWO, margin=9.0, balance=0.5, choice="nearest").backward()
    assert on.grad is not None and on.grad.isfinite().all()


@pytest.mark.parametrize("choice", ["random", "nearest"])
def test_the_other_class_is_never_the_own_one(choice: str) -> None:
    label = torch.arange(5).repeat(400)
    # A random choice takes any class, although 4 is always the nearest.
    squared = torch.rand(len(label), 5) if choice == "nearest" else torch.arange(5.0, 0.0, -1).expand(len(label), 5)
    squared = squared.scatter(1, label[:, None], 0.0)
    other = other_class(label, squared, choice=choice)  # type: ignore[arg-type]
    assert (other != label).all()
    assert all(set(other[label == each].tolist()) == set(range(5)) - {each} for each in range(5))


def test_the_cycle_by_hand_and_right_rows_are_nothing() -> None:
    estimate = torch.tensor([[3.0, 4.0], [1.0, 1.0], [0.0, -2.0]], dtype=torch.double, requires_grad=True)
    value = cycle_loss(estimate, torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.double))
    # d = (3, 4), its length 5: (9 * 3 + 16 * 4) / 5 = 18.2; the second row is right; 4 * 2 / 2 = 4 of the third.
    assert value.item() == pytest.approx((18.2 + 4) / 3)
    value.backward()
    # The weights 9/5, 16/5 and 4/2 are constants, so they are the gradient.
    assert estimate.grad is not None
    assert (3 * estimate.grad).tolist() == [pytest.approx(row) for row in ([1.8, 3.2], [0, 0], [0, -2])]


def test_the_variational_loss_by_hand() -> None:
    reconstruction, true = torch.tensor([[0.5, 0.25]]), torch.tensor([[1.0, 0.0]])
    mean, log_variance = torch.tensor([[2.0]]), torch.tensor([[math.log(4)]])
    expected = math.log(2) - math.log(0.75) + 0.5 * (4 + 4 - 1 - math.log(4))
    assert variational_loss(reconstruction, true, mean, log_variance).item() == pytest.approx(expected)
    same = [rows.repeat(3, 1) for rows in (reconstruction, true, mean, log_variance)]
    assert variational_loss(*same).item() == pytest.approx(expected)


def test_the_penalty_of_a_linear_critic_is_its_slope_and_teaches_the_critic() -> None:
    slope = torch.tensor([3.0, 4.0], requires_grad=True)
    value = gradient_penalty(lambda rows: rows @ slope, torch.randn(5, 2), torch.randn(5, 2))
    assert value.item() == pytest.approx(16.0)
    value.backward()
    # Of (|s| - 1)^2: 2 (5 - 1) s / 5.
    assert slope.grad is not None and slope.grad.tolist() == pytest.approx([4.8, 6.4])
    # Between a row and itself is only the row: the slope of half its square.
    same = torch.tensor([[3.0, 4.0]])
    assert gradient_penalty(lambda rows: rows.square().sum(dim=1) / 2, same, same).item() == pytest.approx(16.0)


def test_scores_by_hand() -> None:
    label = torch.tensor([0, 0, 0, 0, 1, 2])
    assert class_accuracy(torch.tensor([0, 0, 0, 1, 1, 0]), label) == pytest.approx((0.75 + 1 + 0) / 3)
    assert (
        harmonic_mean(0.75, 0.25) == pytest.approx(0.375)
        and harmonic_mean(0.5, 0.5) == 0.5
        and harmonic_mean(0.0, 0.0) == 0.0
    )


def _data(**changed: object) -> ZeroShotData:
    """Five classes of four rows each, the last two unseen; rows are the semantics of their class."""
    label = torch.arange(5).repeat_interleave(4)
    semantics = torch.eye(5)[:, :4] + 0.1 * torch.arange(5)[:, None]
    values: dict[str, object] = {
        "name": "small", "features": semantics[label] + 0.01 * torch.randn(20, 4), "label": label,
        "semantics": semantics, "train": torch.tensor([0, 1, 2, 4, 5, 6, 8, 9, 10]),
        "test_seen": torch.tensor([3, 7, 11]), "test_unseen": torch.arange(12, 20),
        "validation": torch.tensor([]).long(),
    }  # fmt: skip
    return ZeroShotData(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"label": torch.zeros(3, dtype=torch.long)}, "small: 3 labels for 20 rows"),
        ({"train": torch.tensor([0, 99])}, "small: train refers to row 99 of 20"),
        ({"test_seen": torch.tensor([]).long()}, "small: test_seen is empty"),
        ({"semantics": torch.eye(4)}, "small: class 4 has no semantics"),
        ({"features": torch.full((20, 4), torch.inf)}, "small: row 0 of the features has a number that is not finite"),
        ({"train": torch.tensor([0, 4, 12])}, "small: class 3 of test_unseen is in train"),
        ({"train": torch.tensor([0, 1])}, "small: train has only one class"),
        ({"train": torch.tensor([0, 4])}, "small: class 2 of test_seen is not in train"),
        ({"label": torch.arange(5).repeat_interleave(4) - 1}, "small: class -1 has no semantics"),
    ],
)
def test_bad_problems_are_refused_in_one_line(changed: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        _data(**changed)
    assert "\n" not in str(error.value)


def test_features_are_scaled_by_what_is_trained_on() -> None:
    data = _data()
    scaled = data.scaled()
    rows = scaled.features[scaled.train]
    assert rows.min() == 0 and rows.max() == 1 and scaled.features.max() > 1
    torch.testing.assert_close(scaled.semantics.norm(dim=1), torch.ones(5))
    turned = _data(semantics=torch.eye(5)[:, :4] - 1).scaled().semantics
    assert turned.min() >= 0, "values that a sigmoid cannot reach are shifted"
    assert _data(features=torch.ones(20, 4)).scaled().features.isfinite().all(), "a constant feature"
    constant = _data().features.index_fill(1, torch.tensor([0]), 0.5)
    constant[3, 0] = 0.75  # Only in a test row.
    assert _data(features=constant).scaled().features[:, 0].tolist() == [0, 0, 0, 0.25, *[0] * 16]


def test_settings_are_chosen_on_training_rows_alone() -> None:
    data = made_features(seed=0)
    inner = data.to_choose_by()
    used = torch.cat([inner.train, inner.test_seen, inner.test_unseen])
    assert torch.equal(used.sort().values, data.train) and not set(inner.unseen.tolist()) & set(data.unseen.tolist())
    assert len(inner.unseen) == 4 and len(inner.seen) == 16
    # Where the file says which classes play the unseen ones, they do.
    by_file = _data(validation=torch.tensor([4, 5])).to_choose_by()
    assert by_file.unseen.tolist() == [1] and by_file.seen.tolist() == [0, 2]
    # Row 10, the fifth, is the only one of its class: it is trained on, not tested.
    few = _data(
        label=torch.tensor([0] * 10 + [2] + [1] * 5 + [3, 3, 4, 4]), test_seen=torch.tensor([9, 13]),
        train=torch.tensor([0, 1, 2, 3, 10, 4, 5, 6, 7, 8, 11, 12]), test_unseen=torch.tensor([16, 17, 18, 19]),
        validation=torch.tensor([11]),
    ).to_choose_by()  # fmt: skip
    assert few.test_seen.tolist() == [8] and few.seen.tolist() == [0, 2]
    with pytest.raises(InputError, match="small: too few classes are in train"):
        _data(train=torch.tensor([0, 4]), test_seen=torch.tensor([3, 7])).to_choose_by()


def test_made_features_compose() -> None:
    data = made_features(seed=1)
    assert data.features.shape == (1560, 64) and (len(data.seen), len(data.unseen)) == (20, 6)
    assert (len(data.train), len(data.test_seen), len(data.test_unseen)) == (800, 400, 360)
    assert len({tuple(row) for row in data.semantics.tolist()}) == 26 and 0.15 < data.semantics.mean() < 0.35
    assert all(
        torch.equal(value, getattr(made_features(seed=1), name)) for name, value in vars(data).items() if name != "name"
    )
    assert not torch.equal(data.features, made_features(seed=2).features)
    assert score_rows(linear_map(data.scaled()), data)["unseen"] > 0.3, "semantics identify unseen classes"


def test_a_refined_feature_is_the_same_each_time() -> None:
    data, model = _data(), FreeModel(_data(), 8, refines=True)
    assert torch.equal(refined(model, data.features), refined(model, data.features))
    refiner = Refiner(4, 4, 8).train()
    assert not torch.equal(refiner(data.features).semantics, refiner(data.features).semantics)
    assert torch.equal(refiner.eval()(data.features).semantics, refiner(data.features).mean.sigmoid())
    assert refined(model, data.features).shape == (20, 4 + 8 + 4)
    assert refined(FreeModel(data, 8, refines=False), data.features) is data.features


def test_centres_move_by_the_gradient_of_their_own_step_alone() -> None:
    data, settings = _data().scaled(), FreeSettings(hidden=8, lr=0.0001)
    model = FreeModel(data, 8, refines=True)
    centres = nn.Parameter(torch.randn(3, 4))
    steps = _Steps(model, model.refiner, centres, settings, "nearest")
    rows, label = data.features[data.train], data.label[data.train]
    semantics = data.semantics[label]
    assert centres.grad is None
    for _ in range(3):
        steps.take(rows, semantics, label)
    # The generator's step comes last and gives centres no gradient; earlier gradients are cleared.
    assert centres.grad is None or torch.count_nonzero(centres.grad) == 0


def test_what_refiner_critic_and_generator_learn_by_hand() -> None:
    data, model = _data().scaled(), FreeModel(_data(), 8, refines=True).double()
    assert model.refiner is not None
    model.refiner.eval()  # Without its own noise.
    centres = nn.Parameter(torch.randn(3, 4, dtype=torch.double))
    settings = FreeSettings(hidden=8, gan=0.7, penalty=3.0, centre=0.6, margin=9.0, balance=0.3, cycle=0.2)
    steps, maker = _Steps(model, model.refiner, centres, settings, "nearest"), model.maker
    rows, label = data.features[data.train].double(), data.label[data.train]
    semantics = data.semantics[label].double()

    def seeded(loss: Callable[[], torch.Tensor]) -> float:
        torch.manual_seed(3)
        return loss().item()

    def critic() -> torch.Tensor:
        fakes = maker.generate(torch.randn_like(semantics), semantics).detach()
        penalty = gradient_penalty(lambda between: maker.judge(between, semantics), rows, fakes)
        return 0.7 * (maker.judge(fakes, semantics).mean() - maker.judge(rows, semantics).mean() + 3.0 * penalty)

    def generator() -> torch.Tensor:
        reconstruction, mean, log_variance = maker.reconstruct(rows, semantics)
        fakes = maker.generate(torch.randn_like(semantics), semantics)
        loss = variational_loss(reconstruction, rows, mean, log_variance) - 0.7 * maker.judge(fakes, semantics).mean()
        return loss + 0.2 * cycle_loss(model.refiner(fakes).semantics, semantics)  # type: ignore[misc]

    refined_rows = model.refiner(rows)
    margin = margin_loss(refined_rows.mean, label, centres, margin=9.0, balance=0.3, choice="nearest")
    wanted = 0.6 * margin + 0.2 * cycle_loss(refined_rows.semantics, semantics)
    assert steps.refine(model.refiner, rows, semantics, label).item() == pytest.approx(wanted.item())
    assert seeded(lambda: steps.criticise(rows, semantics)) == pytest.approx(seeded(critic))
    assert seeded(lambda: steps.make(rows, semantics)) == pytest.approx(seeded(generator))
    # Without consistency the generator's step does not change the refiner; only the refiner's own step does.
    before, critics = model.refiner.first.weight.clone(), maker.critic[0].weight.clone()  # type: ignore[union-attr,operator]
    _Steps(model, model.refiner, centres, replace(settings, cycle=0.0), "nearest").take(rows, semantics, label)
    assert not torch.equal(before, model.refiner.first.weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(critics, maker.critic[0].weight)


def test_the_width_control_learns_nothing_in_its_refiner_and_the_baseline_has_none() -> None:
    data, settings = _data().scaled(), FreeSettings(hidden=8, epochs=2)
    torch.manual_seed(0)
    before = FreeModel(data, 8, refines=True)
    torch.manual_seed(0)
    control = train_free(data, settings, model=FreeModel(data, 8, refines=True), trains_refiner=False)
    assert before.refiner is not None and control.refiner is not None
    for name, value in before.refiner.state_dict().items():
        assert torch.equal(value, control.refiner.state_dict()[name])
    assert not torch.equal(before.maker.generator[0].weight, control.maker.generator[0].weight)
    assert FreeModel(data, 8, refines=False).refiner is None
    torch.manual_seed(0)
    trained = train_free(data, settings, model=FreeModel(data, 8, refines=True))
    assert (
        isinstance(trained.refiner, Refiner)
        and isinstance(before.refiner, Refiner)
        and not torch.equal(trained.refiner.first.weight, before.refiner.first.weight)
    )
    assert not trained.training


def test_a_rate_that_is_too_high_is_named() -> None:
    data = _data().scaled()
    with pytest.raises(DeglaError, match=r"not finite\. Lower --lr"):
        train_free(data, FreeSettings(hidden=8, epochs=9, lr=1e6), model=FreeModel(data, 8, refines=False))


def test_an_adapter_begins_as_nothing_and_unseen_classes_have_prototypes_of_made_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, model = _data(), FreeModel(_data(), 8, refines=True, residual=True).eval()
    assert torch.equal(refined(model, data.features), data.features)
    # Real and generated rows are the semantics of their class, so each is nearest to its own class.
    monkeypatch.setattr(model.maker, "generate", lambda latent, semantics: semantics)
    assert torch.equal(by_prototypes(model, data, FreeSettings(made_rows=2)), data.label)
    # If the rows generated for classes 3 and 4 are swapped, only these two are confused.
    turn = torch.tensor([0, 1, 2, 4, 3])
    other = data.semantics[turn]
    monkeypatch.setattr(
        model.maker,
        "generate",
        lambda latent, semantics: other[(semantics[:, None] == data.semantics).all(dim=2).int().argmax(1)],
    )
    assert torch.equal(by_prototypes(model, data, FreeSettings(made_rows=2)), turn[data.label])
    means = class_means(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([4, 4, 2]), torch.tensor([2, 4]))
    assert means.tolist() == [[7.0], [2.0]]
    model = FreeModel(data, 8, refines=True, residual=True)
    began: list[torch.Tensor] = []
    monkeypatch.setattr(
        "degla.systems.free.training._Steps",
        lambda *arguments: began.append(arguments[2].detach().clone()) or _Steps(*arguments),  # type: ignore[arg-type]
    )
    scaled = data.scaled()
    trained = train_free(data.scaled(), FreeSettings(hidden=8, epochs=2), model=model, choice="nearest")
    assert isinstance(trained.refiner, ResidualAdapter) and trained.refiner.change[2].weight.abs().max() > 0
    assert torch.equal(began[0], class_means(scaled.features[data.train], data.label[data.train], data.seen))


def test_a_softmax_learns_weights_and_bias() -> None:
    label = torch.tensor([0, 1, 1, 1, 1] * 8)
    weight, bias = fit_softmax(torch.zeros(40, 1), label, classes=3)
    assert bias.argsort().tolist() == [2, 0, 1] and not weight.any()
    weight, _ = fit_softmax(torch.eye(3)[label], label, classes=3)
    # Sixty steps of at most about 0.01 each.
    assert weight[1].argmax() == 1 and weight[0].argmax() == 0 and 0.3 < weight[1, 1] < 0.7


def test_rows_are_classified_by_what_is_made_of_unseen_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = _data(), FreeModel(_data(), 8, refines=False).eval()
    monkeypatch.setattr(model.maker, "generate", lambda latent, semantics: semantics)
    assert torch.equal(classify(model, data, FreeSettings(made_rows=3)), data.label)
    monkeypatch.setattr(
        "degla.systems.free.training.fit_softmax",
        lambda features, label, *, classes: (torch.zeros(features.shape[1], classes), torch.arange(classes) % 4.0),
    )
    assert classify(model, data, FreeSettings()).tolist() == [3] * 20, "the bias counts"


def test_every_row_gets_one_of_the_classes_that_there_are() -> None:
    data = _data(semantics=torch.cat([_data().semantics, torch.ones(1, 4)])).scaled()
    model = FreeModel(data, 8, refines=True).eval()
    classes = classify(model, data, FreeSettings(hidden=8, made_rows=5))
    assert classes.shape == (20,) and classes.max() < 5, "class 5 has semantics and no row"
    assert linear_map(data).max() < 5


def test_a_clip_alone_is_beside_where_semantics_are_of_its_space() -> None:
    data = _data()
    assert nearest_semantics(data) is not None
    cosines = torch.nn.functional.cosine_similarity(data.features[:, None], data.semantics[None], dim=2)
    assert torch.equal(nearest_semantics(data), cosines.argmax(dim=1))  # type: ignore[arg-type]
    assert nearest_semantics(made_features(seed=0)) is None


def _write_xlsa17(folder: Path, **changed: object) -> None:
    """Three classes of two rows, numbered from 1 and features in columns, as xlsa17 has them."""
    features = np.arange(24, dtype=np.float64).reshape(6, 4)
    savemat(folder / "res101.mat", {"features": features.T, "labels": np.array([[1, 1, 2, 2, 3, 3]]).T})
    splits = {
        "att": np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.7]]).T, "trainval_loc": np.array([[1, 3, 4]]).T,
        "val_loc": np.array([[3, 4]]).T, "test_seen_loc": np.array([[2]]).T, "test_unseen_loc": np.array([[5, 6]]).T,
        **changed,
    }  # fmt: skip
    savemat(folder / "att_splits.mat", {name: value for name, value in splits.items() if value is not None})


def test_files_of_xlsa17(tmp_path: Path) -> None:
    _write_xlsa17(tmp_path)
    data = read_features(tmp_path)
    assert data.features[1].tolist() == [4, 5, 6, 7] and data.label.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.semantics[2].tolist() == pytest.approx([0.5, 0.7])
    assert (data.train.tolist(), data.test_seen.tolist(), data.test_unseen.tolist()) == ([0, 2, 3], [1], [4, 5])
    assert (data.seen.tolist(), data.unseen.tolist(), data.validation.tolist()) == ([0, 1], [2], [2, 3])


def test_files_that_are_no_problem_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"res101.mat: no such file. Pass an xlsa17 folder"):
        read_features(tmp_path)
    _write_xlsa17(tmp_path, test_unseen_loc=None)
    with pytest.raises(InputError, match=r"att_splits.mat: 'test_unseen_loc' is missing, so it is not the proposed"):
        read_features(tmp_path)
    _write_xlsa17(tmp_path, att=np.array(["x"]))
    with pytest.raises(InputError, match="features and att must be numbers"):
        read_features(tmp_path)
    _write_xlsa17(tmp_path, test_unseen_loc=np.array([[7]]))
    with pytest.raises(InputError, match="test_unseen refers to row 6 of 6"):
        read_features(tmp_path)
    (tmp_path / "att_splits.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"att_splits.mat: cannot be read as a .mat file"):
        read_features(tmp_path)
    np.savez(tmp_path / "some.npz", features=np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"some.npz: 'label' is missing; an .npz of features needs features, label"):
        read_features(tmp_path / "some.npz")
    good = {name: value.numpy() for name, value in vars(_data()).items() if name != "name"}
    for changed, says in (
        ({"features": np.zeros(20)}, "features must be a table of numbers, but have 1 axis"),
        ({"train": np.array(3)}, r"train: must be one row of numbers, but has shape \(\)"),
        ({"features": np.full((20, 4), "x")}, "some.npz: features and semantics must be numbers"),
        ({"train": good["train"] + 0.5}, r"train: entry \[0\] is \d+.5; it must be an integer"),
        ({"test_seen": good["train"][:1]}, "is in both train and test_seen"),
    ):
        np.savez(tmp_path / "some.npz", **{**good, **changed})  # type: ignore[arg-type]
        with pytest.raises(InputError, match=says):
            read_features(tmp_path / "some.npz")


def test_arrays_of_any_program(tmp_path: Path) -> None:
    data = _data()
    np.savez(tmp_path / "mine.npz", **{name: value.numpy() for name, value in vars(data).items() if name != "name"})
    features = read_features(tmp_path / "mine.npz")
    assert all(torch.equal(getattr(features, name), value) for name, value in vars(data).items() if name != "name")


def test_no_shape_and_no_colour_is_new_among_unseen_combinations() -> None:
    combinations = {(s, c) for s in range(len(SHAPES_SHOWN)) for c in range(len(COLOURS_SHOWN)) if not is_unseen(s, c)}
    assert len(combinations) == 24
    assert {s for s, _ in combinations} == set(range(6)) and {c for _, c in combinations} == set(range(6))


def test_embeddings_of_drawn_shapes_by_a_clip(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    encode = degla.api.encode_images
    monkeypatch.setattr(
        degla.api, "encode_images", lambda model, images: drawn.extend(map(np.asarray, images)) or encode(model, images)
    )
    data = embed_shapes(str(tiny_model), seed=0, images=3)
    # Classes go through the colours of one shape first; red and blue are the first and the third.
    colours = np.stack(drawn).reshape(6, 6, 3, -1, 3).mean(axis=(0, 2, 3))
    assert colours[0, 0] - colours[2, 0] > 10 and colours[2, 2] - colours[0, 2] > 10, "shapes are drawn in their colour"
    assert data.features.shape[0] == 108 and data.features.shape[1] == data.semantics.shape[1]
    assert (len(data.seen), len(data.unseen), len(data.test_seen)) == (24, 12, 24)
    torch.testing.assert_close(data.semantics.norm(dim=1), torch.ones(36))


def test_a_model_of_the_user_whose_embeddings_are_the_data_has_a_digest() -> None:
    def beside(model: str, data: str = "clip") -> list[str]:
        return [str(path) for path in SYSTEM.beside(FreeSettings(model=model), data)]

    assert beside("runs/mine") == ["runs/mine"] and beside("ViT-B-32:mine.pt") == ["mine.pt"]
    assert beside("world") == beside("runs/mine", "made") == []


def test_each_method_has_its_own_model_and_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings: dict[str, tuple[object, ...]] = {}
    now = ""

    def trained(data: ZeroShotData, settings: FreeSettings, *, model: FreeModel, **options: object) -> FreeModel:
        kind = None if model.refiner is None else type(model.refiner).__name__
        trainings[now] = (kind, *options.values())
        return model

    for name in ("classify", "by_prototypes", "linear_map", "nearest_semantics"):
        monkeypatch.setattr(f"degla.systems.free.cases.{name}", lambda *arguments, name=name: name)
    monkeypatch.setattr("degla.systems.free.cases.train_free", trained)
    monkeypatch.setattr("degla.systems.free.cases.score_rows", lambda rows, data: rows)
    settings, problem = FreeSettings(hidden=4), ZeroShotProblem(_data(), _data().scaled())
    results = {}
    for now in SYSTEM.methods:
        results[now] = SYSTEM.measure(settings, problem, now, SYSTEM.train(settings, problem, now))
    assert trainings == {
        "f_vaegan": (None, True, "random"), "width_control": ("Refiner", False, "random"),
        "free": ("Refiner", True, "random"), "free_nearest": ("Refiner", True, "nearest"),
        "residual": ("ResidualAdapter", True, "nearest"),
    }  # fmt: skip
    assert results == dict.fromkeys(trainings, "classify") | {
        "residual": "by_prototypes", "linear": "linear_map", "zero_shot": "nearest_semantics"
    }  # fmt: skip


def test_zero_shot_reads_embeddings_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ZeroShotProblem(_data(), _data().scaled())
    seen: list[ZeroShotData] = []
    monkeypatch.setattr("degla.systems.free.cases.nearest_semantics", seen.append)
    assert SYSTEM.measure(FreeSettings(), problem, "zero_shot", {}) == {} and seen == [problem.plain]


def test_the_linear_map_by_hand() -> None:
    # One feature, and semantics with the mean (2, 2); the ridge leaves 2 / (2 + 1) of the slope.
    data = ZeroShotData(
        name="line", features=torch.tensor([[-1.0], [1], [-1], [1], [0]]), label=torch.tensor([0, 1, 0, 1, 2]),
        semantics=torch.tensor([[1.0, 3], [3, 1], [2, 2]]), train=torch.tensor([0, 1]), test_seen=torch.tensor([2, 3]),
        test_unseen=torch.tensor([4]), validation=torch.tensor([]).long(),
    )  # fmt: skip
    # x of 0 is the mean of the semantics, (2, 2); of ±1 it is (2, 2) ± 2 / 3 (1, -1), nearer to (3, 1) and (1, 3).
    assert linear_map(data).tolist() == [0, 1, 0, 1, 2]


def test_every_method_runs_and_is_drawn() -> None:
    settings = FreeSettings(hidden=8, epochs=1, part="validation", made_rows=4)
    data = SYSTEM.read(settings, "made", 0)
    models = {method: SYSTEM.train(settings, data, method) for method in SYSTEM.methods}
    scores = {method: SYSTEM.measure(settings, data, method, weights) for method, weights in models.items()}
    assert scores.pop("zero_shot") == {}, "attributes are not embeddings"
    assert all(set(values) == {"seen", "unseen", "harmonic"} for values in scores.values())
    figure = SYSTEM.draw(settings, data, models, "made")
    assert figure is not None
    assert "crosses are generated" in figure.caption and "<svg" in figure.draw(figure.widths[0])
