"""Labelled point clouds: ten synthetic solids, or published data sets; and their patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from degla.errors import InputError
from degla.pages.words import counted
from degla.parse import decode, read_bytes, read_text
from degla.systems.arrays import reading
from degla.systems.pointacl.settings import PointaclSettings, check_settings

Array = NDArray[np.float64]
Mesh = tuple[Array, NDArray[np.int64]]
"""Vertices [V, 3], and triangles [T, 3] of vertex numbers."""

_SEGMENTS: Final = 24
CloudPoints = Float[Tensor, "batch points 3"]
_INSTALL: Final = "Reading it needs h5py: pip install 'degla[systems]'."
_SAMPLED: Final = 2048
"""Number of points sampled from a mesh, of which a cloud takes some."""


def sample_surface(mesh: Mesh, count: int, chance: np.random.Generator) -> Array:
    """Sample points [count, 3] uniformly over the area of a mesh.

    Raises:
        ValueError: the mesh has no area.
    """
    corners = mesh[0][mesh[1]]
    sides = corners[:, 1:] - corners[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    if not area.sum() > 0:
        raise ValueError("the surface has no area")
    face = chance.choice(len(area), count, p=area / area.sum())
    along = chance.random((count, 2))
    over = along.sum(axis=1) > 1
    along[over] = 1 - along[over]
    points: Array = corners[face, 0] + (sides[face] * along[:, :, None]).sum(axis=1)
    return points


def draw_solid(kind: str, count: int, chance: np.random.Generator) -> Array:
    """Sample points of a solid, randomly stretched and rotated about the vertical axis, each with a little noise."""
    points = sample_surface(SOLIDS[kind](), count, chance) * chance.uniform(0.6, 1.4, 3)
    angle = chance.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    cloud: Array = points @ turn.T + chance.normal(0, 0.01, points.shape)
    return cloud


def _revolved(profile: Sequence[tuple[float, float]]) -> Mesh:
    """Return the mesh of a profile of radius and height, revolved about the vertical axis."""
    angles = np.arange(_SEGMENTS) * 2 * np.pi / _SEGMENTS
    rings = [np.stack([r * np.cos(angles), r * np.sin(angles), np.full(_SEGMENTS, z)], 1) for r, z in profile]
    here = np.arange(_SEGMENTS)
    there = np.roll(here, -1)
    faces = []
    for ring in range(len(profile) - 1):
        low, high = ring * _SEGMENTS, (ring + 1) * _SEGMENTS
        faces += [
            np.stack([low + here, low + there, high + here], 1),
            np.stack([low + there, high + there, high + here], 1),
        ]
    return np.concatenate(rings), np.concatenate(faces)


def _box(size: tuple[float, float, float], middle: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    squares = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in squares for face in ((a, b, c), (a, c, d))]
    return corners * np.array(size) + np.array(middle), np.array(faces)


def _joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [triangles + start for (_, triangles), start in zip(meshes, starts, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces)


def _arc(
    start: float, end: float, *, radius: float = 0.5, at: tuple[float, float] = (0, 0)
) -> list[tuple[float, float]]:
    angles = np.linspace(start, end, 13)
    return [(at[0] + radius * float(np.cos(a)), at[1] + radius * float(np.sin(a))) for a in angles]


_HALF: Final = np.pi / 2

SOLIDS: Final[dict[str, Callable[[], Mesh]]] = {
    "box": lambda: _box((1, 1, 1)),
    "cylinder": lambda: _revolved([(0, -0.5), (0.5, -0.5), (0.5, 0.5), (0, 0.5)]),
    "cone": lambda: _revolved([(0, -0.5), (0.5, -0.5), (0, 0.5)]),
    "ellipsoid": lambda: _revolved(_arc(-_HALF, _HALF)),
    "torus": lambda: _revolved(_arc(0, 4 * _HALF, radius=0.17, at=(0.4, 0))),
    "capsule": lambda: _revolved([*_arc(-_HALF, 0, radius=0.3, at=(0, -0.35)),
                                 *_arc(0, _HALF, radius=0.3, at=(0, 0.35))]),
    "annulus": lambda: _revolved([(0.3, -0.15), (0.5, -0.15), (0.5, 0.15), (0.3, 0.15), (0.3, -0.15)]),
    "cross": lambda: _joined(_box((1, 0.25, 0.25)), _box((0.25, 1, 0.25)), _box((0.25, 0.25, 1))),
    "table": lambda: _joined(_box((1, 1, 0.12), (0, 0, 0.4)),
                             *(_box((0.12, 0.12, 0.8), (x, y, -0.06)) for x in (-0.4, 0.4) for y in (-0.4, 0.4))),
    "lollipop": lambda: _joined(_revolved(_arc(-_HALF, _HALF, radius=0.3, at=(0, 0.35))),
                                _revolved([(0, -0.7), (0.07, -0.7), (0.07, 0.1), (0, 0.1)])),
}  # fmt: skip


@dataclass(frozen=True)
class Clouds:
    """Clouds in the unit ball around 0, with their class numbers."""

    points: CloudPoints
    label: Int[Tensor, " batch"]


CloudSets = tuple[Clouds, Clouds, Clouds]
"""Clouds to train on, whose labels are not read, labelled ones for the linear classifier, and test clouds."""


@dataclass(frozen=True)
class _CloudPool:
    """Clouds to draw from: a name (for messages) and a class of each, and a function that reads one."""

    names: Sequence[str]
    label: Sequence[int]
    read: Callable[[int, np.random.Generator], NDArray[Any]]


@lru_cache(maxsize=2)
def read_clouds(settings: PointaclSettings, data: str, seed: int) -> CloudSets:
    """Return unlabelled training clouds, labelled ones and test clouds, drawn with the seed.

    For the part "validation", the third are other training clouds, as many as remain up to their number.

    Raises:
        InputError: settings cannot be combined; the name or folder is unknown; files are missing or damaged; a cloud
            has too few points or one that is not finite; or there is only one class.
    """
    check_settings(settings)
    train, test = _cloud_pools(data)
    chooses = settings.part == "validation"
    counts = (settings.clouds, settings.labelled, settings.test_clouds)
    if data == "solids":
        numbers = [range(sum(counts[:which]), sum(counts[: which + 1])) for which in range(3)]
        parts = [(train, [number % len(train.label) for number in each]) for each in numbers]
    else:
        order = np.random.default_rng(seed).permutation(len(train.label)).tolist()
        unlabelled = order[: counts[0]]
        # The classifier may see clouds that the encoder saw without their labels, as in the published protocol.
        validation = order[max(counts[:2]) :][: counts[2]] if chooses else []
        if chooses and not validation:
            raise InputError(
                f"{data}: --clouds or --labelled uses all of its {counted(len(order), 'training cloud')}. Lower both "
                "for --part validation."
            )
        tested = np.random.default_rng([seed, 1]).permutation(len(test.label))[: counts[2]].tolist()
        last = (train, validation) if chooses else (test, tested)
        parts = [(train, unlabelled), (train, order[: counts[1]]), last]
    draws = (0, 1, 3 if chooses else 2)
    cloud_sets = [
        _read(pool, places, settings.points, np.random.default_rng([seed, 2, draw]))
        for draw, (pool, places) in zip(draws, parts, strict=True)
    ]
    for part in cloud_sets[1:]:
        if len(set(part.label.tolist())) < 2:
            raise InputError(f"{data}: the clouds have only one class; two or more are needed.")
    return cloud_sets[0], cloud_sets[1], cloud_sets[2]


def _read(pool: _CloudPool, places: Sequence[int], count: int, chance: np.random.Generator) -> Clouds:
    clouds = []
    for place in places:
        try:
            points = np.asarray(pool.read(place, chance), dtype=np.float64)
        except (ValueError, TypeError):
            raise InputError(f"{pool.names[place]}: must be rows of numbers. Fix or remove the file.") from None
        if points.ndim != 2 or points.shape[1] < 3:
            raise InputError(f"{pool.names[place]}: must be rows of x, y, z, got shape {points.shape}.")
        if not np.isfinite(points[:, :3]).all():
            row = int(np.flatnonzero(~np.isfinite(points[:, :3]).all(axis=1))[0])
            raise InputError(f"{pool.names[place]}: point {row} is not three finite numbers. Fix or remove the file.")
        if len(points) < count:
            raise InputError(
                f"{pool.names[place]}: has {counted(len(points), 'point')}, but --points asks for {count}. Lower "
                "--points, or omit it."
            )
        clouds.append(points[chance.permutation(len(points))[:count], :3])
    stacked = np.stack(clouds) if clouds else np.zeros((0, count, 3))
    stacked -= stacked.mean(axis=1, keepdims=True)
    stacked /= np.linalg.norm(stacked, axis=2).max(axis=1, initial=1e-9)[:, None, None]
    label = torch.tensor([pool.label[place] for place in places], dtype=torch.long)
    return Clouds(torch.from_numpy(stacked).float(), label)


def _cloud_pools(name: str) -> tuple[_CloudPool, _CloudPool]:
    if name == "solids":
        kinds = list(SOLIDS)
        # One place per class; the generator makes each draw of it different.
        pool = _CloudPool(
            kinds, range(len(kinds)), lambda place, chance: draw_solid(kinds[place], _SAMPLED // 4, chance)
        )
        return pool, pool
    folder = Path(name)
    if (folder / "training_objectdataset.h5").is_file():
        return _scanobject(folder / "training_objectdataset.h5"), _scanobject(folder / "test_objectdataset.h5")
    if (folder / "shapenet_pc").is_dir():
        return _shapenet(folder, "train"), _shapenet(folder, "test")
    kinds = sorted(path.name for path in folder.iterdir() if (path / "train").is_dir()) if folder.is_dir() else []
    if len(kinds) > 1:
        return _modelnet(folder, kinds, "train"), _modelnet(folder, kinds, "test")
    raise InputError(
        f"{name}: not a data set or the folder of one. Known: solids; or a folder of ModelNet40 (CLASS/train/*.off, "
        "CLASS/test/*.off), of ScanObjectNN (training_objectdataset.h5, test_objectdataset.h5), or of ShapeNet-55 "
        "(train.txt, test.txt, shapenet_pc/*.npy)."
    )


def _modelnet(folder: Path, kinds: Sequence[str], part: str) -> _CloudPool:
    files = [
        (path, number) for number, kind in enumerate(kinds) for path in sorted((folder / kind / part).glob("*.off"))
    ]
    if not files:
        raise InputError(f"{folder}: no CLASS/{part}/*.off found. Download ModelNet40 again.")
    return _CloudPool(
        [str(path) for path, _ in files],
        [number for _, number in files],
        lambda place, chance: _sampled(files[place][0], chance),
    )


def _sampled(file: Path, chance: np.random.Generator) -> NDArray[np.float64]:
    try:
        return sample_surface(read_off(file), _SAMPLED, chance)
    except ValueError as error:
        raise InputError(f"{file}: {error}. Fix or remove the file.") from None


def read_off(file: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read vertices and triangles of an OFF file; some of ModelNet40's have the counts in the first line.

    Raises:
        InputError: it cannot be read, or is truncated or damaged.
    """
    words = decode(read_bytes(file), where=str(file)).split()
    with reading(file, "not an OFF file, or truncated or damaged", ValueError, IndexError, OverflowError):
        if not words[0].startswith("OFF"):
            raise ValueError("does not begin with OFF")
        words = [words[0][3:], *words[1:]] if len(words[0]) > 3 else words[1:]
        count, faces, place = int(words[0]), int(words[1]), 3
        vertices = np.array(words[place : place + 3 * count], dtype=np.float64).reshape(count, 3)
        wrong = ~np.isfinite(vertices).all(axis=1)
        if wrong.any():
            raise ValueError(f"vertex {int(wrong.argmax())} is not three finite numbers")
        place += 3 * count
        triangles = []
        for _ in range(faces):
            corners = list(map(int, words[place + 1 : place + 1 + int(words[place])]))
            place += 1 + int(words[place])
            triangles += [(corners[0], b, c) for b, c in pairwise(corners[1:])]
        vertex_numbers = np.array(triangles, dtype=np.int64).reshape(-1, 3)
        if vertex_numbers.size and not 0 <= vertex_numbers.min() <= vertex_numbers.max() < count:
            raise ValueError("a face refers to a vertex that does not exist")
    return vertices, vertex_numbers


def _scanobject(file: Path) -> _CloudPool:
    try:
        import h5py
    except ImportError:
        raise InputError(f"{file}: {_INSTALL}") from None
    with reading(file, "not a ScanObjectNN file", OSError, KeyError, ValueError), h5py.File(file) as arrays:
        points, label = np.asarray(arrays["data"]), np.asarray(arrays["label"]).astype(int).ravel()
    if len(points) != len(label):
        raise InputError(f"{file}: {counted(len(points), 'cloud')}, {counted(len(label), 'label')}. Download it again.")
    return _CloudPool(
        [f"{file} cloud {place}" for place in range(len(label))], label.tolist(), lambda place, chance: points[place]
    )


def _shapenet(folder: Path, part: str) -> _CloudPool:
    """Read ShapeNet; the class is the part of a file name before the first "-"."""
    names = read_text(folder / f"{part}.txt").split()
    if not names:
        raise InputError(f"{folder / f'{part}.txt'}: lists no files. Download ShapeNet-55 again.")
    everything = {*names, *read_text(folder / "train.txt").split()}
    kinds = sorted({name.partition("-")[0] for name in everything})

    def read(place: int, chance: np.random.Generator) -> NDArray[Any]:
        file = folder / "shapenet_pc" / names[place]
        with reading(file, "cannot be read as an array", OSError, ValueError, EOFError):
            return np.asarray(np.load(file, allow_pickle=False))

    paths = [str(folder / "shapenet_pc" / name) for name in names]
    return _CloudPool(paths, [kinds.index(name.partition("-")[0]) for name in names], read)


def farthest(points: CloudPoints, count: int) -> Int[Tensor, "batch count"]:
    """Return the indices of `count` points by farthest point sampling, starting from point 0."""
    nearest = torch.full(points.shape[:2], torch.inf)
    indices = torch.zeros(len(points), count, dtype=torch.long)
    rows = torch.arange(len(points))
    for place in range(1, count):
        gap = (points - points[rows, indices[:, place - 1]][:, None]).square().sum(dim=2)
        nearest = torch.minimum(nearest, gap)
        indices[:, place] = nearest.argmax(dim=1)
    return indices


def patches_of(
    points: CloudPoints, *, patches: int, size: int
) -> tuple[CloudPoints, Float[Tensor, "batch patches size 3"]]:
    """Return centres by farthest point sampling, and the nearest points of each, relative to it.

    Raises:
        InputError: a cloud has too few points.
    """
    if points.shape[1] < max(patches, size):
        raise InputError(f"--points is {points.shape[1]}; it must be at least --patches and --patch-points.")
    centres = points.gather(1, farthest(points, patches)[:, :, None].expand(-1, -1, 3))
    near = torch.cdist(centres, points).topk(size, dim=2, largest=False).indices
    rows = torch.arange(len(points))[:, None, None]
    return centres, points[rows, near] - centres[:, :, None]
