"""FREE: features refined, and made for classes never trained on, beside an f-VAEGAN and a control of equal width

Formula:  Over features x in 0 to 1 and semantics a: a VAE-GAN whose generator G(z, a) makes features, and a refiner h
          = lrelu(W1 x), [m, s] = W3 h, e = m + sigmoid(s) noise, a^ = sigmoid(e), taught on real features of seen
          classes by 0.5 mean max(0, D + g ||m - c_y||^2 - (1 - g) ||m - c_y'||^2) (SAMC; c learnt, y' another class)
          and w sum_k d_k^2 / ||d|| |d_k|, d = a^ - a (SCC; of made features, too, for G). Every feature, real or
          made, is then [x; h; a^] for one softmax over all classes. S and U: mean accuracy of seen and unseen
          classes; H = 2 S U / (S + U).
Source:   arXiv 2107.13807 (ICCV 2021); its released code for what the text leaves open.
Differs:  Refined features are without noise when they are scored; the release draws at test time, too. The other
          class of SAMC is never the own one, centres move by the gradient of their own step, SCC's weights have no
          gradient and a right row counts 0 (0 / 0 there). Parts of the release that nothing reads are not here.
          Settings are chosen on `--part validation`, where classes trained on play the unseen ones; the release takes
          the epoch that is best on the test. Defaults are for features of 64 numbers, not 2,048.
Cost:     One step of critic, refiner and generator a batch, each a few matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from degla.pages.page import Figure
from degla.systems.free.clip_features import embed_shapes
from degla.systems.free.data import ZeroShotData, made_features, read_features
from degla.systems.free.losses import Other
from degla.systems.free.picture import draw_features
from degla.systems.free.training import (
    FreeModel,
    FreeSettings,
    classify,
    linear_map,
    nearest_semantics,
    score_rows,
    train_free,
)
from degla.systems.system import Case, Expectation, ScoreColumn, System, Weights

_CHOICES: Final[dict[str, Other]] = {"free_nearest": "nearest"}


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


def _train(settings: FreeSettings, case: Case) -> Weights:
    data = _of(settings, case)
    if case.method in ("linear", "zero_shot"):
        return {}
    return train_free(
        data,
        settings,
        refines=case.method != "f_vaegan",
        trains_refiner=case.method != "width_control",
        choice=_CHOICES.get(case.method, "random"),
    ).state_dict()


def _model(settings: FreeSettings, case: Case, weights: Weights) -> FreeModel:
    model = FreeModel(_of(settings, case), settings.hidden, refines=case.method != "f_vaegan")
    model.load_state_dict(dict(weights))
    return model.eval()


def _measure(settings: FreeSettings, case: Case, weights: Weights) -> Mapping[str, float]:
    data = _of(settings, case)
    if case.method == "zero_shot":
        nearest = nearest_semantics(_plain(settings, case))
        return {} if nearest is None else score_rows(nearest, data)._asdict()
    plain = case.method == "linear"
    found = linear_map(data) if plain else classify(_model(settings, case, weights), data, settings)
    return score_rows(found, data)._asdict()


def _draw(settings: FreeSettings, models: Mapping[Case, Weights]) -> Sequence[Figure]:
    figures = []
    for data in dict.fromkeys(case.data for case in models):
        shown = {case: models[case] for case in models if case.data == data and case.method in ("f_vaegan", "free")}
        if shown:
            made = {case.method: _model(settings, case, weights) for case, weights in shown.items()}
            figures.append(draw_features(made, _of(settings, next(iter(shown)))))
    return figures


SYSTEM: Final = System(
    title="FREE: generalised zero-shot recognition",
    paper="2107.13807",
    settings=FreeSettings(),
    quick=FreeSettings(epochs=60),
    methods=("f_vaegan", "width_control", "free", "free_nearest", "linear", "zero_shot"),
    columns=(
        ScoreColumn("seen", "S: mean accuracy of classes trained on, among all classes."),
        ScoreColumn("unseen", "U: mean accuracy of classes never trained on, among all classes."),
        ScoreColumn("harmonic", "H: 2 S U / (S + U)."),
    ),
    train=_train,
    measure=_measure,
    draw=_draw,
    expected=(
        Expectation("free", "f_vaegan", "harmonic", 0.20, data=("made",)),
        Expectation("free", "width_control", "harmonic", 0.20, data=("made",)),
    ),
)
