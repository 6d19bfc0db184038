"""Softmax or sigmoid form of an objective, depending on whether the model has a logit bias."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from degla.errors import InputError
from degla.losses.core.objective import AnyLoss, loss_class
from degla.shelf import LOSSES

SIGMOID = "sigmoid_"
"""Prefix of a loss that is the sigmoid form of another."""

BIAS = "bias"
"""Input read by losses that work only for models with a bias."""


def fit_to_model(losses: Mapping[str, AnyLoss], *, biased: bool, model: str) -> dict[str, AnyLoss]:
    """Return the active losses in the form that suits the model.

    Args:
        losses: losses by name; those with weight 0 are dropped.
        biased: whether the model has a `logit_bias`, as models trained with a sigmoid loss have.
        model: name of the model, for messages.

    Returns:
        For a model without a bias, the losses themselves. For one with a bias, the sigmoid form of each loss that has
        one, with its settings, and losses that do not read the scale unchanged.

    Raises:
        InputError: the model has no bias and a loss reads it; or it has one, and a loss that reads the scale has no
            sigmoid form or has a setting that its sigmoid form lacks.
    """
    active = {name: loss for name, loss in losses.items() if loss.weight > 0}
    if not biased:
        wrong = [name for name, loss in active.items() if BIAS in loss.reads]
        if wrong:
            plain = ", ".join(name.removeprefix(SIGMOID) for name in wrong if name.startswith(SIGMOID))
            all_have_one = all(name.startswith(SIGMOID) for name in wrong)
            other = f"Use {plain} instead, or choose" if all_have_one else "Choose"
            raise InputError(
                f"{model}: the model has no logit_bias, but this recipe needs one for {', '.join(wrong)}. {other} a "
                "model trained with a sigmoid loss, such as SigLIP."
            )
        return active
    forms = {name: SIGMOID + name for name in active if SIGMOID + name in LOSSES.names()}
    refused = [name for name, loss in active.items() if loss.scaled and BIAS not in loss.reads and name not in forms]
    if refused:
        having = [name.removeprefix(SIGMOID) for name in LOSSES.names() if name.startswith(SIGMOID)]
        raise InputError(
            f"{model}: the model has a logit_bias, like all models trained with a sigmoid loss, but this recipe's "
            f"{', '.join(refused)} would use its scale without the bias, and neither would fit the embeddings. The "
            "model can be evaluated. To train it, choose a recipe whose losses have a sigmoid form "
            f"({', '.join(having)}), such as clip, negclip or degla. To use this recipe, choose a model without "
            "logit_bias."
        )
    twice = [name for name in forms.values() if name in active]
    if twice:
        raise InputError(
            f"{model}: the model has a logit_bias, so {twice[0].removeprefix(SIGMOID)} is computed as {twice[0]}, but "
            "both have a weight. Set one of the two weights to 0."
        )
    return {
        forms.get(name, name): _sigmoid_form(name, loss) if name in forms else loss for name, loss in active.items()
    }


def _sigmoid_form(name: str, loss: Any) -> AnyLoss:
    """Return the sigmoid form of a loss, with all settings of its softmax form."""
    form: Any = loss_class(SIGMOID + name)
    names = {field.name for field in dataclasses.fields(form)}
    settings = {}
    for field in dataclasses.fields(loss):
        value = getattr(loss, field.name)
        if field.name in names:
            settings[field.name] = value
        elif value != field.default:
            flag = f"--objective.{name}.{field.name}".replace("_", "-")
            raise InputError(
                f"{flag} {value} has no sigmoid form; keep it at {field.default} for a model with a logit_bias."
            )
    result: AnyLoss = form(**settings)
    return result
