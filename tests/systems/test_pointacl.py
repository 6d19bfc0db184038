"""PointACL: known answers of significance, masks, losses and patches; its readers; zero weight is the baseline."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from degla.errors import InputError
from degla.model.token_mask import gumbel, largest, places_of, sampling_keys, significance, take_tokens
from degla.systems.learning import classify, probe
from degla.systems.pointacl import SYSTEM
from degla.systems.pointacl.cases import cut_out, draw, measure, train
from degla.systems.pointacl.clouds import (
    SOLIDS,
    Clouds,
    draw_solid,
    farthest,
    patches_of,
    read_clouds,
    read_off,
    sample_surface,
)
from degla.systems.pointacl.network import PointNetwork, all_patches, chamfer, info_nce, pretraining_loss, turns
from degla.systems.pointacl.settings import PointaclSettings

TINY = PointaclSettings(
    clouds=20, labelled=20, test_clouds=20, points=40, patches=10, patch_points=4, width=16, blocks=2, epochs=1,
    batch=10,
)  # fmt: skip


def test_significance_by_hand_sums_to_one() -> None:
    attention = torch.tensor([[[0.2, 0.6], [0.4, 0.0]]])
    # |V| over the heads together: token 0 has (3, 4), token 1 has (0, 1).
    values = torch.tensor([[[[3.0], [0.0]], [[4.0], [1.0]]]])
    scores = significance(attention, values)
    torch.testing.assert_close(scores, torch.tensor([[0.6 * 5 / 3.6, 0.6 / 3.6]]))
    random = significance(torch.rand(4, 3, 7), torch.randn(4, 3, 7, 5))
    torch.testing.assert_close(random.sum(dim=1), torch.ones(4))


def test_the_masks_class_row_is_that_of_attention() -> None:
    torch.manual_seed(0)
    network = PointNetwork(TINY)
    tokens, places = torch.randn(2, 10, 16), torch.randn(2, 10, 16)
    output = network.encode(tokens, places, scores=True)
    assert output.scores is not None and not output.scores.requires_grad
    torch.testing.assert_close(output.scores.sum(dim=1), torch.ones(2))
    plain = network.encode(tokens, places)
    assert plain.scores is None and torch.equal(plain.summary, output.summary)
    # Again, one head and one token at a time: softmax of q k / sqrt(4) over all tokens, including the class token.
    states = torch.cat([network.summary.expand(2, -1, -1), tokens], dim=1)
    places = torch.cat([torch.zeros(2, 1, 16), places], dim=1)
    first, last = network.encoder
    query, key, value = last.mixed(last.before(first(states + places) + places)).chunk(3, dim=2)
    heads = [slice(4 * head, 4 * head + 4) for head in range(4)]
    attention = torch.stack(
        [((query[:, 0, None, each] * key[..., each]).sum(dim=2) / 2).softmax(dim=1)[:, 1:] for each in heads], dim=1
    )
    values = torch.stack([value[:, 1:, each] for each in heads], dim=1)
    torch.testing.assert_close(output.scores, significance(attention, values))
    torch.testing.assert_close(output.features, torch.cat([output.summary, output.patches.max(dim=1).values], dim=1))


def test_turns_keep_the_upright_axis_and_every_shape() -> None:
    torch.manual_seed(0)
    maps = turns(500)
    scale = maps[:, 2, 2]
    assert 2 / 3 <= scale.min() < 0.7 and 1.45 < scale.max() <= 3 / 2 and scale.log().mean().abs() < 0.05
    torch.testing.assert_close(maps @ maps.transpose(1, 2), scale.square()[:, None, None] * torch.eye(3))
    assert not maps[:, 2, :2].any() and (maps[:, 0, 0] / scale).mean().abs() < 0.1 and (maps[:, 0, 1] < 0).any()


@pytest.mark.parametrize(("share", "count"), [(0.6, 6), (0.3, 3), (0.0, 0), (0.99, 9), (1.0, 10)])
def test_a_mask_has_exactly_its_share(share: float, count: int) -> None:
    keys = torch.rand(50, 10)
    mask = largest(keys, share)
    assert mask.sum(dim=1).eq(count).all()
    visible, masked = places_of(keys, share)
    for row in range(50):
        assert sorted([*visible[row].tolist(), *masked[row].tolist()]) == list(range(10))
        assert mask[row][masked[row]].all() and not mask[row][visible[row]].any()
    tokens = torch.arange(500.0).view(50, 10, 1)
    assert torch.equal(take_tokens(tokens, visible)[3, :, 0], tokens[3, visible[3], 0])


def test_the_ends_of_the_temperature() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.3, 0.15, 0.05]]).expand(4000, -1)
    noise = gumbel(scores, generator=torch.Generator().manual_seed(0))
    cold = largest(sampling_keys(scores, noise, temperature=1e-6), 0.4)
    assert (cold == torch.tensor([False, True, True, False, False])).all()
    lowest = largest(sampling_keys(scores, noise, temperature=1e-6, by="low"), 0.4)
    assert (lowest == torch.tensor([True, False, False, False, True])).all()
    for keys in (
        sampling_keys(scores, noise, temperature=1e6),
        sampling_keys(scores, noise, temperature=1, by="random"),
    ):
        hot = largest(keys, 0.4).float().mean(dim=0)
        assert (hot - 0.4).abs().max() < 4 * math.sqrt(0.4 * 0.6 / 4000)


def test_draws_are_without_replacement_from_the_softmax() -> None:
    """With two of three left out, the probability of the remaining one has a closed form."""
    scores = torch.tensor([[0.2, 0.3, 0.5]]).expand(20000, -1)
    keys = sampling_keys(scores, gumbel(scores, generator=torch.Generator().manual_seed(1)), temperature=0.2)
    mask = largest(keys, 2 / 3)
    p = torch.softmax(torch.tensor([1.0, 1.5, 2.5]), dim=0).tolist()
    stays = [sum(p[a] * p[b] / (1 - p[a]) for a, b in itertools.permutations({0, 1, 2} - {c})) for c in range(3)]
    frequency = 1 - mask.float().mean(dim=0)
    torch.testing.assert_close(frequency, torch.tensor(stays), atol=0.015, rtol=0)
    # What is left out has more significance than what stays.
    share = (scores * mask).sum() / mask.sum(), (scores * ~mask).sum() / (~mask).sum()
    assert share[0] > share[1]


def test_chamfer_and_contrast_by_hand() -> None:
    one = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    other = torch.tensor([[0.0, 0, 0], [1, 0, 2], [1, 0, 0]])
    assert float(chamfer(one, other)) == pytest.approx(4 / 3)
    assert float(chamfer(one, one)) == 0
    rows = normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    dot = (rows @ rows.T / 0.1).tolist()
    slow = sum(math.log(sum(math.exp(x) for x in dot[i])) - dot[i][i] for i in range(3)) / 3
    assert float(info_nce(rows, rows, temperature=0.1)) == pytest.approx(slow, rel=1e-5)
    other = normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    both = [float(info_nce(*pair, temperature=0.1)) for pair in ((rows, other), (other, rows))]
    assert both[0] == pytest.approx(both[1], rel=1e-5), "both directions"


def test_patches() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [6, 0, 0], [0, 3, 0]]])
    assert farthest(points, 3).tolist() == [[0, 3, 4]]
    centres, near = patches_of(points, patches=2, size=2)
    assert centres[0].tolist() == [[0, 0, 0], [6, 0, 0]]
    assert near[0].tolist() == [[[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [-1, 0, 0]]]
    with pytest.raises(InputError, match="--points is 5; it must be at least --patches and --patch-points"):
        patches_of(points, patches=2, size=6)


def test_a_cut_takes_the_nearest_points_and_keeps_their_number() -> None:
    torch.manual_seed(0)
    points = torch.randn(3, 10, 3)
    cut = cut_out(points, 0.4)
    assert cut.shape == points.shape
    for row in range(3):
        rest = {tuple(point) for point in cut[row].tolist()}
        whole = {tuple(point) for point in points[row].tolist()}
        assert len(rest) == 6 and rest < whole
        # The removed points are the four nearest to some point, including itself.
        assert any(set(sorted(whole, key=lambda each: math.dist(each, middle))[:4]) == whole - rest for middle in whole)
    assert cut_out(points, 0.8).shape == points.shape


@pytest.mark.parametrize(
    ("kind", "area"),
    [
        ("box", 6.0), ("cylinder", 1.5 * math.pi), ("cone", 0.5 * math.pi * (0.5 + math.hypot(0.5, 1))),
        ("ellipsoid", math.pi), ("torus", 4 * math.pi**2 * 0.4 * 0.17),
        ("capsule", 2 * math.pi * 0.3 * 0.7 + 4 * math.pi * 0.3**2),
        ("annulus", 2 * math.pi * 0.8 * 0.3 + 2 * math.pi * (0.5**2 - 0.3**2)), ("cross", 3 * (4 * 0.25 + 2 / 16)),
        ("table", 2 + 4 * 0.12 + 4 * (4 * 0.12 * 0.8 + 2 * 0.12**2)),
        ("lollipop", 4 * math.pi * 0.3**2 + 2 * math.pi * 0.07 * (0.8 + 0.07)),
    ],
)  # fmt: skip
def test_solids_are_what_they_are_called(kind: str, area: float) -> None:
    vertices, faces = SOLIDS[kind]()
    corners = vertices[faces]
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Twenty-four corners instead of a circle.
    assert np.linalg.norm(sides, axis=1).sum() / 2 == pytest.approx(area, rel=0.03)


def test_solids_are_turned_about_the_upright_axis() -> None:
    cloud = draw_solid("box", 2000, np.random.default_rng(0))
    high = np.abs(cloud[:, 2])
    assert (high > np.quantile(high, 0.99) - 0.05).mean() > 0.15, "a level top and a level bottom"
    assert abs(np.corrcoef(cloud[:, 0], cloud[:, 1])[0, 1]) > 0.01 and np.abs(cloud.mean(axis=0)).max() < 0.1


def test_points_lie_on_the_surface() -> None:
    chance = np.random.default_rng(0)
    box = sample_surface(SOLIDS["box"](), 3000, chance)
    assert np.abs(box).max(axis=1) == pytest.approx(0.5) and np.abs(box.mean(axis=0)).max() < 0.05
    # Every side of the cube has a sixth of the points.
    sides = np.bincount(
        np.abs(box).argmax(axis=1) * 2 + (np.take_along_axis(box, np.abs(box).argmax(1)[:, None], 1)[:, 0] > 0)
    )
    assert np.abs(sides / 3000 - 1 / 6).max() < 0.04
    ball = sample_surface(SOLIDS["ellipsoid"](), 500, chance)
    assert 0.47 < np.linalg.norm(ball, axis=1).min() <= np.linalg.norm(ball, axis=1).max() < 0.501
    for kind in SOLIDS:
        assert np.isfinite(draw_solid(kind, 50, chance)).all()
    with pytest.raises(ValueError, match="no area"):
        sample_surface((np.zeros((3, 3)), np.array([[0, 1, 2]])), 5, chance)


def test_zero_weight_is_the_baseline_bit_for_bit_and_methods_differ() -> None:
    models, data = {}, SYSTEM.read(TINY, "solids", 0)
    for name, method, weight in (
        ("base", "point_mae", 0.1),
        ("zero", "random_contrast", 0.0),
        ("random", "random_contrast", 0.1),
        ("high", "pointacl", 0.1),
        ("low", "low_contrast", 0.1),
    ):
        torch.manual_seed(5)
        models[name] = train(replace(TINY, weight=weight), data, method)
    assert all(torch.equal(value, models["zero"][name]) for name, value in models["base"].items())
    for one, other in itertools.combinations(("base", "random", "high", "low"), 2):
        assert any(not torch.equal(value, models[other][name]) for name, value in models[one].items()), (one, other)
    scores = measure(TINY, data, "pointacl", models["high"])
    assert set(scores) == {column.name for column in SYSTEM.columns} and all(0 <= each <= 1 for each in scores.values())
    figure = draw(TINY, data, {"pointacl": models["high"]}, "solids")
    assert figure is not None and figure.title == "solids"
    drawing = figure.draw(figure.widths[0])
    assert "<svg" in drawing and "#440154" not in drawing, "dark colours are invisible on a dark page"


def test_both_sides_of_the_contrast_are_trained() -> None:
    torch.manual_seed(0)
    network = PointNetwork(TINY)
    patches = patches_of(read_clouds(TINY, "solids", 0)[0].points[:6], patches=10, size=4)
    weights = {weight: replace(TINY, weight=weight) for weight in (0.0, 1.0)}
    losses = []
    for settings in weights.values():
        torch.manual_seed(1)
        losses.append(pretraining_loss(network, settings, "random_contrast", patches))
    assert losses[1] > losses[0]
    torch.manual_seed(1)
    assert pretraining_loss(network, weights[0.0], "pointacl", patches) != losses[0], "its mask without the contrast"
    losses[1].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_a_probe_finds_separated_classes() -> None:
    chance = torch.Generator().manual_seed(0)
    label = torch.arange(60) % 3
    features = torch.eye(3)[label] * torch.tensor([1.0, 10.0, 100.0]) + 0.01 * torch.randn(60, 3, generator=chance)
    assert torch.equal(classify(probe(features, label, classes=3), features), label)


def test_clouds_are_in_the_unit_ball_and_drawn_by_the_seed() -> None:
    unlabelled, labelled, test = read_clouds(TINY, "solids", 0)
    assert unlabelled.points.shape == (20, 40, 3) and sorted(labelled.label.tolist()) == sorted([*range(10)] * 2)
    torch.testing.assert_close(test.points.norm(dim=2).amax(dim=1), torch.ones(20))
    torch.testing.assert_close(test.points.mean(dim=1), torch.zeros(20, 3), atol=1e-6, rtol=0)
    other = read_clouds(TINY, "solids", 1)[2]
    assert not torch.equal(test.points, other.points) and not torch.equal(test.points, labelled.points)


def test_any_number_of_solids_is_drawn_with_alternating_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    def labels(pool: SimpleNamespace, places: list[int], count: int, chance: object) -> Clouds:
        return Clouds(torch.zeros(len(places), count, 3), torch.tensor([pool.label[place] for place in places]))

    monkeypatch.setattr("degla.systems.pointacl.clouds._read", labels)
    clouds = read_clouds(replace(TINY, clouds=100_003, points=24), "solids", 0)
    assert clouds[0].label[-3:].tolist() == [0, 1, 2] and clouds[1].label[:3].tolist() == [3, 4, 5]


def test_a_patch_is_turned_with_its_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    monkeypatch.setattr("degla.systems.pointacl.cases.turns", lambda count: quarter.expand(count, 3, 3))
    batches = []

    def noted(network: PointNetwork, settings: PointaclSettings, method: str, patches: object) -> torch.Tensor:
        batches.append(patches)
        return network.summary.sum()

    monkeypatch.setattr("degla.systems.pointacl.cases.pretraining_loss", noted)
    settings = replace(TINY, epochs=1)
    data = read_clouds(settings, "solids", 0)
    train(settings, data, "pointacl")
    for given, turned in zip(all_patches(settings, data[0].points), zip(*batches, strict=True), strict=True):
        # Sums over all clouds, because their order is random.
        torch.testing.assert_close(torch.cat(turned).sum(dim=0), (given @ quarter).sum(dim=0), rtol=1e-4, atol=1e-4)


def test_validation_clouds_are_no_test_clouds() -> None:
    test, validation = (read_clouds(replace(TINY, part=part), "solids", 0) for part in ("test", "validation"))
    assert torch.equal(test[0].points, validation[0].points) and not torch.equal(test[2].points, validation[2].points)


def test_validation_clouds_of_a_folder_are_none_that_were_trained_on(tmp_path: Path) -> None:
    folder = _shapenet(tmp_path, np.zeros((20, 3)))
    for number, name in enumerate((folder / "train.txt").read_text().split()):
        # A cloud that is identified by its class.
        np.save(folder / "shapenet_pc" / f"{number:02}-0.npy", np.random.default_rng(number).normal(size=(20, 3)))
        (folder / "shapenet_pc" / name).unlink()
    names = "\n".join(f"{number:02}-0.npy" for number in range(8))
    for part in ("train", "test"):
        (folder / f"{part}.txt").write_text(names)
    # Eight clouds for three, five and four: three are left.
    parts = [set(each.label.tolist()) for each in _read(folder, clouds=3, labelled=5, part="validation")]
    assert list(map(len, parts)) == [3, 5, 3] and parts[0] < parts[1] and not parts[1] & parts[2]
    more = [set(each.label.tolist()) for each in _read(folder, clouds=5, labelled=3, part="validation")]
    assert not more[0] & more[2], "none that the encoder saw either"
    with pytest.raises(InputError, match="--clouds or --labelled uses all of its 8 training clouds"):
        _read(folder, clouds=3, labelled=8, part="validation")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"width": 6}, "--width is 6; it must be a multiple of 4"),
        ({"mask": 1.0}, "--mask 1 leaves out 10 of 10 patches"),
        ({"mask": 0.05}, "--mask 0.05 leaves out 0 of 10 patches"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        SYSTEM.read(replace(TINY, **changed), "solids", 0)  # type: ignore[arg-type]


def test_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    data, clouds = SYSTEM.read(TINY, "solids", 0), []
    monkeypatch.setattr(
        "degla.systems.pointacl.cases.encode_clouds",
        lambda network, settings, points: clouds.append(points) or SimpleNamespace(features=points.flatten(1)),
    )
    label = data[2].label
    monkeypatch.setattr(
        "degla.systems.pointacl.cases.classify",
        lambda classifier, rows: label if torch.equal(rows, data[2].points.flatten(1)) else torch.zeros_like(label),
    )
    scores = measure(TINY, data, "pointacl", PointNetwork(TINY).state_dict())
    assert scores == {"clean": 1.0, "noise": pytest.approx(0.1), "cut_out": pytest.approx(0.1)}
    labelled, clean, noisy, cut = clouds
    assert torch.equal(labelled, data[1].points) and torch.equal(clean, data[2].points)
    assert 0.045 < float((noisy - clean).std()) < 0.055
    assert len({tuple(point) for point in cut[0].tolist()}) == 24


def test_the_rate_rises_at_once_and_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr(
        "degla.systems.pointacl.cases.take_step",
        lambda loss, optimizer, *, most: rates.append(optimizer.param_groups[0]["lr"]) or optimizer.step(),
    )
    train(replace(TINY, epochs=3, lr=1e-3), SYSTEM.read(TINY, "solids", 0), "point_mae")
    assert len(rates) == 6 and rates[0] == pytest.approx(4e-5) and rates[1] == max(rates) > 9e-4
    assert rates[1:] == sorted(rates[1:], reverse=True) and rates[-1] < 1e-4


def test_a_run_of_one_step() -> None:
    settings = replace(TINY, clouds=4, epochs=1)
    assert train(settings, SYSTEM.read(settings, "solids", 0), "point_mae")


OFF = "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"
NAN = OFF.replace("1 1 0", "nan 1 0")


def test_off_files(tmp_path: Path) -> None:
    file = tmp_path / "one.off"
    for text in (OFF, OFF.replace("OFF\n", "OFF"), "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"):
        file.write_text(text)
        vertices, faces = read_off(file)
        assert vertices.shape == (4, 3) and faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    for text in (
        "PLY\n",
        OFF.replace("OFF", "PLY"),
        OFF[:-8],
        "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 9\n",
        "OFF\nx 1 0\n",
        "",
        NAN,
    ):
        file.write_text(text)
        with pytest.raises(
            InputError, match=r"one.off: not an OFF file, or truncated or damaged \(.*\)\. Download or recreate it"
        ):
            read_off(file)


def _modelnet(folder: Path, text: str = OFF) -> Path:
    for kind in ("chair", "desk"):
        for part in ("train", "test"):
            (folder / kind / part).mkdir(parents=True)
            for number in range(4):
                (folder / kind / part / f"{kind}_{number:04}.off").write_text(OFF)
    (folder / "desk" / "train" / "desk_0002.off").write_text(text)
    return folder


def _read(folder: Path, **changes: object):
    settings = PointaclSettings(**{"clouds": 8, "labelled": 8, "test_clouds": 4, "points": 16} | changes)  # type: ignore[arg-type]
    return read_clouds(settings, str(folder), 0)


def test_modelnet40(tmp_path: Path) -> None:
    unlabelled, labelled, test = _read(_modelnet(tmp_path / "modelnet"))
    assert unlabelled.points.shape == (8, 16, 3) and len(test.label) == 4 and set(labelled.label.tolist()) == {0, 1}
    flat = OFF.replace("1 1 0", "2 0 0").replace("0 1 0", "3 0 0")
    with pytest.raises(InputError, match=r"desk_0002.off: the surface has no area. Fix or remove the file"):
        _read(_modelnet(tmp_path / "flat", flat))


def _shapenet(folder: Path, cloud: np.ndarray) -> Path:
    (folder / "shapenet_pc").mkdir(parents=True)
    names = [f"{kind}-{number}.npy" for kind in ("02691156", "03001627") for number in range(4)]
    for name in names:
        np.save(folder / "shapenet_pc" / name, np.random.default_rng(len(name)).normal(size=(20, 3)))
    np.save(folder / "shapenet_pc" / names[1], cloud)
    for part in ("train", "test"):
        (folder / f"{part}.txt").write_text("\n".join(names) + "\n")
    return folder


def test_shapenet_55_and_bad_clouds(tmp_path: Path) -> None:
    good = np.random.default_rng(0).normal(size=(20, 3))
    assert set(_read(_shapenet(tmp_path / "good", good))[1].label.tolist()) == {0, 1}
    bad = good.copy()
    bad[7, 1] = np.nan
    cases = [
        (bad, r"02691156-1.npy: point 7 is not three finite numbers"),
        (good[:9], r"02691156-1.npy: has 9 points, but --points asks for 16. Lower"),
        (good[:, :2], r"02691156-1.npy: must be rows of x, y, z, got shape \(20, 2\)"),
        (np.full((20, 3), "x"), r"02691156-1.npy: must be rows of numbers"),
    ]
    for number, (cloud, says) in enumerate(cases):
        with pytest.raises(InputError, match=says):
            _read(_shapenet(tmp_path / str(number), cloud))
    folder = _shapenet(tmp_path / "broken", good)
    (folder / "shapenet_pc" / "03001627-2.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"03001627-2.npy: cannot be read as an array"):
        _read(folder)
    folder = _shapenet(tmp_path / "alike", good)
    (folder / "train.txt").write_text("02691156-0.npy\n02691156-2.npy\n")
    with pytest.raises(InputError, match="the clouds have only one class"):
        _read(folder)


def test_scanobjectnn(tmp_path: Path) -> None:
    file = tmp_path / "training_objectdataset.h5"
    file.write_bytes(b"no hdf5")
    h5py = pytest.importorskip("h5py")
    with pytest.raises(InputError, match=r"training_objectdataset.h5: not a ScanObjectNN file"):
        _read(tmp_path)
    for name in ("training", "test"):
        with h5py.File(tmp_path / f"{name}_objectdataset.h5", "w") as stored:
            stored["data"] = np.random.default_rng(0).normal(size=(8, 30, 3))
            stored["label"] = np.arange(8) % 3
    assert set(_read(tmp_path)[1].label.tolist()) == {0, 1, 2}


def test_unknown_data_is_refused(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="not a data set or the folder of one"):
            _read(name)
