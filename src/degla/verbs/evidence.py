"""measure what a model's explanations keep of its answers: drop and increase, beside parts drawn by chance"""

from __future__ import annotations

import argparse

from degla.verbs._scoring import (
    check_models,
    check_questions,
    describe_questions,
    describe_results,
    networks,
    refuse_several_processes,
    show_results,
)


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla evidence`."""
    verb.add_argument("models", nargs="+", metavar="MODEL", help="as for degla evaluate; networks only")
    asked = "those with classes, or with one picture and several texts a question"
    describe_questions(verb, benchmarks=asked, seed="seed of drawn pictures, squares and intervals (0)",
                       ties=False)  # fmt: skip
    verb.add_argument("--share", type=float, default=0.15, help="of a picture's squares, that stays (0.15)")
    verb.add_argument("--by", choices=["attention", "gradient"],
                      help="evidence by the class token's attention, or by the pixels' gradient (attention, where the "
                      "tower has a class token)")  # fmt: skip
    verb.add_argument(
        "--images", type=int, metavar="N", help="ask about N pictures of each part, drawn by chance (all)"
    )
    describe_results(verb)


def run(given: argparse.Namespace) -> int:
    """Explain each model's answers and show the models side by side."""
    check_models(given)
    refuse_several_processes("evidence")
    check_questions(given)

    from degla.evaluation.explained import ExplainSettings, explain_model
    from degla.evaluation.run import ask_all
    from degla.evaluation.terminal import render_explained

    settings = ExplainSettings(given.share, given.images, given.by, given.seed)
    questions = ask_all(given.benchmarks, given.root, allow_missing=given.allow_missing)  # Before a model is looked up.
    results = [
        explain_model(encoder, settings, questions, root=given.root, label=label) for encoder, label in networks(given)
    ]
    show_results(given, results, lambda: render_explained(results))
    return 0
