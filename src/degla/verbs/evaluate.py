"""measure models on benchmarks"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from degla.verbs._scoring import cache, check_benchmarks, check_models, describe_benchmarks, device
from degla.verbs._terminal import show


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla evaluate`."""
    verb.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="run or checkpoint folder, ARCHITECTURE:TAG, folder of transformers, world, random, blind, ...",
    )
    describe_benchmarks(verb)
    verb.add_argument("--out", type=Path, required=True, help="JSON file; with several models, one file each, numbered")
    verb.add_argument("--label", nargs="+", help="names for the report, one a model (the model's own name)")
    verb.add_argument("--json", action="store_true", help="print the results as JSON")


def run(given: argparse.Namespace) -> int:
    """Score each model and write its result."""
    check_models(given)
    check_benchmarks(given.benchmarks)

    from degla.evaluation.floors import seed_of
    from degla.evaluation.models import load_model, means_floor
    from degla.evaluation.overlap import training_images
    from degla.evaluation.processes import joined_processes
    from degla.evaluation.results import save_result
    from degla.evaluation.run import ask_all, evaluate
    from degla.evaluation.terminal import render_result
    from degla.model.runs import recorded_seed

    with joined_processes() as processes, cache(given) as embeddings:
        # Data come before models: a wrong folder is told before anything is fetched.
        questions = ask_all(given.benchmarks, given.root, allow_missing=given.allow_missing, processes=processes)
        for number, name in enumerate(given.models):
            floor = means_floor(name)
            result = evaluate(
                load_model(name, device=device(given.device)),
                benchmarks=given.benchmarks,
                root=given.root,
                seed=given.seed,
                tie=given.tie,
                allow_missing=given.allow_missing,
                image_reading=given.image_reading,
                label=given.label[number] if given.label else None,
                training_seed=seed_of(name) if floor else recorded_seed(name),
                training=training_images(name),
                processes=processes,
                questions=questions,
                # A floor is made anew in less time than it takes to read.
                cache=None if floor else embeddings,
            )
            if not processes.first:
                continue
            several = len(given.models) > 1
            out = given.out.with_stem(f"{given.out.stem}-{number + 1}") if several else given.out
            save_result(result, out)
            if given.json:
                sys.stdout.write(result.model_dump_json() + "\n")
            else:
                show(render_result(result))
                sys.stderr.write(f"written: {out}\n")
    return 0
