"""evaluate models on benchmarks"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import InputError
from degla.files import refuse_to_overwrite_inputs
from degla.processes import first_process
from degla.verbs._scoring import check_models, describe_benchmarks, describe_labels, evaluation, resolve_device
from degla.verbs._terminal import show, tell

if TYPE_CHECKING:
    from degla.evaluation.regions import Regions
    from degla.evaluation.results import TracedResult
    from degla.study.workers import Ended

_MAY_DIFFER = {"models", "label", "root", "out", "cache", "no_cache", "compare_verdicts", "json", "device", "workers"}
"""Arguments that may differ between machines: paths, what only the first process reads, and its devices."""


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla evaluate`."""
    verb.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="run or checkpoint folder, ARCHITECTURE:TAG, transformers folder, world, random, blind, ...",
    )
    describe_benchmarks(verb)
    out = "JSON file; with several models, one numbered file each"
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help=out)
    describe_labels(verb)
    verb.add_argument(
        "--scorer",
        choices=["cosine", "standardised", "probe", "regions"],
        default="cosine",
        help="standardised: cosines minus a text's mean over all images of the benchmark, divided by their standard "
        "deviation, which leaves out preferences that are the same for all images; probe: classify images by a linear "
        "probe on their embeddings, without texts; regions: match each phrase of a text with its best image crop, with "
        "frozen towers (cosine)",
    )
    verb.add_argument(
        "--crops", nargs="+", type=int, metavar="N", help="with regions: N x N crops, 1 for the whole image (1 2 3)"
    )
    activation = "compute with another activation function than the weights were trained with, as published numbers of "
    activation += "models fine-tuned from OpenAI's often are (the model's own)"
    verb.add_argument("--activation", choices=["gelu", "quick_gelu"], help=activation)
    verb.add_argument(
        "--compare-verdicts",
        type=Path,
        metavar="FILE",
        help="list every item whose verdict differs from this file: NAME.items.jsonl of a result, or a published "
        "table; exit with status 1 if any differs",
    )
    engine = "ray: each model is a task of a Ray cluster whose machines share these paths (local)"
    verb.add_argument("--engine", choices=["local", "ray"], default="local", help=engine)
    verb.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Score each model and write its result."""
    check_models(arguments)
    if arguments.crops and arguments.scorer != "regions":
        raise InputError("--crops requires --scorer regions.")

    from degla.evaluation.golden import compare_verdicts, read_verdicts
    from degla.evaluation.models import check_precision, means_floor
    from degla.evaluation.regions import Regions
    from degla.evaluation.results import items_name, refuse_to_overwrite_results, save_result
    from degla.evaluation.terminal import render_result
    from degla.model.load import require_folders
    from degla.processes import joined_processes

    check_precision(arguments.models, arguments.precision)
    _check_labels(arguments)
    several = len(arguments.models) > 1
    numbers = range(1, 1 + len(arguments.models))
    outs = [
        arguments.out.with_stem(f"{arguments.out.stem}-{number}") if several else arguments.out for number in numbers
    ]
    regions = Regions(tuple(arguments.crops or (1, 2, 3))) if arguments.scorer == "regions" else None
    scorer = arguments.scorer if regions is None else regions.name
    if first_process():  # Other ranks write and say nothing.
        for out in outs:
            refuse_to_overwrite_inputs(items_name(out), arguments.compare_verdicts)
        named = {out: [name] for name, out in zip(arguments.models, outs, strict=True)}
        refuse_to_overwrite_results(named, benchmarks=arguments.benchmarks, scorer=scorer)
        for name in ("activation", "precision"):
            if getattr(arguments, name) not in (None, "fp32") and all(map(means_floor, arguments.models)):
                tell(f"--{name} has no effect: floors have none.")
    verdicts = []
    if arguments.compare_verdicts is not None and first_process():  # Other machines may lack the file.
        verdicts = list(read_verdicts(arguments.compare_verdicts))
        if not verdicts:
            raise InputError(f"{arguments.compare_verdicts}: contains no verdicts.")
    if arguments.engine == "local":  # On a cluster, the folder may be only where the tasks run.
        require_folders(arguments.models)
    differ = False
    labels = arguments.label or [None] * len(arguments.models)
    with joined_processes() as processes, evaluation(arguments, processes=processes) as plain:
        own = {f"--{name.replace('_', '-')}": each for name, each in vars(arguments).items() if name not in _MAY_DIFFER}
        own |= {"the number of models": len(arguments.models)}
        processes.require_same(lambda: own, remedy="Start every process with the same flags.")
        evaluator = replace(plain, regions=regions)

        def finish(number: int, result: TracedResult) -> None:
            nonlocal differ
            out = outs[number]
            save_result(result, out)
            if arguments.json:
                sys.stdout.write(result.model_dump_json() + "\n")
            else:
                show(render_result(result))
                tell(f"written: {out}")
            if arguments.compare_verdicts is not None:
                entries = [entry for each in evaluator.all_questions for entry in each.entries]
                compared = compare_verdicts(result.items, entries, verdicts, file=arguments.compare_verdicts)
                stream = sys.stderr if arguments.json else sys.stdout
                stream.writelines(f"{line}\n" for line in compared.lines())
                differ |= bool(compared.differing)

        if arguments.engine == "ray":
            if processes.count > 1:
                raise InputError("--engine ray cannot be combined with torchrun: Ray starts the processes.")
            tasks = [
                _Task(arguments, name, label, regions) for name, label in zip(arguments.models, labels, strict=True)
            ]
            if _score_on_ray(tasks, finish):
                return 1
        else:
            for number, (name, label) in enumerate(zip(arguments.models, labels, strict=True)):
                result = evaluator.score_named(name, label=label, device=resolve_device(arguments.device))
                if processes.first:
                    finish(number, result)
        if several and processes.first and not arguments.json:
            _show_at_a_glance(outs)
    return int(differ)


def _show_at_a_glance(files: Sequence[Path]) -> None:
    """Print the first tables of a report on these results: gains and losses against the first model."""
    from degla.evaluation.comparison import compare
    from degla.evaluation.page import glance_tables
    from degla.evaluation.results import load_result

    try:
        comparison = compare(files, baseline=load_result(files[0]).model.label)
    except InputError as error:  # Two results without labels that tell them apart.
        tell(f"no table of differences: {error}")
        return
    for name, table in glance_tables(comparison).items():
        show(table.transposed().terminal(title=f"{comparison.titles[name]}: differences from {comparison.baseline}"))


@dataclass(frozen=True)
class _Task:
    """The evaluation of one model, for a process of a cluster; `arguments` are the arguments of the command."""

    arguments: argparse.Namespace
    model: str
    label: str | None
    regions: Regions | None


def _score(task: _Task) -> TracedResult:
    arguments = task.arguments
    with evaluation(arguments) as evaluator:
        silent = replace(evaluator, regions=task.regions, progress=False)
        return silent.score_named(task.model, label=task.label, device=resolve_device(arguments.device))


def _score_on_ray(tasks: Sequence[_Task], finish: Callable[[int, TracedResult], None]) -> bool:
    """Score each model in a task of a Ray cluster; Ray restarts a task whose process or machine is lost.

    Args:
        tasks: one per model.
        finish: called with a task's number and its result, in the order in which they end.

    Returns:
        Whether a model could not be scored.

    Raises:
        InputError: Ray is not installed.
        StoppedError: a signal stopped the evaluation; results that `finish` saved remain.
    """
    from degla.stopping import StoppedError
    from degla.study.workers import open_cluster, run_jobs

    def ended(number: int, end: Ended[TracedResult]) -> None:
        if end.value is not None:
            finish(number, end.value)
        else:
            tell(f"{tasks[number].model}: {end.error}\n{end.details}".rstrip())

    with open_cluster(_score, folder=tasks[0].arguments.root, processes=None) as workers:
        ends, stopped = run_jobs(_score, tasks, processes=workers.size, ended=ended, workers=workers)
    if stopped:
        raise StoppedError(stopped, ".")
    return any(end is None or end.value is None for end in ends)


def _check_labels(arguments: argparse.Namespace) -> None:
    """Check that one label names one model, or runs of different seeds: a report could not tell others apart."""
    from degla.evaluation.run import training_seed_of

    owners: dict[str, dict[int | None, str]] = {}
    for number, label in enumerate(arguments.label or ()):
        name = arguments.models[number]
        seed = training_seed_of(name)
        own = owners.setdefault(label, {})
        if seed in own:
            other = own[seed]
            clash = "without a training seed" if seed is None else f"with training seed {seed}"
        elif own and (seed is None or None in own):
            other = next(iter(own.values()))
            clash = "of which one has a training seed and the other has none"
        else:
            own[seed] = name
            continue
        raise InputError(
            f"--label: {label!r} names both {other} and {name}, {clash}. Give each run its own seed, or each method "
            "its own label."
        )
