"""measure recognition accuracy under adversarial attacks on the images"""

from __future__ import annotations

import argparse
from fractions import Fraction

from degla.verbs._scoring import check_networks, describe_networks, describe_results, measure_networks


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla attack`."""
    seed = "seed of attack starts, sampled images and intervals (0)"
    describe_networks(verb, benchmarks="benchmarks with classes: zeroshot, world", seed=seed)
    verb.add_argument(
        "--epsilon",
        nargs="+",
        type=_size,
        default=[1 / 255],
        metavar="SIZE",
        help="one or more bounds on the change of a pixel (pixels range from 0 to 1), numbers or fractions (1/255)",
    )
    verb.add_argument("--steps", type=int, default=10, metavar="N", help="steps of each attack (10)")
    verb.add_argument("--step-size", type=float, metavar="SHARE", help="step size as a share of epsilon (2.5 / steps)")
    verb.add_argument("--images", type=int, metavar="N", help="attack N random images of each part (all)")
    describe_results(verb)


def run(arguments: argparse.Namespace) -> int:
    """Attack each model and show the results side by side."""
    check_networks(arguments)

    from degla.evaluation.robustness import AttackSettings, attack_model, require_classes
    from degla.evaluation.terminal import render_attacks

    settings = AttackSettings(arguments.epsilon, arguments.steps, arguments.step_size, arguments.images, arguments.seed)
    return measure_networks(
        arguments,
        lambda encoder, questions, label: attack_model(
            encoder, settings, questions, root=arguments.root, tie=arguments.tie, label=label
        ),
        render_attacks,
        require_classes,
    )


def _size(text: str) -> float:
    """Parse a number or a fraction above 0 and at most 1."""
    try:
        size = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a fraction such as 1/255") from None
    if not 0 < size <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and at most 1; pixels range from 0 to 1")
    return size
