"""Arguments and set-up shared by the verbs that score models."""

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
from typing import TYPE_CHECKING, TypeVar, cast

from degla.errors import InputError
from degla.files import cache_folder, require_writable, write_text
from degla.pages.words import counted
from degla.processes import first_process
from degla.shelf import BENCHMARKS
from degla.verbs._arguments import require_least
from degla.verbs._terminal import show, tell

if TYPE_CHECKING:
    from rich.console import Group

    from degla.evaluation.cache import DiskCache
    from degla.evaluation.models import Scorer
    from degla.evaluation.questions import BenchmarkQuestions
    from degla.evaluation.run import Evaluation
    from degla.model.encoder import Encoder
    from degla.processes import ProcessGroup
    from degla.records import Record

Result = TypeVar("Result", bound="Record")

log = logging.getLogger(__name__)


def describe_questions(verb: argparse.ArgumentParser, *, benchmarks: str, seed: str, ties: bool = True) -> None:
    """Add the arguments that choose the questions; `benchmarks` and `seed` are the help of those two."""
    verb.add_argument("--benchmarks", nargs="+", required=True, metavar="NAME", help=benchmarks)
    verb.add_argument("--root", type=Path, required=True, metavar="DATA", help="folder with the benchmarks' data")
    if ties:
        verb.add_argument("--tie", choices=["strict", "half", "lenient"], help="tie rule (each benchmark's own)")
    missing = "if files are missing, score the remaining items and report what was skipped"
    verb.add_argument("--allow-missing", action="store_true", help=missing)
    verb.add_argument("--device", default="auto", help="cpu, cuda, ... (auto)")
    verb.add_argument("--seed", type=int, default=0, help=seed)


def describe_benchmarks(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of every verb that evaluates models."""
    listed = "benchmark names, see degla ls benchmarks"
    describe_questions(verb, benchmarks=listed, seed="seed of random choices and intervals (0)")
    verb.add_argument(
        "--image-reading",
        choices=["upright", "official"],
        default="upright",
        help="upright: as in training; official: as in the benchmarks' released code, which neither applies the EXIF "
        "rotation nor puts transparent images on white (upright)",
    )
    precision = "precision of the forward passes (fp32)"
    verb.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help=precision)
    images, texts = "images per batch (8 to 128, by device)", "texts per batch (32 to 512, by device)"
    verb.add_argument("--images-per-batch", type=int, default=0, metavar="N", help=images)
    verb.add_argument("--texts-per-batch", type=int, default=0, metavar="N", help=texts)
    verb.add_argument("--workers", type=int, default=0, metavar="N", help="threads that load images (one per core)")
    describe_cache(verb)


def describe_networks(verb: argparse.ArgumentParser, *, benchmarks: str, seed: str, ties: bool = True) -> None:
    """Add the models and questions of `measure_networks`; see `describe_questions`."""
    verb.add_argument("models", nargs="+", metavar="MODEL", help="as for degla evaluate, but only neural networks")
    describe_questions(verb, benchmarks=benchmarks, seed=seed, ties=ties)


def describe_labels(verb: argparse.ArgumentParser) -> None:
    """Add the argument that `check_models` holds against the models."""
    labels = "display names, one per model (the models' own names)"
    verb.add_argument("--label", nargs="+", metavar="NAME", help=labels)


def describe_results(verb: argparse.ArgumentParser) -> None:
    """Add the arguments for how `measure_networks` labels, prints and saves the results."""
    describe_labels(verb)
    verb.add_argument("--out", type=Path, metavar="FILE", help="JSON file with all results")
    verb.add_argument("--json", action="store_true", help="print the results as JSON")


def check_networks(arguments: argparse.Namespace) -> None:
    """Check these arguments before anything heavy is imported."""
    check_models(arguments)
    check_benchmarks(arguments)


def measure_networks(
    arguments: argparse.Namespace,
    measure: Callable[[Encoder, list[BenchmarkQuestions], str | None], Result],
    render: Callable[[list[Result]], Group],
    require: Callable[[list[BenchmarkQuestions]], object],
) -> int:
    """Measure each model that the arguments name, then print and write all results.

    Args:
        arguments: with the arguments of `describe_networks` and `describe_results`.
        measure: returns the result of a model for the questions and a label.
        render: shows results side by side.
        require: raises an error for questions that cannot be measured this way.

    Returns:
        The exit status.
    """
    from degla.evaluation.results import refuse_to_overwrite_results
    from degla.evaluation.run import ask_all
    from degla.model.load import load_encoder

    if arguments.out is not None:
        refuse_to_overwrite_results({arguments.out: arguments.models}, benchmarks=arguments.benchmarks)
    # Before any model is loaded.
    questions = ask_all(arguments.benchmarks, arguments.root, allow_missing=arguments.allow_missing)
    require(questions)
    results = [
        measure(load_encoder(name, device=resolve_device(arguments.device)), questions, label)
        for name, label in zip_longest(arguments.models, arguments.label or [])
    ]
    text = json.dumps({"models": [result.model_dump(mode="json") for result in results]}, indent=2) + "\n"
    if arguments.out is not None:
        write_text(arguments.out, text)
    if arguments.json:
        sys.stdout.write(text)
        return 0
    show(render(results))
    if arguments.out is not None:
        tell(f"written: {arguments.out}")
    return 0


def describe_cache(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of every verb that caches embeddings."""
    folder = verb.add_mutually_exclusive_group()
    cache = "embedding cache (embeddings in DEGLA_CACHE if set, else degla/embeddings in the user's cache folder)"
    folder.add_argument("--cache", type=Path, metavar="FOLDER", help=cache)
    folder.add_argument("--no-cache", action="store_true", help="recompute all embeddings and cache nothing")


def check_benchmarks(arguments: argparse.Namespace) -> None:
    """Check the benchmarks' names before anything heavy is imported."""
    for name in arguments.benchmarks:
        BENCHMARKS.require(name)


def check_models(arguments: argparse.Namespace) -> None:
    """Check that there is one label per model, and that --out ends in .json and can be written."""
    if arguments.label and len(arguments.label) != len(arguments.models):
        raise InputError(
            f"--label gives {counted(len(arguments.label), 'name')} for {counted(len(arguments.models), 'model')}. "
            "Give one per model."
        )
    if arguments.out is not None and arguments.out.suffix != ".json":
        raise InputError(f"--out {arguments.out}: the file name must end in .json.")
    if arguments.out is not None and first_process():  # Other ranks write nothing, and may lack the folder.
        require_writable(arguments.out)


def resolve_device(name: str) -> str:
    """Resolve a device name; "auto" is the GPU of this rank if there is one, else the CPU."""
    import torch

    if name != "auto":
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def evaluation(arguments: argparse.Namespace, processes: ProcessGroup | None = None) -> Iterator[Evaluation]:
    """Yield the evaluation that the arguments describe, with its embedding cache."""
    check_benchmarks(arguments)
    require_least(arguments, "images_per_batch", "texts_per_batch", "workers", least=0)

    from degla.evaluation.run import Evaluation, ask_all
    from degla.processes import ProcessGroup

    processes = processes or ProcessGroup()
    given = getattr(arguments, "scorer", "cosine")  # Regions are given to the evaluation by themselves.
    with open_cache_of(arguments) as cache:
        yield Evaluation(
            arguments.benchmarks,
            arguments.root,
            seed=arguments.seed,
            tie=arguments.tie,
            allow_missing=arguments.allow_missing,
            image_reading=arguments.image_reading,
            precision=arguments.precision,
            activation=getattr(arguments, "activation", None),
            scorer=cast("Scorer", "cosine" if given == "regions" else given),
            images_per_batch=arguments.images_per_batch,
            texts_per_batch=arguments.texts_per_batch,
            workers=arguments.workers,
            cache=cache,
            processes=processes,
            # Data come before models: a wrong folder is reported before anything is downloaded.
            questions=ask_all(
                arguments.benchmarks, arguments.root, allow_missing=arguments.allow_missing, processes=processes
            ),
        )


@contextlib.contextmanager
def open_cache_of(arguments: argparse.Namespace) -> Iterator[DiskCache | None]:
    """Yield the embedding cache that the arguments name; None with --no-cache."""
    from degla.evaluation.cache import DiskCache, open_cache

    if arguments.no_cache:
        yield None
        return
    # A folder that was given must work; the default one only saves time.
    with open_cache(arguments.cache) if arguments.cache else DiskCache(cache_folder("embeddings")) as cache:
        yield cache
    if cache.read or cache.written:
        log.info("%s: %s read, %s written.", cache.folder, counted(cache.read, "embedding"), f"{cache.written:,}")
