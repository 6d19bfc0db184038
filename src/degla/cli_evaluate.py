"""`degla evaluate` and `degla interpolate`: models and names of benchmarks become results."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import InputError
from degla.shelf import BENCHMARKS

if TYPE_CHECKING:
    from degla.evaluation.disk_cache import DiskCache

log = logging.getLogger(__name__)


def describe_evaluate(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla evaluate`."""
    verb.add_argument(
        "models", nargs="+", metavar="MODEL", help="run or checkpoint folder, ARCHITECTURE:TAG, world, ..."
    )
    _describe_benchmarks(verb)
    verb.add_argument("--out", type=Path, required=True, help="JSON file; with several models, one file each, numbered")
    verb.add_argument("--label", nargs="+", help="names for the report, one a model (the model's own name)")
    verb.add_argument("--json", action="store_true", help="print the results as JSON")


def _describe_benchmarks(verb: argparse.ArgumentParser) -> None:
    """Arguments of every verb that scores models."""
    verb.add_argument("--benchmarks", nargs="+", required=True, metavar="NAME", help="see degla ls benchmarks")
    verb.add_argument("--root", type=Path, required=True, help="folder that holds the benchmarks' data")
    verb.add_argument("--tie", choices=["strict", "half", "lenient"], help="tie rule (each benchmark's own)")
    verb.add_argument("--allow-missing", action="store_true", help="score what is there, and say what is missing")
    verb.add_argument("--device", default="auto", help="cpu, cuda, ... (auto)")
    verb.add_argument("--seed", type=int, default=0, help="seed of random choices and intervals (0)")
    cache = verb.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of embeddings of earlier runs (DEGLA_CACHE, else degla/embeddings in the user's cache folder)",
    )
    cache.add_argument("--no-cache", action="store_true", help="embed everything anew and keep nothing")


def run_evaluate(given: argparse.Namespace) -> int:
    """Score each model and write its result."""
    if given.label and len(given.label) != len(given.models):
        raise InputError(f"{len(given.label)} labels for {len(given.models)} models; give one a model.")
    if given.out.suffix != ".json":
        raise InputError(f"--out {given.out}: the name of a result must end in .json.")
    _check_benchmarks(given.benchmarks)

    from degla.evaluation.results import save_result
    from degla.evaluation.run import evaluate
    from degla.evaluation.terminal import render_result
    from degla.model.checkpoint import recorded_seed
    from degla.model.load import load_encoder

    with _cache(given) as cache:
        for number, name in enumerate(given.models):
            result = evaluate(
                load_encoder(name, device=_device(given.device)),
                benchmarks=given.benchmarks,
                root=given.root,
                seed=given.seed,
                tie=given.tie,
                allow_missing=given.allow_missing,
                label=given.label[number] if given.label else None,
                training_seed=recorded_seed(name),
                cache=cache,
            )
            several = len(given.models) > 1
            out = given.out.with_stem(f"{given.out.stem}-{number + 1}") if several else given.out
            save_result(result, out)
            if given.json:
                sys.stdout.write(result.model_dump_json() + "\n")
            else:
                show(render_result(result))
                sys.stderr.write(f"written: {out}\n")
    return 0


def describe_interpolate(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla interpolate`."""
    verb.add_argument("base", metavar="BASE", help="the model before fine-tuning, as for degla evaluate")
    verb.add_argument("tuned", metavar="TUNED", help="the fine-tuned model")
    verb.add_argument(
        "--alphas",
        nargs="+",
        type=float,
        default=[0.0, 0.25, 0.5, 0.75, 1.0],
        metavar="SHARE",
        help="shares of the tuned weights, 0 to 1 (0 0.25 0.5 0.75 1)",
    )
    _describe_benchmarks(verb)
    verb.add_argument("--out", type=Path, required=True, help="folder for results, report and the chosen checkpoint")
    name = "column of the report, part or named average, or BENCHMARK:NAME"
    verb.add_argument("--gain", default="composition", metavar="NAME", help=f"score to raise: {name} (composition)")
    verb.add_argument(
        "--kept", default="recognition", metavar="NAME", help="score to keep, named likewise (recognition)"
    )
    verb.add_argument(
        "--keep",
        type=float,
        metavar="POINTS",
        help="least kept score of the choice, in percent (1 point below the base's own)",
    )
    verb.add_argument("--json", action="store_true", help="print the sweep as JSON")


def run_interpolate(given: argparse.Namespace) -> int:
    """Measure the averages, write the report and the chosen checkpoint."""
    _check_benchmarks(given.benchmarks)

    from degla.evaluation.choice import render_sweep
    from degla.interpolate import CHOSEN, interpolate

    with _cache(given) as cache:
        sweep = interpolate(
            given.base,
            given.tuned,
            alphas=given.alphas,
            benchmarks=given.benchmarks,
            root=given.root,
            out=given.out,
            gain=given.gain,
            kept=given.kept,
            keep=given.keep,
            device=_device(given.device),
            seed=given.seed,
            tie=given.tie,
            allow_missing=given.allow_missing,
            cache=cache,
        )
    if given.json:
        sys.stdout.write(json.dumps(sweep.plain(), indent=2) + "\n")
    else:
        show(render_sweep(sweep))
        sys.stderr.write(f"written: {given.out / 'report.html'} and the chosen model, {given.out / CHOSEN}\n")
    return 0


def _check_benchmarks(names: list[str]) -> None:
    """Refuse a wrong name before anything heavy is imported."""
    for name in names:
        if name not in BENCHMARKS.names():
            BENCHMARKS.load(name)


def _device(name: str) -> str:
    import torch

    return name if name != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def _cache(given: argparse.Namespace) -> Iterator[DiskCache | None]:
    from degla.evaluation.disk_cache import DiskCache, default_cache_folder, open_cache

    if given.no_cache:
        yield None
        return
    # A folder that was asked for must work; the usual one only saves time.
    with open_cache(given.cache) if given.cache else DiskCache(default_cache_folder()) as cache:
        yield cache
    if cache.read or cache.written:
        log.info("%s: %d embeddings read, %d written.", cache.folder, cache.read, cache.written)


def show(table: object) -> None:
    """Print a table of rich to stdout."""
    from rich.console import Console

    Console().print(table)
