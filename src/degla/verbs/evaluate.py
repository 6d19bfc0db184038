"""evaluate models on benchmarks"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.processes import first_process
from degla.verbs._scoring import check_models, describe_benchmarks, device, evaluation
from degla.verbs._terminal import show, tell


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla evaluate`."""
    verb.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="run or checkpoint folder, ARCHITECTURE:TAG, transformers folder, world, random, blind, ...",
    )
    describe_benchmarks(verb)
    verb.add_argument("--out", type=Path, required=True, help="JSON file; with several models, one numbered file each")
    verb.add_argument("--label", nargs="+", help="names for the report, one per model (the models' own names)")
    verb.add_argument(
        "--scorer",
        choices=["cosine", "regions"],
        default="cosine",
        help="regions: match each phrase of a text with its best image crop, with frozen towers (cosine)",
    )
    verb.add_argument(
        "--crops", nargs="+", type=int, metavar="N", help="with regions: N x N crops, 1 for the whole image (1 2 3)"
    )
    verb.add_argument(
        "--compare-verdicts",
        type=Path,
        metavar="FILE",
        help="list every item whose verdict differs from this file: NAME.items.jsonl of a result, or a published "
        "table; exit with status 1 if any differs",
    )
    verb.add_argument("--json", action="store_true", help="print the results as JSON")


def run(given: argparse.Namespace) -> int:
    """Score each model and write its result."""
    check_models(given)
    if given.crops and given.scorer != "regions":
        raise InputError("--crops requires --scorer regions.")

    from degla.evaluation.golden import compare_verdicts, read_verdicts
    from degla.evaluation.models import check_precision
    from degla.evaluation.processes import joined_processes
    from degla.evaluation.regions import Regions
    from degla.evaluation.results import save_result, spare_results
    from degla.evaluation.terminal import render_result

    check_precision(given.models, given.precision)
    _check_labels(given)
    several = len(given.models) > 1
    numbers = range(1, 1 + len(given.models))
    outs = [given.out.with_stem(f"{given.out.stem}-{number}") if several else given.out for number in numbers]
    if first_process():  # Other ranks write nothing.
        for name, out in zip(given.models, outs, strict=True):
            spare_results(out, models=[name], benchmarks=given.benchmarks)
    verdicts = list(read_verdicts(given.compare_verdicts)) if given.compare_verdicts is not None else []
    if given.compare_verdicts is not None and not verdicts:
        raise InputError(f"{given.compare_verdicts}: contains no verdicts.")
    differ = False
    regions = Regions(tuple(given.crops or (1, 2, 3))) if given.scorer == "regions" else None
    with joined_processes() as processes, evaluation(given, processes=processes) as plain:
        asked = replace(plain, regions=regions)
        for number, name in enumerate(given.models):
            label = given.label[number] if given.label else None
            result = asked.score_named(name, label=label, device=device(given.device))
            if not processes.first:
                continue
            out = outs[number]
            save_result(result, out)
            if given.json:
                sys.stdout.write(result.model_dump_json() + "\n")
            else:
                show(render_result(result))
                tell(f"written: {out}")
            if given.compare_verdicts is not None:
                entries = [entry for each in asked.asked for entry in each.entries]
                compared = compare_verdicts(result.items, entries, verdicts, file=given.compare_verdicts)
                stream = sys.stderr if given.json else sys.stdout
                stream.writelines(f"{line}\n" for line in compared.lines())
                differ |= bool(compared.differing)
    return int(differ)


def _check_labels(given: argparse.Namespace) -> None:
    """Check that one label names only runs of different seeds, because a report could not tell the others apart."""
    from degla.evaluation.run import training_seed_of

    seen: dict[tuple[str, int | None], str] = {}
    for number, label in enumerate(given.label or ()):
        name = given.models[number]
        seed = training_seed_of(name)
        if (other := seen.get((label, seed))) is not None:
            told = "without a training seed" if seed is None else f"with training seed {seed}"
            raise InputError(
                f"--label: {label!r} names both {other} and {name}, {told}. Give each run its own seed, or each method "
                "its own label."
            )
        seen[label, seed] = name
