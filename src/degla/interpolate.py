"""Weight averages of a model and its fine-tuned version: evaluate each and keep the best.

Such averages often keep most of the gain from fine-tuning and lose much less elsewhere (WiSE-FT, arXiv 2109.01903).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.caveats import of_training, other_base
from degla.evaluation.choice import Point, Sweep, choose, require_score
from degla.evaluation.neutral import find_floors, score_names
from degla.evaluation.overlap import joined_images, training_images
from degla.evaluation.plots import find_row
from degla.evaluation.report import report, require_own_markdown
from degla.evaluation.results import save_result
from degla.evaluation.run import Evaluation
from degla.evaluation.terminal import named_scores
from degla.evaluation.trainings import joined_trainings, trainings_of
from degla.files import require_writable, write_json, write_text
from degla.model.checkpoint import average_weights, check_alike, save_encoder, written_whole
from degla.model.load import load_encoder
from degla.pages.plot import standalone_picture
from degla.passwords import without_passwords
from degla.results import Result

log = logging.getLogger(__name__)

CHOSEN = "chosen"
"""Name of the chosen checkpoint's folder."""
_NOTE_NAME = "interpolation.json"


@dataclass(frozen=True)
class Goal:
    """Criteria for choosing an average.

    Attributes:
        gain: score to maximise: a column of the report's first table, a part or a named average. BENCHMARK:NAME selects
            that benchmark, otherwise the first one that has the score is used.
        kept: score to preserve, named likewise.
        keep: lowest acceptable `kept` in percent; None: `choice.POINTS_TO_LOSE` below the base model's.
    """

    gain: str = "composition"
    kept: str = "recognition"
    keep: float | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 100:
            raise InputError(f"--keep is {self.keep:g}; it must be a score in percent, 0 to 100.")


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
    """Evaluate averages of two models, write a report, and save the chosen average as a checkpoint folder.

    Writes to `out`: ``results/alpha-A.json`` with every item's verdict, ``report.html`` and ``report.md``,
    ``frontier.svg``, ``sweep.json`` and ``chosen/``, a folder that open_clip can load.

    Args:
        base: the model before fine-tuning, any name that `load_encoder` accepts.
        tuned: the fine-tuned model.
        evaluation: benchmarks and settings.
        alphas: shares of the tuned weights, 0 to 1; the base (0) is always included.
        out: output folder.
        goal: criteria for the choice.
        device: device to compute on.

    Raises:
        InputError: alphas are wrong, the benchmarks do not have a named score, the models cannot be averaged, or no
            average reaches the limit (the results are written anyway).
    """
    goal = goal or Goal()
    shares = checked_alphas(alphas)
    _check_names(evaluation, goal)
    require_writable(out / "sweep.json")
    require_own_markdown(out / "report.html")
    first, second = load_encoder(base, device=device), load_encoder(tuned, device=device)
    check_alike(first, second)
    _remove_earlier(out)
    points = []
    trainings = {name: trainings_of(name) for name in (base, tuned)}
    images = {name: training_images(name, known) for name, known in trainings.items()}
    warnings: list[str] = []
    if (start := trainings[base].last) and start.base == second.fingerprint:
        one, other = without_passwords(base), without_passwords(tuned)
        warnings.append(f"the base ({one}) was fine-tuned from the tuned model ({other}). Are the two swapped?")
        log.warning("%s", warnings[0])  # Before hours are spent on evaluation.
    leakage = None
    for share in shares:
        file = out / "results" / f"alpha-{share:g}.json"
        model = average_weights(first, second, share=share)
        seen = [found for name in _within(base, tuned, share) if (found := images[name]) is not None]
        result = evaluation.score(model, label=_label(share), training=joined_images(seen) if seen else None)
        save_result(result, file)
        leakage = result.leakage or leakage
        scores = scores_by_name(result)
        points.append(Point(share, scores[goal.gain], scores[goal.kept], file))
        log.info(
            "alpha %g: %s %.1f, %s %.1f", share, goal.gain, 100 * scores[goal.gain], goal.kept, 100 * scores[goal.kept]
        )
    report(
        [point.file for point in points], out=out / "report.html", baseline=_label(0), weighed=(goal.gain, goal.kept)
    )
    sweep = choose(points, gain=goal.gain, kept=goal.kept, keep=goal.keep)
    titles = {entry.name: entry.title for entry in result.benchmarks}
    warnings += of_training("the tuned model and its averages", leakage, titles)
    last = trainings[tuned].last
    if last and last.model == base and last.base not in (None, first.fingerprint):
        warnings.append(other_base("the tuned model", without_passwords(base), "base"))
    sweep = replace(sweep, warnings=tuple(warnings))
    write_text(out / "frontier.svg", _draw(sweep))
    write_json(out / "sweep.json", sweep.plain())
    with written_whole(out / CHOSEN) as folder:
        share = sweep.chosen.alpha
        save_encoder(average_weights(first, second, share=share), folder)
        joined_trainings(trainings[name] for name in _within(base, tuned, share)).write(folder)
        note = {"base": base, "tuned": tuned, "benchmarks": list(evaluation.benchmarks), **sweep.plain()}
        write_json(folder / _NOTE_NAME, note)
    return sweep


def _within(base: str, tuned: str, share: float) -> list[str]:
    """Return which of two models an average contains."""
    return [name for name, part in ((tuned, share), (base, 1 - share)) if part]


def scores_by_name(result: Result) -> dict[str, float]:
    """Return a result's scores by name, 0 to 1, as `named_scores` and also as BENCHMARK:NAME."""
    scores = named_scores(result)
    for benchmark in result.benchmarks:
        own = named_scores(result.model_copy(update={"benchmarks": (benchmark,)}))
        scores |= {f"{benchmark.name}:{name}": value for name, value in own.items()}
    return scores


def _label(share: float) -> str:
    return {0.0: "base", 1.0: "tuned"}.get(share, f"alpha {share:g}")


def checked_alphas(alphas: Sequence[float]) -> list[float]:
    """Return the shares in ascending order, with the base's 0.

    Raises:
        InputError: there is none, one is not from 0 to 1, or two are equal to six digits.
    """
    if not alphas:
        raise InputError("no alphas: give shares of the tuned weights, such as --alphas 0 0.25 0.5 0.75 1.")
    for alpha in alphas:
        if not 0 <= alpha <= 1:
            raise InputError(f"--alphas is {alpha:g}; each must be from 0 to 1, the share of the tuned weights.")
    if 0 not in alphas:
        log.info("alpha 0, the base model, is evaluated too, as the baseline for gains and losses.")
    shares = sorted({0.0, *map(float, alphas)})
    names = [f"{share:g}" for share in shares]
    if len(set(names)) < len(names):
        raise InputError("two alphas are equal to six digits. Give each only once.")
    return shares


def _remove_earlier(out: Path) -> None:
    """Remove the results and chosen model of an earlier sweep, so that they do not mix with those of this one."""
    folder = out / CHOSEN
    if (folder / _NOTE_NAME).is_file():
        shutil.rmtree(folder)
    elif folder.exists():
        raise InputError(f"{folder}: already exists and was not made by degla interpolate. Choose another --out.")
    (out / "sweep.json").unlink(missing_ok=True)
    for file in (out / "results").glob("alpha-*.json*"):
        file.unlink()


def _check_names(evaluation: Evaluation, goal: Goal) -> None:
    """Check that the benchmarks have the named scores, before hours are spent on evaluation."""
    names: list[str] = []
    for questions in evaluation.all_questions:
        benchmark = find_floors(questions.benchmark, questions.passing, evaluation.cache, tie=evaluation.tie).benchmark
        own = score_names(benchmark, questions.counts)
        names += [*own, *(f"{benchmark.name}:{score}" for score in own)]
    for flag, name in (("--gain", goal.gain), ("--kept", goal.kept)):
        require_score(flag, name, dict.fromkeys(names))


def _draw(sweep: Sweep) -> str:
    """Draw the frontier of the two scores as a standalone image."""
    from degla.evaluation.comparison import compare
    from degla.evaluation.plots import frontier

    comparison = compare([point.file for point in sweep.points], baseline=_label(0))
    return standalone_picture(frontier(find_row(comparison, sweep.gain), find_row(comparison, sweep.kept), comparison))
