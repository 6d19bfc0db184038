"""measure how well a model's explanations preserve its answers: drop and increase, against random patches"""

from __future__ import annotations

import argparse

from degla.verbs._scoring import check_networks, describe_networks, describe_results, measure_networks


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla evidence`."""
    benchmarks = "benchmarks with classes, or with one image and several texts per question"
    seed = "seed of sampled images, random patches and intervals (0)"
    describe_networks(verb, benchmarks=benchmarks, seed=seed, ties=False)
    verb.add_argument("--share", type=float, default=0.15, help="share of an image's patches that is kept (0.15)")
    by = "evidence from the class token's attention or the pixels' gradient (attention if there is a class token)"
    verb.add_argument("--by", choices=["attention", "gradient"], help=by)
    verb.add_argument("--images", type=int, metavar="N", help="explain N random images of each part (all)")
    describe_results(verb)


def run(arguments: argparse.Namespace) -> int:
    """Explain each model's answers and show the results side by side."""
    check_networks(arguments)

    from degla.evaluation.explained import ExplainSettings, explain_model, require_answers
    from degla.evaluation.terminal import render_explained

    settings = ExplainSettings(arguments.share, arguments.images, arguments.by, arguments.seed)
    return measure_networks(
        arguments,
        lambda encoder, questions, label: explain_model(encoder, settings, questions, root=arguments.root, label=label),
        render_explained,
        require_answers,
    )
