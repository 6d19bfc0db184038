"""Ten solids as small meshes, and points drawn evenly from the surface of any mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mesh = tuple[Array, NDArray[np.int64]]
"""Vertices [V, 3] and triangles [T, 3] of their numbers."""

_SEGMENTS: Final = 24


def sample_surface(mesh: Mesh, count: int, chance: np.random.Generator) -> Array:
    """Points [count, 3], even over the area of a mesh.

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
    """Points of a solid that is stretched by chance and turned about the upright axis, each moved a little."""
    points = sample_surface(SOLIDS[kind](), count, chance) * chance.uniform(0.6, 1.4, 3)
    angle = chance.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned: Array = points @ turn.T + chance.normal(0, 0.01, points.shape)
    return turned


def _revolved(profile: Sequence[tuple[float, float]]) -> Mesh:
    """A profile of radius and height, turned about the upright axis."""
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
