"""evaluate weight averages of a model and its fine-tuned version (WiSE-FT), and keep the best"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.verbs._scoring import describe_benchmarks, evaluation, resolve_device
from degla.verbs._terminal import print_json, show, tell


def describe(verb: argparse.ArgumentParser) -> None:
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
    describe_benchmarks(verb)
    out = "folder for results, report and the chosen checkpoint"
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=out)
    name = "report column, part, named average, or BENCHMARK:NAME"
    verb.add_argument("--gain", default="composition", metavar="NAME", help=f"score to maximise: {name} (composition)")
    verb.add_argument(
        "--kept", default="recognition", metavar="NAME", help="score to preserve, named likewise (recognition)"
    )
    keep = "lowest acceptable value of the preserved score, in percent (1 point below the base model's)"
    verb.add_argument("--keep", type=float, metavar="PERCENT", help=keep)
    verb.add_argument("--json", action="store_true", help="print the sweep as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the averages; write the report and the chosen checkpoint."""
    from degla.evaluation.choice import render_sweep
    from degla.interpolate import CHOSEN, Goal, checked_alphas, interpolate

    goal, alphas = Goal(arguments.gain, arguments.kept, arguments.keep), checked_alphas(arguments.alphas)
    with evaluation(arguments) as evaluator:
        sweep = interpolate(
            arguments.base,
            arguments.tuned,
            evaluator,
            alphas=alphas,
            out=arguments.out,
            goal=goal,
            device=resolve_device(arguments.device),
        )
    if arguments.json:
        print_json(sweep.plain())
    else:
        show(render_sweep(sweep))
        tell(f"written: {arguments.out / 'report.html'} and the chosen model, {arguments.out / CHOSEN}")
    return 0
