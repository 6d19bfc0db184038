"""Shared parts of both demos: the recipes compared, their parallel runs, and what each run gained and lost."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final

from degla.allowance import usable_cores
from degla.config.run import TrainConfig
from degla.config.sections import CheckpointConfig, TrackingConfig
from degla.data.sources import read_captions
from degla.errors import DeglaError, InputError
from degla.evaluation.choice import trade_off
from degla.evaluation.report import report
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.locks import Lock, lock
from degla.negatives.generate import NegativesSettings, WordSource, generate
from degla.negatives.run.summary import Summary
from degla.pages.words import points
from degla.shelf import PUBLISHED_RULES
from degla.stopping import StoppedError
from degla.study.conduct import DRAWN as DRAWN
from degla.study.conduct import LINK as LINK
from degla.study.conduct import is_demo, run_chains
from degla.study.jobs import ChainResult, Job, Measure, StudyQuestions
from degla.study.materials import CurrentQuestions
from degla.study.standings import BASE
from degla.study.workers import Ended

log = logging.getLogger("degla.demo")

RULES = PUBLISHED_RULES
METHODS: dict[str, float | None] = {"degla_plus": None, "degla": 0.7, "ce_clip": None, "negclip": 0.5, "clip": None}
"""Recipes to compare, from elaborate to plain, with the share of the tuned weights in a weight average that is also
evaluated."""
RATE = 4e-4
"""Learning rate for the world's model of a few million parameters, instead of a recipe's 1e-6 for a full-size one."""


PROCESSES = usable_cores()
"""Processes for the rules and for parallel runs: one per CPU."""


def demo_config(recipe: TrainConfig, *, steps: int, seed: int, model: str = "world", rate: float = RATE) -> TrainConfig:
    """Scale a recipe to an embedded model: same losses and weights, a short run with a high learning rate.

    Learning rates keep their ratios; batches have 32 pairs with 5 negatives each. The teacher's decay is the paper's.
    """
    return replace(
        recipe,
        model=model,
        data=replace(recipe.data, negatives_per_caption=5 if recipe.data.negatives_per_caption else 0),
        optim=replace(
            recipe.optim, lr=rate * (recipe.optim.lr / 1e-6), warmup_steps=20, weight_decay=0.1, clip_norm=1.0
        ),
        train=replace(recipe.train, batch_size=32, steps=steps, seed=seed),
        checkpoint=CheckpointConfig(every_minutes=0, keep=1),
        tracking=TrackingConfig(every_steps=10, progress=False),
    )


def base_job(model: str, benchmarks: tuple[str, ...], *, root: Path, out: Path) -> Job:
    """Return the job that evaluates a demo's base model; the methods are evaluated on the same questions."""
    measures, questions = (Measure(BASE, 1.0, out / "results" / "base-0.json"),), StudyQuestions(benchmarks, root, "")
    return Job(label=BASE, base=model, config=None, inputs={}, measures=measures, questions=questions, resume=False)


def compare_methods(
    base: Job, configure: Callable[[str, int], TrainConfig], *, methods: Mapping[str, float | None], seeds: int,
    out: Path, folder_lock: Lock, kept: str = "recognition",
) -> dict[str, Any]:  # fmt: skip
    """Fine-tune with every method, evaluate, write ``report.html``, and log what each gained and lost.

    Args:
        base: job of the base model, already done.
        configure: returns the configuration of a method and seed, without the folder.
        methods: share of the tuned weights in the weight average evaluated for each method; None for no average.
        seeds: runs per method, with training seeds 0 to `seeds` - 1.
        out: the demo's folder.
        folder_lock: lock on that folder.
        kept: score to preserve.

    Returns:
        The report's table.
    """
    with stage("fine-tuning and evaluating"):
        results = run_jobs(runs_of(base, configure, methods=methods, seeds=seeds, out=out), folder_lock)
    start = base.measures[0].path
    table = report([start, *results], out=out / "report.html", baseline=BASE, root=base.questions.root)
    for note in table["text_solvable"]:
        log.info(note)
    log_changes(start, results, kept=kept)
    shown = [score["cells"].values() for score in table["headline"] if score["title"] in ("composition", kept)]
    gains = [cell["gain"] for cells in shown for cell in cells if cell["gain"]]
    for doubt in dict.fromkeys(gain["doubt"] for gain in gains if gain["doubt"]):
        log.info("Do not compare the methods by every number above: %s. The report says where.", doubt)
    return table


def runs_of(
    base: Job, configure: Callable[[str, int], TrainConfig], *, methods: Mapping[str, float | None], seeds: int,
    out: Path,
) -> list[Job]:  # fmt: skip
    """Return one job per seed and method: train in `out`/runs, then evaluate, including the average with the base.

    Args: as for `compare_methods`.
    """
    jobs, current = [], CurrentQuestions()
    for seed, method in product(range(seeds), methods):
        measures = [Measure(method, 1.0, out / "results" / f"{method}-{seed}.json")]
        if (share := methods[method]) is not None:
            name = f"{method} averaged {share:g}"
            measures.append(Measure(name, share, out / "results" / f"{name.replace(' ', '-')}-{seed}.json"))
        config = replace(configure(method, seed), out=out / "runs" / f"{method}-{seed}")
        leakage = current.leakage((config,), base=base.base, questions=base.questions)
        jobs.append(replace(base, label=method, config=config, measures=tuple(measures), leakage=leakage))
    return jobs


def log_changes(base: Path, results: Iterable[Path], *, kept: str = "recognition") -> None:
    """Log each run's change in composition and in `kept`, in points, and their sum (joint)."""
    start, paths = named_scores(load_result(base)), list(results)
    several = len({_seed_of(path) for path in paths}) > 1
    for path in paths:
        result = load_result(path)
        change = trade_off(named_scores(result), start, gain="composition", kept=kept, price=1.0)
        text = f"composition {points(change.gained)}, {kept} {points(-change.lost)}, joint {points(change.joint)}"
        log.info("%s%s: %s", result.model.label, f", seed {_seed_of(path)}" if several else "", text)


def _seed_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def run_jobs(jobs: list[Job], folder_lock: Lock) -> list[Path]:
    """Run all jobs in parallel, one process per CPU with one thread each, which is faster than one after another."""
    chains = [job.alone for job in jobs]

    def stop_at_failure(number: int, end: Ended[ChainResult]) -> None:
        if end.error:
            raise DeglaError(f"{chains[number].title}: {end.error}\n{end.details}".rstrip())

    ends = run_chains(chains, when_ended=stop_at_failure, processes=PROCESSES, folder_lock=folder_lock, log=log)
    results = [end.value[0] for end in ends if end is not None and end.value]
    # The report shows methods in the order of their results, from plain to elaborate.
    return sorted((path for value in reversed(results) for path in value.paths), key=_seed_of)


_PAGES: Final = ("base.html", "report.html", "report.md")
_MADE: Final = ("runs", "results", "own", "retrieval", "train.jsonl", "negatives.jsonl", *_PAGES)


def clear(out: Path) -> None:
    """Remove the runs, results and pages of an earlier demo, and nothing else.

    Raises:
        InputError: the folder holds what a demo would replace, but no demo was run there; or it cannot be written.
    """
    try:
        for path in (out / name for name in _MADE if (out / name).exists()):
            if not is_demo(out) and (path.is_file() or any(path.iterdir())):
                raise InputError(f"{path}: is not of a demo, which would replace it. Choose another --out.")
        for name in ("runs", "results"):
            if (out / name).exists():
                shutil.rmtree(out / name)
        for name in _PAGES:  # They would pass for this demo's until its end.
            (out / name).unlink(missing_ok=True)
        (out / "results").mkdir()
    except OSError as error:
        raise InputError(f"{out}: cannot write the demo's folder: {error.strerror}. Choose another --out.") from None


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Log the start of a stage, and how long it took."""
    log.info("%s ...", name)
    start = time.monotonic()
    yield
    log.info("%s: %.1f s", name, time.monotonic() - start)


@contextmanager
def whole_demo(out: Path) -> Iterator[Lock]:
    """Lock the demo's folder for the block; then log the total time and the page to open."""
    with lock(out) as folder_lock:
        start = time.monotonic()
        yield folder_lock
        log.info("done in %.0f s. Open %s", time.monotonic() - start, out / "report.html")


def make_negatives(captions: Path, out: Path, *, words: WordSource) -> Summary:
    """Generate negatives with the paper's rules; see `generate`.

    Raises:
        StoppedError: a signal stopped it.
    """
    settings = NegativesSettings(RULES, seed=0, words=words)
    summary = generate(read_captions(captions), settings, out=out, workers=PROCESSES)
    if summary.stopped:
        raise StoppedError(summary.stopped, " while making negatives; run the same command again.")
    return summary
