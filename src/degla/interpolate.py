"""The way from a model to the one it was fine-tuned to: every average of the two is measured, the best one is kept.

Averages of weights often gain most of what fine-tuning gained and lose much less of what it lost (WiSE-FT, arXiv
2109.01903).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.caveats import trained_on
from degla.evaluation.choice import Point, Sweep, choose, require_score
from degla.evaluation.neutral import find_floors, score_names
from degla.evaluation.overlap import training_images
from degla.evaluation.plots import find_row
from degla.evaluation.report import report
from degla.evaluation.results import save_result
from degla.evaluation.run import Evaluation
from degla.evaluation.terminal import named_scores
from degla.files import write_json, write_text
from degla.model.checkpoint import average_weights, check_alike, save_encoder, written_whole
from degla.model.load import load_encoder
from degla.pages.plot import standing_alone
from degla.results import Result

log = logging.getLogger(__name__)

CHOSEN = "chosen"
"""Name of the chosen checkpoint's folder."""
_NOTE_NAME = "interpolation.json"


@dataclass(frozen=True)
class Goal:
    """What the choice looks at.

    Attributes:
        gain: score to raise: a column of the report's first table, a part or a named average; written
            BENCHMARK:NAME it is the one of that benchmark, else of the first benchmark that has it.
        kept: score to keep, named likewise.
        keep: least kept score, points (percent); None: `choice.POINTS_TO_LOSE` below the base's own.
    """

    gain: str = "composition"
    kept: str = "recognition"
    keep: float | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 100:
            raise InputError(f"--keep is {self.keep:g}; it is a score in points, 0 to 100.")


def interpolate(
    base: str,
    tuned: str,
    evaluation: Evaluation,
    *,
    alphas: Sequence[float],
    out: Path,
    goal: Goal | None = None,
    device: str = "cpu",
) -> Sweep:
    """Measure averages of two models, report them and write the chosen one as a checkpoint folder.

    Writes under `out`: ``results/alpha-A.json`` with every item's verdict, ``report.html`` and ``report.md``,
    ``frontier.svg``, ``sweep.json`` and ``chosen/``, a folder that open_clip loads.

    Args:
        base: the model before fine-tuning, in any form that `load_encoder` knows.
        tuned: the fine-tuned model.
        evaluation: what to ask, and how.
        alphas: shares of the tuned model, 0 to 1; the base (0) is always measured too.
        out: folder to write to.
        goal: what to choose by.
        device: where to compute.

    Raises:
        InputError: wrong alphas, names of scores that the benchmarks do not have, models that cannot be averaged, or a
            limit that no average keeps (the results are written all the same).
    """
    goal = goal or Goal()
    shares = _checked_alphas(alphas)
    _check_names(evaluation, goal)
    first, second = load_encoder(base, device=device), load_encoder(tuned, device=device)
    check_alike(first, second)
    _remove_earlier(out)
    points = []
    own, trained = training_images(base), training_images(tuned)
    leakage = None
    for share in shares:
        file = out / "results" / f"alpha-{share:g}.json"
        model = average_weights(first, second, share=share)
        # Every average holds something of the tuned model.
        result = evaluation.score(model, label=_label(share), training=trained if share else own)
        save_result(result, file)
        leakage = result.leakage or leakage
        scores = scores_by_name(result)
        _require(goal, scores)
        points.append(Point(share, scores[goal.gain], scores[goal.kept], file))
        log.info(
            "alpha %g: %s %.1f, %s %.1f", share, goal.gain, 100 * scores[goal.gain], goal.kept, 100 * scores[goal.kept]
        )
    report(
        [point.file for point in points], out=out / "report.html", baseline=_label(0), weighed=(goal.gain, goal.kept)
    )
    sweep = choose(points, gain=goal.gain, kept=goal.kept, keep=goal.keep)
    titles = {entry.name: entry.title for entry in result.benchmarks}
    sweep = replace(sweep, warnings=tuple(trained_on("the tuned model and its averages", leakage, titles)))
    write_text(out / "frontier.svg", _draw(sweep))
    write_json(out / "sweep.json", sweep.plain())
    with written_whole(out / CHOSEN) as folder:
        save_encoder(average_weights(first, second, share=sweep.chosen.alpha), folder)
        note = {"base": base, "tuned": tuned, "benchmarks": list(evaluation.benchmarks), **sweep.plain()}
        write_json(folder / _NOTE_NAME, note)
    return sweep


def scores_by_name(result: Result) -> dict[str, float]:
    """A result's scores by name, 0 to 1, as `named_scores`, and each as BENCHMARK:NAME too."""
    scores = named_scores(result)
    for benchmark in result.benchmarks:
        own = named_scores(result.model_copy(update={"benchmarks": (benchmark,)}))
        scores |= {f"{benchmark.name}:{name}": value for name, value in own.items()}
    return scores


def _label(share: float) -> str:
    return {0.0: "base", 1.0: "tuned"}.get(share, f"alpha {share:g}")


def _checked_alphas(alphas: Sequence[float]) -> list[float]:
    if not alphas:
        raise InputError("no alpha was given. Give shares of the tuned model: --alphas 0 0.25 0.5 0.75 1.")
    for alpha in alphas:
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha {alpha:g}: a share of the tuned model lies between 0 and 1.")
    if 0 not in alphas:
        log.info("alpha 0, the base, is measured too: gains and losses are counted from it.")
    shares = sorted({0.0, *map(float, alphas)})
    names = [f"{share:g}" for share in shares]
    if len(set(names)) < len(names):
        raise InputError("two alphas are the same in six digits; give each once.")
    return shares


def _remove_earlier(out: Path) -> None:
    """Take away what an earlier sweep measured and chose: it must not pass for this one's, nor stand among it."""
    folder = out / CHOSEN
    if (folder / _NOTE_NAME).is_file():
        shutil.rmtree(folder)
    elif folder.exists():
        raise InputError(f"{folder}: is there and was not made by degla interpolate. Choose another --out.")
    (out / "sweep.json").unlink(missing_ok=True)
    for file in (out / "results").glob("alpha-*.json*"):
        file.unlink()


def _check_names(evaluation: Evaluation, goal: Goal) -> None:
    """Refuse scores that the benchmarks do not have before hours are spent on the first of them."""
    names: list[str] = []
    for asked in evaluation.asked:
        benchmark = find_floors(asked.benchmark, asked.kept, evaluation.cache).benchmark
        own = score_names(benchmark, asked.counts)
        names += [*own, *(f"{benchmark.name}:{score}" for score in own)]
    _require(goal, dict.fromkeys(names))


def _require(goal: Goal, known: Collection[str]) -> None:
    for flag, name in (("--gain", goal.gain), ("--kept", goal.kept)):
        require_score(flag, name, known)


def _draw(sweep: Sweep) -> str:
    """The frontier of the two scores as a picture of its own."""
    from degla.evaluation.comparison import compare
    from degla.evaluation.plots import frontier

    comparison = compare([point.file for point in sweep.points], baseline=_label(0))
    picture = frontier(find_row(comparison, sweep.gain), find_row(comparison, sweep.kept), comparison)
    # It may be shown on a dark page.
    return standing_alone(picture).replace("<svg ", '<svg style="background:#ffffff" ', 1)
