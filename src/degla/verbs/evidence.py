"""measure what a model's explanations keep of its answers: drop and increase, beside parts drawn by chance"""

from __future__ import annotations

import argparse

from degla.verbs._scoring import check_networks, describe_networks, describe_results, measure_networks


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla evidence`."""
    asked = "those with classes, or with one picture and several texts a question"
    seed = "seed of drawn pictures, squares and intervals (0)"
    describe_networks(verb, benchmarks=asked, seed=seed, ties=False)
    verb.add_argument("--share", type=float, default=0.15, help="of a picture's squares, that stays (0.15)")
    by = "evidence by the class token's attention or the pixels' gradient (attention, where the tower has such a token)"
    verb.add_argument("--by", choices=["attention", "gradient"], help=by)
    verb.add_argument(
        "--images", type=int, metavar="N", help="ask about N pictures of each part, drawn by chance (all)"
    )
    describe_results(verb)


def run(given: argparse.Namespace) -> int:
    """Explain each model's answers and show the models side by side."""
    check_networks(given)

    from degla.evaluation.explained import ExplainSettings, explain_model
    from degla.evaluation.terminal import render_explained

    settings = ExplainSettings(given.share, given.images, given.by, given.seed)
    return measure_networks(
        given,
        lambda encoder, questions, label: explain_model(encoder, settings, questions, root=given.root, label=label),
        render_explained,
    )
