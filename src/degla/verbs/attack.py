"""measure recognition on images that an attack has changed"""

from __future__ import annotations

import argparse
from fractions import Fraction

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
    """Add the arguments of `degla attack`."""
    verb.add_argument("models", nargs="+", metavar="MODEL", help="as for degla evaluate; networks only")
    seed = "seed of starts, drawn images and intervals (0)"
    describe_questions(verb, benchmarks="zeroshot, world: those with classes", seed=seed)
    verb.add_argument(
        "--epsilon",
        nargs="+",
        type=_size,
        default=[1 / 255],
        metavar="SIZE",
        help="largest change of a pixel whose range is 0 to 1, a fraction or a number; one or more (1/255)",
    )
    verb.add_argument("--steps", type=int, default=10, help="steps of each attack (10)")
    verb.add_argument("--step-size", type=float, metavar="SHARE", help="step as a share of epsilon (2.5 / steps)")
    verb.add_argument("--images", type=int, metavar="N", help="attack N images of each part, drawn by chance (all)")
    describe_results(verb)


def run(given: argparse.Namespace) -> int:
    """Attack each model and show them side by side."""
    check_models(given)
    refuse_several_processes("attack")
    check_questions(given)

    from degla.evaluation.robustness import AttackSettings, attack_model
    from degla.evaluation.run import ask_all
    from degla.evaluation.terminal import render_attacks

    settings = AttackSettings(given.epsilon, given.steps, given.step_size, given.images, given.seed)
    questions = ask_all(given.benchmarks, given.root, allow_missing=given.allow_missing)  # Before a model is looked up.
    results = [
        attack_model(encoder, settings, questions, root=given.root, tie=given.tie, label=label)
        for encoder, label in networks(given)
    ]
    show_results(given, results, lambda: render_attacks(results))
    return 0


def _size(text: str) -> float:
    """A number or a fraction above 0 and at most 1."""
    try:
        size = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number and no fraction such as 1/255") from None
    if not 0 < size <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and at most 1; pixels are from 0 to 1")
    return size
