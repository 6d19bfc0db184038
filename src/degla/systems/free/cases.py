"""Training, evaluation and figures of FREE and its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import torch

from degla.pages.page import Figure
from degla.pages.words import counted
from degla.systems.free.data import ZeroShotData, embed_shapes, made_features, read_features
from degla.systems.free.settings import FreeSettings
from degla.systems.free.training import (
    FreeModel,
    by_prototypes,
    classify,
    linear_map,
    nearest_semantics,
    score_rows,
    train_free,
)
from degla.systems.learning import with_weights
from degla.systems.panels import PanelPoints, panel_figure, two_directions
from degla.systems.system import Weights

_SHOWN: Final = 6
"""Number of classes shown, each with as many generated features as real ones."""


class ZeroShotProblem(NamedTuple):
    """A data set as it is, and scaled for training."""

    plain: ZeroShotData
    scaled: ZeroShotData


@lru_cache(maxsize=4)
def read(settings: FreeSettings, data: str, seed: int) -> ZeroShotProblem:
    """Return features from files, of drawn shapes by a CLIP, or synthetic ones; for choosing settings if validation."""
    if data == "made":
        plain = made_features(seed=seed)
    else:
        plain = embed_shapes(settings.model, seed=seed) if data == "clip" else read_features(Path(data))
    plain = plain.to_choose_by() if settings.part == "validation" else plain
    return ZeroShotProblem(plain, plain.scaled())


def files_beside(settings: FreeSettings, data: str) -> list[Path]:
    """Return the path of the model whose embeddings are the data, unless it ships with the package."""
    from degla.model.load import SHIPPED

    if data != "clip" or settings.model in SHIPPED:
        return []
    return [Path(settings.model.partition(":")[2] or settings.model)]


def _new(settings: FreeSettings, data: ZeroShotProblem, method: str) -> FreeModel:
    return FreeModel(data.scaled, settings.hidden, refines=method != "f_vaegan", residual=method == "residual")


def train(settings: FreeSettings, data: ZeroShotProblem, method: str) -> Weights:
    """Train the generator and refiner of features; nothing for `linear` and `zero_shot`."""
    if method in ("linear", "zero_shot"):
        return {}
    return train_free(
        data.scaled,
        settings,
        model=_new(settings, data, method),
        trains_refiner=method != "width_control",
        choice="nearest" if method in ("free_nearest", "residual") else "random",
    ).state_dict()


def measure(settings: FreeSettings, data: ZeroShotProblem, method: str, weights: Weights) -> Mapping[str, float]:
    """Measure accuracy of seen and unseen classes; none for `zero_shot` if features and semantics differ in size."""
    if method == "zero_shot":
        nearest = nearest_semantics(data.plain)
        return {} if nearest is None else score_rows(nearest, data.scaled)
    if method == "linear":
        return score_rows(linear_map(data.scaled), data.scaled)
    find = by_prototypes if method == "residual" else classify
    model = with_weights(_new(settings, data, method), weights)
    return score_rows(find(model, data.scaled, settings), data.scaled)


def draw(settings: FreeSettings, data: ZeroShotProblem, models: Mapping[str, Weights], name: str) -> Figure | None:
    """Draw a panel for the baseline and one for FREE, one colour per class: dots are real, crosses are generated."""
    trained = {
        method: with_weights(_new(settings, data, method), weights)
        for method, weights in models.items()
        if method in ("f_vaegan", "free")
    }
    if not trained:
        return None
    scaled = data.scaled
    classes = scaled.unseen[:_SHOWN]
    rows = scaled.test_unseen[torch.isin(scaled.label[scaled.test_unseen], classes)]
    real, label = scaled.features[rows], scaled.label[rows]
    middle = real.mean(dim=0)
    directions = two_directions(real - middle)
    semantics = scaled.semantics[label]
    with torch.no_grad():
        generated = {
            method: model.maker.generate(torch.randn_like(semantics), semantics) for method, model in trained.items()
        }
    flat = {method: (each - middle) @ directions for method, each in {"": real, **generated}.items()}
    panels = {method: [PanelPoints(flat[""], size=6), PanelPoints(flat[method], "x", 10)] for method in generated}
    return panel_figure(
        panels,
        [classes.tolist().index(each) for each in label.tolist()],
        f"{scaled.name}: {counted(len(classes), 'unseen class', 'unseen classes')}, one colour each. Dots are real, "
        "crosses are generated.",
        title="Real and generated features, first two principal components of the real ones",
        name=f"features {scaled.name}",
        columns=2,
        shared=True,
    )
