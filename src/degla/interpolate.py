"""The way from a model to the one it was fine-tuned to: every average of the two is measured, the best one is kept.

Averages of weights often gain most of what fine-tuning gained and lose much less of what it lost (WiSE-FT, arXiv
2109.01903).
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.caveats import trained_on
from degla.evaluation.choice import Point, Sweep, choose
from degla.evaluation.neutral import find_floors
from degla.evaluation.overlap import training_images
from degla.evaluation.questions import ask
from degla.evaluation.report import find_row, report
from degla.evaluation.results import save_result
from degla.evaluation.run import evaluate
from degla.evaluation.terminal import named_scores
from degla.files import write_json, write_text
from degla.model.average import average_weights, check_alike
from degla.model.checkpoint import save_encoder, written_whole
from degla.model.load import load_encoder
from degla.records import ImageReading
from degla.results import Result
from degla.shelf import BENCHMARKS, did_you_mean

if TYPE_CHECKING:
    from degla.evaluation.embedding_table import Cache

log = logging.getLogger(__name__)

CHOSEN = "chosen"
"""Name of the chosen checkpoint's folder."""
_NOTE_NAME = "interpolation.json"


def interpolate(
    base: str,
    tuned: str,
    *,
    alphas: Sequence[float],
    benchmarks: Sequence[str],
    root: Path,
    out: Path,
    gain: str = "composition",
    kept: str = "recognition",
    keep: float | None = None,
    device: str = "cpu",
    seed: int = 0,
    tie: Literal["strict", "half", "lenient"] | None = None,
    allow_missing: bool = False,
    image_reading: ImageReading = "upright",
    cache: Cache | None = None,
    progress: bool = True,
) -> Sweep:
    """Measure averages of two models, report them and write the chosen one as a checkpoint folder.

    Writes under `out`: ``results/alpha-A.json`` with every item's verdict, ``report.html`` and ``report.md``,
    ``frontier.svg``, ``sweep.json`` and ``chosen/``, a folder that open_clip loads.

    Args:
        base: the model before fine-tuning, in any form that `load_encoder` knows.
        tuned: the fine-tuned model.
        alphas: shares of the tuned model, 0 to 1; the base (0) is always measured too.
        benchmarks: names on the shelf.
        root: folder that holds their data.
        out: folder to write to.
        gain: score to raise: a column of the report's first table, a part or a named average; written
            BENCHMARK:NAME it is the one of that benchmark, else of the first benchmark that has it.
        kept: score to keep, named likewise.
        keep: least kept score of the choice, points (percent); None: `choice.POINTS_TO_LOSE` below the base's own.
        device: where to compute.
        seed: of the bootstrap behind the intervals.
        tie: tie rule; None: each benchmark's own.
        allow_missing: score what is there where images are missing.
        image_reading: how images become pixels, see `data.decoding.decode`.
        cache: embeddings of earlier runs.
        progress: show how far it is on stderr.

    Raises:
        InputError: wrong alphas, names of scores that the benchmarks do not have, models that cannot be averaged, or a
            limit that no average keeps (the results are written all the same).
    """
    shares = _checked_alphas(alphas)
    if keep is not None and not 0 <= keep <= 100:
        raise InputError(f"--keep is {keep:g}; it is a score in points, 0 to 100.")
    _check_names(benchmarks, root, (gain, kept), allow_missing=allow_missing, cache=cache)
    first, second = load_encoder(base, device=device), load_encoder(tuned, device=device)
    check_alike(first, second)
    _remove_earlier(out)
    points = []
    own, trained = training_images(base), training_images(tuned)
    leakage = None
    for share in shares:
        file = out / "results" / f"alpha-{share:g}.json"
        result = evaluate(
            average_weights(first, second, share=share),
            benchmarks=benchmarks,
            root=root,
            seed=seed,
            tie=tie,
            allow_missing=allow_missing,
            image_reading=image_reading,
            label=_label(share),
            # Every average holds something of the tuned model.
            training=trained if share else own,
            progress=progress,
            cache=cache,
        )
        save_result(result, file)
        leakage = result.leakage or leakage
        scores = scores_of(result)
        _refuse_unknown((gain, kept), list(scores))
        points.append(Point(share, scores[gain], scores[kept], file))
        log.info("alpha %g: %s %.1f, %s %.1f", share, gain, 100 * scores[gain], kept, 100 * scores[kept])
    files = [point.file for point in points]
    report(files, out=out / "report.html", baseline=_label(0), weighed=(gain, kept))
    sweep = choose(points, gain=gain, kept=kept, keep=keep)
    titles = {entry.name: entry.title for entry in result.benchmarks}
    sweep = replace(sweep, warnings=tuple(trained_on("the tuned model and its averages", leakage, titles)))
    write_text(out / "frontier.svg", _draw(sweep))
    write_json(out / "sweep.json", sweep.plain())
    with written_whole(out / CHOSEN) as folder:
        save_encoder(average_weights(first, second, share=sweep.chosen.alpha), folder)
        note = {"base": base, "tuned": tuned, "benchmarks": list(benchmarks), **sweep.plain()}
        write_json(folder / _NOTE_NAME, note)
    return sweep


def scores_of(result: Result) -> dict[str, float]:
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
    """Take away what an earlier sweep chose: if this one ends early, it must not pass for this one's."""
    folder = out / CHOSEN
    if (folder / _NOTE_NAME).is_file():
        shutil.rmtree(folder)
    elif folder.exists():
        raise InputError(f"{folder}: is there and was not made by degla interpolate. Choose another --out.")
    (out / "sweep.json").unlink(missing_ok=True)


def _check_names(
    benchmarks: Sequence[str], root: Path, names: Sequence[str], *, allow_missing: bool, cache: Cache | None
) -> None:
    """Refuse scores that the benchmarks do not have before hours are spent on the first of them."""
    known: dict[str, None] = {}
    for name in dict.fromkeys(benchmarks):
        asked = ask(BENCHMARKS.load(name).BENCHMARK, root, allow_missing=allow_missing)
        benchmark, parts = find_floors(asked.benchmark, asked.kept, cache).benchmark, list(asked.counts)
        own = dict.fromkeys(
            [*_columns(benchmark, parts), *parts, *(average.name for average in benchmark.averages)],
        )
        known |= own | {f"{name}:{score}": None for score in own}
    _refuse_unknown(names, list(known))


def _columns(benchmark: Benchmark, parts: Sequence[str]) -> list[str]:
    averages = {average.name for average in benchmark.averages}
    return [
        column
        for column, source in benchmark.headline.items()
        if source in averages or any(fnmatchcase(part, source) for part in parts)
    ]


def _refuse_unknown(names: Sequence[str], known: Sequence[str]) -> None:
    for flag, name in zip(("--gain", "--kept"), names, strict=True):
        if name not in known:
            plain = [score for score in known if ":" not in score]
            raise InputError(
                f"{flag} {name!r}: the benchmarks have no such part or named average.{did_you_mean(name, known)} "
                f"Known: {', '.join(plain)}."
            )


def _draw(sweep: Sweep) -> str:
    """The frontier of the two scores as a picture of its own."""
    from degla.evaluation.comparison import compare
    from degla.evaluation.plots import frontier

    comparison = compare([point.file for point in sweep.points], baseline=_label(0))
    picture = frontier(find_row(comparison, sweep.gain), find_row(comparison, sweep.kept), comparison)
    # Alone it has no page to take its colours from, and may be shown on a dark one.
    plain = re.sub(r"var\(--(\w+)\)", lambda found: _INKS.get(found[1], "#888888"), picture)
    return plain.replace("<svg ", '<svg style="background:#ffffff" ', 1)


_INKS = {"ink": "#1c2126", "soft": "#7a838c", "rule": "#d8dde2"}
