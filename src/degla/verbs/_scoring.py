"""Arguments and set-up of every verb that scores models."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from degla.errors import InputError
from degla.evaluation.processes import first_process
from degla.files import cache_folder, require_writable, write_text
from degla.pages.words import counted
from degla.shelf import BENCHMARKS
from degla.verbs._arguments import require_least
from degla.verbs._terminal import show, tell

if TYPE_CHECKING:
    from rich.console import Group

    from degla.evaluation.cache import DiskCache
    from degla.evaluation.processes import EvaluationProcesses
    from degla.evaluation.questions import BenchmarkQuestions
    from degla.evaluation.run import Evaluation
    from degla.model.encoder import Encoder
    from degla.records import Record

Found = TypeVar("Found", bound="Record")

log = logging.getLogger(__name__)


def describe_questions(verb: argparse.ArgumentParser, *, benchmarks: str, seed: str, ties: bool = True) -> None:
    """Arguments that say what models are asked; `benchmarks` and `seed` are the help of those two."""
    verb.add_argument("--benchmarks", nargs="+", required=True, metavar="NAME", help=benchmarks)
    verb.add_argument("--root", type=Path, required=True, help="folder that holds the benchmarks' data")
    if ties:
        verb.add_argument("--tie", choices=["strict", "half", "lenient"], help="tie rule (each benchmark's own)")
    verb.add_argument("--allow-missing", action="store_true", help="score what is there, and say what is missing")
    verb.add_argument("--device", default="auto", help="cpu, cuda, ... (auto)")
    verb.add_argument("--seed", type=int, default=0, help=seed)


def describe_benchmarks(verb: argparse.ArgumentParser) -> None:
    """Arguments of every verb that evaluates models."""
    describe_questions(verb, benchmarks="see degla ls benchmarks", seed="seed of random choices and intervals (0)")
    verb.add_argument(
        "--image-reading",
        choices=["upright", "official"],
        default="upright",
        help="upright: as in training; official: as the benchmarks' released codes read, neither turned by EXIF nor "
        "with transparency on white (upright)",
    )
    verb.add_argument(
        "--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="of the forward passes (fp32)"
    )
    verb.add_argument("--images-per-batch", type=int, default=0, metavar="N", help="(by the device: 8 to 128)")
    verb.add_argument("--texts-per-batch", type=int, default=0, metavar="N", help="(by the device: 32 to 512)")
    verb.add_argument("--workers", type=int, default=0, metavar="N", help="threads that open pictures (one a core)")
    describe_cache(verb)


def describe_networks(verb: argparse.ArgumentParser, *, benchmarks: str, seed: str, ties: bool = True) -> None:
    """What of whom `measure_networks` asks; see `describe_questions`."""
    verb.add_argument("models", nargs="+", metavar="MODEL", help="as for degla evaluate; networks only")
    describe_questions(verb, benchmarks=benchmarks, seed=seed, ties=ties)


def describe_results(verb: argparse.ArgumentParser) -> None:
    """How `measure_networks` prints results of several models, and keeps them in one file."""
    verb.add_argument("--label", nargs="+", help="names of the models, one a model (the model's own name)")
    verb.add_argument("--out", type=Path, metavar="FILE", help="JSON file with all results")
    verb.add_argument("--json", action="store_true", help="print the results as JSON")


def check_networks(given: argparse.Namespace) -> None:
    """Refuse what is wrong of these arguments before anything heavy is imported."""
    check_models(given)
    check_questions(given)


def measure_networks(
    given: argparse.Namespace,
    measure: Callable[[Encoder, list[BenchmarkQuestions], str | None], Found],
    render: Callable[[list[Found]], Group],
    require: Callable[[list[BenchmarkQuestions]], object] = len,
) -> int:
    """Measure each model that the arguments name, then print and write all results.

    Args:
        given: with the arguments of `describe_networks` and `describe_results`.
        measure: gives the result of a model for the questions, under the label that the arguments give it.
        render: results side by side.
        require: refuses questions that cannot be measured so.

    Returns:
        The exit status.
    """
    from degla.evaluation.results import spare_results
    from degla.evaluation.run import ask_all
    from degla.model.load import load_encoder

    if given.out is not None:
        spare_results(given.out, models=given.models, benchmarks=given.benchmarks)
    questions = ask_all(given.benchmarks, given.root, allow_missing=given.allow_missing)  # Before a model is looked up.
    require(questions)
    results = [
        measure(load_encoder(name, device=device(given.device)), questions, label)
        for name, label in zip_longest(given.models, given.label or [])
    ]
    written = json.dumps({"models": [result.model_dump(mode="json") for result in results]}, indent=2) + "\n"
    if given.out is not None:
        write_text(given.out, written)
    if given.json:
        sys.stdout.write(written)
        return 0
    show(render(results))
    if given.out is not None:
        tell(f"written: {given.out}")
    return 0


def describe_cache(verb: argparse.ArgumentParser) -> None:
    """Arguments of every verb that keeps embeddings."""
    folder = verb.add_mutually_exclusive_group()
    folder.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where embeddings are kept (embeddings in DEGLA_CACHE, else degla/embeddings in the user's cache folder)",
    )
    folder.add_argument("--no-cache", action="store_true", help="embed everything anew and keep nothing")


def check_questions(given: argparse.Namespace) -> None:
    """Refuse a wrong name before anything heavy is imported."""
    for name in given.benchmarks:
        BENCHMARKS.require(name)


def check_models(given: argparse.Namespace) -> None:
    """Refuse labels that are not one a model, and results that do not end in .json or could not be written."""
    if given.label and len(given.label) != len(given.models):
        raise InputError(
            f"{counted(len(given.label), 'label')} for {counted(len(given.models), 'model')}; give one a model."
        )
    if given.out is not None and given.out.suffix != ".json":
        raise InputError(f"--out {given.out}: the name of a result must end in .json.")
    if given.out is not None and first_process():  # The others write nothing, and may have no such folder.
        require_writable(given.out)


def device(name: str) -> str:
    """The device of that name; "auto" is a graphics card where there is one, of several processes each its own."""
    import torch

    if name != "auto":
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def evaluation(given: argparse.Namespace, processes: EvaluationProcesses | None = None) -> Iterator[Evaluation]:
    """What the arguments ask, with the cache of embeddings that they name."""
    check_questions(given)
    require_least(given, "images_per_batch", "texts_per_batch", "workers", least=0)

    from degla.evaluation.processes import EvaluationProcesses
    from degla.evaluation.run import Evaluation, ask_all

    processes = processes or EvaluationProcesses()
    with open_cache_of(given) as cache:
        yield Evaluation(
            given.benchmarks,
            given.root,
            seed=given.seed,
            tie=given.tie,
            allow_missing=given.allow_missing,
            image_reading=given.image_reading,
            precision=given.precision,
            images_per_batch=given.images_per_batch,
            texts_per_batch=given.texts_per_batch,
            workers=given.workers,
            cache=cache,
            processes=processes,
            # Data come before models: a wrong folder is told before anything is fetched.
            questions=ask_all(given.benchmarks, given.root, allow_missing=given.allow_missing, processes=processes),
        )


@contextlib.contextmanager
def open_cache_of(given: argparse.Namespace) -> Iterator[DiskCache | None]:
    """The cache of embeddings that the arguments name; None where they want none."""
    from degla.evaluation.cache import DiskCache, open_cache

    if given.no_cache:
        yield None
        return
    # A folder that was asked for must work; the usual one only saves time.
    with open_cache(given.cache) if given.cache else DiskCache(cache_folder("embeddings")) as cache:
        yield cache
    if cache.read or cache.written:
        log.info("%s: %s read, %d written.", cache.folder, counted(cache.read, "embedding"), cache.written)
