"""Training, measuring and pictures of FREE and its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from degla.pages.page import Figure
from degla.systems.free.clip_features import embed_shapes
from degla.systems.free.data import ZeroShotData, made_features, read_features
from degla.systems.free.losses import Other
from degla.systems.free.picture import draw_features
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
from degla.systems.system import Case, Weights

_CHOICES: Final[dict[str, Other]] = {"free_nearest": "nearest", "residual": "nearest"}


@lru_cache(maxsize=4)
def _data(name: str, model: str, part: str, seed: int) -> ZeroShotData:
    if name == "made":
        data = made_features(seed=seed)
    else:
        data = embed_shapes(model, seed=seed) if name == "clip" else read_features(Path(name))
    return data.to_choose_by() if part == "validation" else data


def _plain(settings: FreeSettings, case: Case) -> ZeroShotData:
    return _data(case.data, settings.model, settings.part, case.seed)


def _of(settings: FreeSettings, case: Case) -> ZeroShotData:
    return _plain(settings, case).scaled()


def train(settings: FreeSettings, case: Case) -> Weights:
    """What makes features, and refines them; nothing for `linear` and `zero_shot`."""
    if case.method in ("linear", "zero_shot"):
        return {}
    return train_free(
        _of(settings, case),
        settings,
        model=_new(settings, case),
        trains_refiner=case.method != "width_control",
        choice=_CHOICES.get(case.method, "random"),
    ).state_dict()


def _new(settings: FreeSettings, case: Case) -> FreeModel:
    residual = case.method == "residual"
    return FreeModel(_of(settings, case), settings.hidden, refines=case.method != "f_vaegan", residual=residual)


def _model(settings: FreeSettings, case: Case, weights: Weights) -> FreeModel:
    model = _new(settings, case)
    model.load_state_dict(dict(weights))
    return model.eval()


def measure(settings: FreeSettings, case: Case, weights: Weights) -> Mapping[str, float]:
    """Accuracy of seen and unseen classes; nothing for `zero_shot` where features and semantics differ in size."""
    data = _of(settings, case)
    if case.method == "zero_shot":
        nearest = nearest_semantics(_plain(settings, case))
        return {} if nearest is None else score_rows(nearest, data)._asdict()
    if case.method == "linear":
        return score_rows(linear_map(data), data)._asdict()
    find = by_prototypes if case.method == "residual" else classify
    return score_rows(find(_model(settings, case, weights), data, settings), data)._asdict()


def draw(settings: FreeSettings, models: Mapping[Case, Weights]) -> Figure | None:
    """Real and made features of classes never trained on, by the baseline and by FREE."""
    shown = {case: weights for case, weights in models.items() if case.method in ("f_vaegan", "free")}
    if not shown:
        return None
    made = {case.method: _model(settings, case, weights) for case, weights in shown.items()}
    return draw_features(made, _of(settings, next(iter(shown))))
