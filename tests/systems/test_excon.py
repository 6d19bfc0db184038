"""ExCon: known answers of its loss, masks and metrics; its readers; absence of the released code's defects."""

from __future__ import annotations

import gzip
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from degla.errors import InputError
from degla.model.evidence import above, enlarge, grad_cam, increased, relative_drop, top_share, unit_range
from degla.systems.excon import SYSTEM
from degla.systems.excon.cases import calibration_error, draw, measure, train, training_loss
from degla.systems.excon.images import SHAPES, LabelledImages, draw_shapes, read_images
from degla.systems.excon.network import Network, augment, explain, load_network, masked_views, supervised_contrast
from degla.systems.excon.settings import ExconSettings

TINY = ExconSettings(data=("shapes",), images=32, test_images=12, epochs=2, explained_from=1, batch=16)


def _slow_contrast(views: torch.Tensor, label: list[int], t: float, background: torch.Tensor) -> float:
    """The formula, one term at a time."""
    rows = [*views.tolist(), *background.tolist()]
    dot = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    total = 0.0
    for i, own in enumerate(label):
        whole = sum(math.exp(dot[i][a] / t) for a in range(len(rows)) if a != i)
        positives = [p for p, other in enumerate(label) if other == own and p != i]
        total += sum(math.log(math.exp(dot[i][p] / t) / whole) for p in positives) / len(positives)
    return -(t / 0.07) * total / len(label)


def test_contrast_is_the_formula_and_backgrounds_are_in_denominators_alone() -> None:
    torch.manual_seed(0)
    views, background = (normalize(torch.randn(n, 5), dim=1) for n in (6, 2))
    label = [0, 1, 0, 0, 1, 0]
    for others in (background, background[:0]):
        value = supervised_contrast(views, torch.tensor(label), temperature=0.1, background=others)
        assert float(value) == pytest.approx(_slow_contrast(views, label, 0.1, others), rel=1e-5)
    # A background affects a view only through the denominator: the gradient is that of log-sum-exp, away from it.
    leaf = background.clone().requires_grad_()
    supervised_contrast(views, torch.tensor(label), temperature=0.1, background=leaf).backward()
    logits = torch.cat([views, background]) @ views.T / 0.1
    logits[: len(views)].fill_diagonal_(-torch.inf)
    expected = logits.softmax(dim=0)[len(views) :] @ views / 0.1 / len(views) * (0.1 / 0.07)
    torch.testing.assert_close(leaf.grad, expected)


def test_a_class_of_one_view_is_refused() -> None:
    with pytest.raises(ValueError, match="class 3 has one view"):
        supervised_contrast(torch.eye(3), torch.tensor([1, 1, 3]), temperature=0.1)


def test_grad_cam_by_hand() -> None:
    states = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]], [[1.0, 3.0], [1.0, 0.0]]]])
    # The mean gradients of the channels are 1/4 and -1/8.
    gradient = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, -0.5], [0.0, 0.0]]])
    evidence = grad_cam(states, lambda leaf: (leaf * gradient).sum(dim=(1, 2, 3)))
    torch.testing.assert_close(evidence, torch.tensor([[[0.125, 0.0], [0.0, 0.5]]]))
    torch.testing.assert_close(unit_range(evidence), torch.tensor([[[0.25, 0.0], [0.0, 1.0]]]))
    assert unit_range(torch.full((1, 2, 2), 3.0)).eq(0).all()
    assert above(torch.tensor([[[0.5, 0.51]]]), 0.5).tolist() == [[[0.0, 1.0]]]
    # Each map by its own lowest and highest value.
    several = torch.tensor([[[1.0, 3.0, 2.0]], [[5.0, 5.0, 9.0]]])
    assert unit_range(several).tolist() == [[[0.0, 1.0, 0.5]], [[0.0, 0.0, 1.0]]]
    # Positions are the centres of their squares.
    assert enlarge(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist() == [[[0.0, 0.25, 0.75, 1.0]]]


def test_the_top_share_has_exactly_its_places() -> None:
    evidence = torch.arange(40.0).view(1, 5, 8)
    mask = top_share(evidence, 0.15)
    assert int(mask.sum()) == 6 and mask[0, 4].tolist() == [0, 0] + [1] * 6
    assert int(top_share(torch.zeros(2, 3, 4), 0.15).sum()) == 2
    assert int(top_share(torch.zeros(1, 10, 10), 0.29).sum()) == 29


def test_drop_increase_and_calibration_by_hand() -> None:
    before, after = torch.tensor([0.5, 0.8, 0.4]), torch.tensor([0.25, 0.9, 0.4])
    assert float(relative_drop(before, after).mean()) == pytest.approx(0.5 / 3)
    assert float(increased(before, after).mean()) == pytest.approx(1 / 3)
    # One bin of confidence 0.9 with half right, one of 0.6 with all right.
    probability = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert calibration_error(probability, torch.tensor([0, 1, 1, 1])) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)


def test_explanations_leave_the_network_as_it_is() -> None:
    """The released code computes them in training mode, which changes BatchNorm's statistics, and keeps gradients."""
    torch.manual_seed(0)
    network = Network(3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, label = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    masked, recognisable = masked_views(network, images, label, threshold=0.5)
    assert network.training and not masked.requires_grad and recognisable.dtype == torch.bool
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())
    # In evaluation mode an image's explanation does not depend on the other images, and a batch of one works.
    alone = torch.cat([explain(network, images[[row]], label[[row]]) for row in range(4)])
    torch.testing.assert_close(alone, explain(network, images, label), rtol=1e-4, atol=1e-5)
    # What is left out has the mean colour, which is 0 for the network.
    assert set(masked.unique().tolist()) <= {0.0, *images.unique().tolist()} and (masked == 0).any()


def test_masked_views_begin_where_they_are_to_and_backgrounds_are_another_method() -> None:
    weights, data = {}, SYSTEM.read(TINY, "shapes", 0)
    for method in SYSTEM.methods:
        torch.manual_seed(3)
        weights[method] = train(TINY, data, method)
    different = [not torch.equal(weights[one]["body.0.weight"], weights[other]["body.0.weight"])
                 for one, other in (("supcon", "excon"), ("excon", "excon_b"))]  # fmt: skip
    assert all(different)
    late = replace(TINY, explained_from=2)
    torch.manual_seed(3)
    same = train(late, data, "excon_b")
    assert all(torch.equal(value, weights["supcon"][name]) for name, value in same.items())
    scores = measure(TINY, data, "excon", weights["excon"])
    assert set(scores) == {column.name for column in SYSTEM.columns} and all(0 <= each <= 1 for each in scores.values())
    assert not load_network(weights["excon"]).training
    figure = draw(TINY, data, weights, "shapes")
    assert figure.title == "shapes" and figure.draw(figure.widths[0]).count("<image") == 8 * 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"explained_from": 2}, "--explained-from is 2, counted from 0, but --epochs is 2: no masked view"),
        ({"images": 1}, "shapes: the training images have only one class"),
        ({"test_images": 1}, "shapes: the test images have only one class"),
    ],
)
def test_settings_that_compare_nothing_are_refused_before_training(changed: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SYSTEM.read(replace(TINY, **changed), "shapes", 0)  # type: ignore[arg-type]


def test_classes_that_the_training_pictures_lack_are_measured_or_refused() -> None:
    few = ExconSettings(data=("shapes",), images=3, test_images=12, epochs=1, explained_from=0)
    data = SYSTEM.read(few, "shapes", 0)
    weights = train(few, data, "supcon")
    assert 0 <= measure(few, data, "supcon", weights)["accuracy"] <= 1
    fewer = ExconSettings(**{**vars(few), "test_images": 4})
    other = train(fewer, SYSTEM.read(fewer, "shapes", 0), "supcon")
    with pytest.raises(InputError, match=r"--test-images 12: an image has class 7, .* was trained for 4"):
        measure(few, data, "supcon", other)


def test_what_is_measured_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Network(3).eval()
    network.mean.fill_(0.4)
    network.std.fill_(0.2)
    pictures = LabelledImages(torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8), torch.arange(60) % 3)
    with torch.no_grad():  # So that all classes are predicted, and the small attack step changes predictions.
        logits = network.classify(network.body(network.normalised(pictures.pixels)))
        network.classifier.bias -= logits.mean(dim=0)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    scores = measure(TINY, (pictures, pictures), "supcon", network.state_dict())

    def told(shares: torch.Tensor) -> torch.Tensor:
        return network.classify(network.body((shares - 0.4) / 0.2)).softmax(dim=1)

    shares, label = pictures.pixels / 255, pictures.label
    leaf = shares.clone().requires_grad_()
    told(leaf).log().gather(1, label[:, None]).sum().backward()
    with torch.no_grad():
        before = told(shares)
        most = explain(network, (shares - 0.4) / 0.2, before.argmax(dim=1))
        q = told(torch.where(top_share(most, 0.15)[:, None] > 0, shares, 0.4))
        p, q = (each.gather(1, before.argmax(dim=1)[:, None])[:, 0] for each in (before, q))
        attacked = told((shares - 2 / 255 * leaf.grad.sign()).clamp(0, 1)).argmax(dim=1) == label  # type: ignore[union-attr]
        noisy = calibration_error(told(shares + 0.1), label)
    right = before.argmax(dim=1) == label
    assert attacked.sum() < right.sum()
    assert scores == {
        "accuracy": pytest.approx(float(right.float().mean())),
        "drop": pytest.approx(float(((p - q).clamp(min=0) / p).mean()), rel=1e-4),
        "increase": pytest.approx(float((q > p).float().mean())),
        "attacked": pytest.approx(float(attacked.float().mean())),
        "calibration": pytest.approx(noisy, rel=1e-4),
    }


def test_masks_begin_with_their_epoch_and_the_classifier_that_makes_them_learns_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[str, torch.Tensor]] = []

    def loss(network: Network, images: torch.Tensor, label: torch.Tensor, settings: ExconSettings, now: str):
        calls.append((now, network.classifier.weight.detach().clone()))
        return training_loss(network, images, label, settings, "supcon")

    monkeypatch.setattr("degla.systems.excon.cases.training_loss", loss)
    train(replace(TINY, epochs=3, explained_from=1, batch=32), SYSTEM.read(TINY, "shapes", 0), "excon_b")
    assert [now for now, _ in calls] == ["supcon", "excon_b", "excon_b"]
    assert not torch.equal(calls[0][1], calls[1][1]) and not torch.equal(calls[1][1], calls[2][1])


def test_where_no_masked_picture_shows_its_class_the_view_is_an_augmented_one(monkeypatch: pytest.MonkeyPatch) -> None:
    background = []
    monkeypatch.setattr(
        "degla.systems.excon.cases.supervised_contrast",
        lambda views, label, **more: background.append(more["background"]) or supervised_contrast(views, label, **more),
    )
    torch.manual_seed(0)
    network = Network(3).train()
    network.classifier.bias.data[0] = 1e6
    images, label = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 1, 2])
    losses = {}
    for method in SYSTEM.methods:
        torch.manual_seed(1)
        losses[method] = float(training_loss(network, images, label, TINY, method).detach())
    assert losses["excon"] == losses["supcon"] < losses["excon_b"]
    assert [len(each) for each in background] == [0, 0, 8] and torch.equal(background[2][:4], background[2][4:])


def test_validation_pictures_are_no_test_pictures() -> None:
    tested, validation = (_read("shapes", part=part)[1] for part in ("test", "validation"))
    assert not torch.equal(tested.pixels, validation.pixels)


def test_views_keep_their_size_and_differ() -> None:
    torch.manual_seed(0)
    images = torch.randn(5, 3, 32, 32)
    one, other = augment(images), augment(images)
    assert one.shape == images.shape and not torch.allclose(one, other)
    # Half of the views are mirrored.
    sides = torch.zeros(64, 3, 8, 8)
    sides[..., 4:] = 1
    views = augment(sides, least=0.9)
    assert 10 < int((views[..., 0].mean(dim=(1, 2)) > views[..., -1].mean(dim=(1, 2))).sum()) < 54


def test_shapes_are_drawn_by_their_seed_and_the_shortcut_is_as_often_as_it_says() -> None:
    first, again, other = (draw_shapes(16, rate=0.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.pixels, again.pixels) and not torch.equal(first.pixels, other.pixels)
    assert sorted(first.label.tolist()) == sorted([*range(8), *range(8)]) and len(SHAPES) == 8
    pure = draw_shapes(64, rate=1.0, seed=0)
    reds = ((pure.pixels == torch.tensor([230, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1)).all(dim=1)).flatten(1)
    assert torch.equal(reds.any(dim=1), pure.label == 0)
    free = draw_shapes(64, rate=0.0, seed=0)
    patches = (free.pixels == torch.tensor([230, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1)).all(dim=1).flatten(1)
    assert (patches.any(dim=1) & (free.label != 0)).any() and not patches.any(dim=1)[free.label == 0].all()


def _write_idx(file: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(int(size).to_bytes(4) for size in values.shape)
    file.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


def _fashion(folder: Path, labels: int = 3) -> Path:
    folder.mkdir()
    for part, count in (("train", 9), ("t10k", 6)):
        pixels = np.arange(count * 28 * 28).reshape(count, 28, 28) % 251
        _write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
        _write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count) % labels)
    return folder


def _read(name: object, *, seed: int = 0, **changes: object):
    options = {"images": 6, "test_images": 4} | changes
    return read_images(ExconSettings(**options), str(name), seed)  # type: ignore[arg-type]


def test_fashion_mnist(tmp_path: Path) -> None:
    folder = _fashion(tmp_path / "fashion")
    training, test = _read(folder)
    assert training.pixels.shape == (6, 3, 32, 32) and len(test.label) == 4
    order = np.random.default_rng(0).permutation(9)[:6]
    assert training.label.tolist() == (order % 3).tolist()
    picture = np.arange(order[0] * 784, (order[0] + 1) * 784).reshape(28, 28) % 251
    assert np.array_equal(training.pixels[0, 1, 2:30, 2:30].numpy(), picture)
    assert training.pixels[0, :, :2].eq(0).all()
    validation = _read(folder, images=5, part="validation")[1]
    assert validation.label.tolist() == (np.random.default_rng(0).permutation(9)[5:9] % 3).tolist()


def test_cifar_100(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        rows = {b"data": np.arange(8 * 3072).reshape(8, 3072).astype(np.uint8), b"fine_labels": [0, 99] * 4}
        (folder / name).write_bytes(pickle.dumps(rows))
    for place in (tmp_path, folder):
        training, _ = _read(place)
        assert training.pixels.shape == (6, 3, 32, 32) and set(training.label.tolist()) == {0, 99}


def test_tiny_imagenet_and_folders_of_classes(tmp_path: Path) -> None:
    tiny, own = tmp_path / "tiny", tmp_path / "own"
    lines = []
    for number, kind in enumerate(("n01", "n02")):
        for name, root in (("train", tiny / "train" / kind / "images"), ("", own / "train" / kind),
                           ("", own / "val" / kind), ("val", tiny / "val" / "images")):  # fmt: skip
            root.mkdir(parents=True, exist_ok=True)
            for place in range(3):
                Image.new("RGB", (80, 64), (100 * number, 7, place)).save(root / f"{kind}_{place}.png")
                if name == "val":
                    lines.append(f"{kind}_{place}.png\t{kind}\t0\t0\t62\t62")
    (tiny / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for folder in (tiny, own):
        training, test = _read(folder)
        assert training.pixels.shape == (6, 3, 64, 64)
        for part in (training, test):
            assert torch.equal(part.pixels[:, 0, 0, 0].long(), 100 * part.label)
    (tiny / "val" / "val_annotations.txt").write_text("n01_0.png\tn03\n")
    with pytest.raises(InputError, match=r"val_annotations.txt line 1: must be an image and a class of train"):
        _read(tiny, seed=1)


def test_the_world_is_drawn_without_files() -> None:
    training, test = _read("world", images=4, test_images=3)
    assert training.pixels.shape == (4, 3, 32, 32) and len(test.label) == 3
    assert not torch.equal(training.pixels[0], test.pixels[0])


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _fashion(tmp_path / "data")
    monkeypatch.setattr("degla.parse.LARGEST_FILE", 1000)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(10**5)))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz: more than 1,000 bytes when unpacked\."):
        _read(folder)


def test_bad_pictures_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have only one class; two or more are needed"):
        _read(_fashion(tmp_path / "one", labels=1))
    with pytest.raises(InputError, match="nowhere: not a data set or the folder of one"):
        _read("nowhere")
    for content, says in ((b"no gzip", "damaged"), (gzip.compress(b"\x00\x00\x08\x03\x00"), "not an IDX byte file")):
        folder = _fashion(tmp_path / says.replace(" ", ""))
        (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(InputError, match=rf"train-images-idx3-ubyte.gz: .*{says}.*\. Download or recreate it"):
            _read(folder)
    for pool, count in ((_fashion(tmp_path / "all"), 9), ("world", "6,000")):
        with pytest.raises(
            InputError, match=rf"--images uses all of its {count} training images\. Lower it for --part"
        ):
            _read(pool, images=6000, part="validation")
    folder = _fashion(tmp_path / "short")
    _write_idx(folder / "train-labels-idx1-ubyte.gz", np.arange(5))
    with pytest.raises(InputError, match="9 images and 5 labels in train"):
        _read(folder)
    (tmp_path / "bare" / "train" / "a").mkdir(parents=True)
    (tmp_path / "bare" / "test").mkdir()
    with pytest.raises(InputError, match=r"train: has 1 subfolder; one per class is needed, at least two"):
        _read(tmp_path / "bare")
    (tmp_path / "bare" / "train" / "b").mkdir()
    (tmp_path / "bare" / "test" / "notes.txt").write_text("A file is no class.")
    with pytest.raises(InputError, match="a: no image of this class"):
        _read(tmp_path / "bare")
    (tmp_path / "bare" / "test" / "c").mkdir()
    with pytest.raises(InputError, match=r"test.c: train has no such class\. Add its training images"):
        _read(tmp_path / "bare")
