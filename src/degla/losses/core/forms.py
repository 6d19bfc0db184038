"""Softmax or sigmoid: the form of an objective follows from the model, which has a bias beside its scale or has not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from degla.errors import InputError
from degla.losses.core.objective import AnyLoss, loss_class
from degla.shelf import LOSSES

SIGMOID = "sigmoid_"
"""How the name of a loss begins that is the sigmoid form of another."""

BIAS = "bias"
"""What a loss reads that is for models with a bias alone."""


def fit_to_model(losses: Mapping[str, AnyLoss], *, biased: bool, model: str) -> dict[str, AnyLoss]:
    """The active losses in the form that a model of this kind is trained with.

    Args:
        losses: by name; those of weight 0 are left out.
        biased: whether the model has a `logit_bias`, as models of the sigmoid loss have.
        model: its name, for messages.

    Returns:
        For a model without a bias, the losses themselves. For one with a bias, the sigmoid form of each loss that has
        one, with its settings, and what reads no scale as it is.

    Raises:
        InputError: a loss that reads a bias for a model without one; a loss that reads the scale and has no sigmoid
            form, or a setting that its sigmoid form has not, for a model with a bias.
    """
    active = {name: loss for name, loss in losses.items() if loss.weight > 0}
    if not biased:
        wrong = [name for name, loss in active.items() if BIAS in loss.reads]
        if wrong:
            plain = ", ".join(name.removeprefix(SIGMOID) for name in wrong if name.startswith(SIGMOID))
            all_have_one = all(name.startswith(SIGMOID) for name in wrong)
            other = f"Use {plain} instead, or take" if all_have_one else "Take"
            raise InputError(
                f"{model}: has no logit_bias, which {', '.join(wrong)} read. {other} a model of the sigmoid loss, such "
                "as SigLIP."
            )
        return active
    forms = {name: SIGMOID + name for name in active if SIGMOID + name in LOSSES.names()}
    refused = [name for name, loss in active.items() if loss.scaled and BIAS not in loss.reads and name not in forms]
    if refused:
        having = [name.removeprefix(SIGMOID) for name in LOSSES.names() if name.startswith(SIGMOID)]
        raise InputError(
            f"{model}: has a logit_bias, as SigLIP and other models of the sigmoid loss have, and this recipe's "
            f"{', '.join(refused)} read its scale without the bias: both would no longer fit the embeddings. The "
            "model can be evaluated. To train it, take a recipe of losses that have a sigmoid form "
            f"({', '.join(having)}), such as clip, negclip or degla; to train by this recipe, take a model without "
            "logit_bias."
        )
    twice = [name for name in forms.values() if name in active]
    if twice:
        raise InputError(
            f"{model}: has a logit_bias, so {twice[0].removeprefix(SIGMOID)} is computed as {twice[0]}, and both have "
            "a weight. Set one of the two weights to 0."
        )
    return {
        forms.get(name, name): _sigmoid_form(name, loss) if name in forms else loss for name, loss in active.items()
    }


def _sigmoid_form(name: str, loss: Any) -> AnyLoss:
    """The loss of the sigmoid form with all settings of another's softmax form."""
    form: Any = loss_class(SIGMOID + name)
    known = {field.name for field in dataclasses.fields(form)}
    settings = {}
    for field in dataclasses.fields(loss):
        value = getattr(loss, field.name)
        if field.name in known:
            settings[field.name] = value
        elif value != field.default:
            flag = f"--objective.{name}.{field.name}".replace("_", "-")
            raise InputError(
                f"{flag} {value} has no sigmoid form; leave it at {field.default} for a model with a logit_bias."
            )
    found: AnyLoss = form(**settings)
    return found
