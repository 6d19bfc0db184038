"""Training, evaluation and figures of ExCon and supervised contrast."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from degla.errors import InputError
from degla.model.attack import AttackConfig, perturb
from degla.model.evidence import above, gradient_at, increased, relative_drop, top_share
from degla.pages.page import Figure
from degla.pages.plot import new_figure, styled, to_svg
from degla.systems.excon.images import ImageSets, LabelledImages
from degla.systems.excon.network import (
    Network,
    Pixels,
    augment,
    evaluating,
    explain,
    load_network,
    masked_views,
    supervised_contrast,
)
from degla.systems.excon.settings import ExconSettings
from degla.systems.learning import batches, take_step
from degla.systems.system import Weights

_SHOWN: Final = 8
_SHOWN_NARROW: Final = 4
_KEPT = 0.15
"""Share of the pixels that an explanation keeps when it is evaluated."""
_EPSILON = 2 / 255
_NOISE = 0.1
_BINS = 15
_READ = 500
"""Number of images per pass without gradients."""


def calibration_error(probability: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"]) -> float:
    """Return the expected calibration error (arXiv 1706.04599): sum over bins of share |accuracy - confidence|."""
    confidence, predicted = probability.max(dim=1)
    right = (predicted == label).to(confidence)
    place = (confidence * _BINS).ceil().long().clamp(1, _BINS) - 1
    gap = torch.zeros(_BINS, dtype=confidence.dtype).index_add_(0, place, right - confidence)
    return float(gap.abs().sum() / len(label))


def _evidence_pixels(network: Network, part: LabelledImages, threshold: float) -> Tensor:
    images = network.normalised(part.pixels)
    with evaluating(network):
        predicted = network.classify(network.body(images)).argmax(dim=1)
    masked = images * above(explain(network, images, predicted), threshold)[:, None]
    return ((masked * network.std + network.mean) * 255).round().clamp(0, 255).byte()


def train(settings: ExconSettings, data: ImageSets, method: str) -> Weights:
    """Train one network by supervised contrast, with the masked views and backgrounds of the method."""
    train_set, _ = data
    # A draw of few training images may lack classes that are tested.
    network = Network(1 + max(int(each.label.max()) for each in data))
    shares = train_set.pixels.float() / 255
    network.mean.copy_(shares.mean(dim=(0, 2, 3)).view(3, 1, 1))
    network.std.copy_(shares.std(dim=(0, 2, 3)).view(3, 1, 1).clamp(min=0.05))
    images = network.normalised(train_set.pixels)
    parameters = [*network.body.parameters(), *network.head.parameters()]
    contrast = torch.optim.SGD(parameters, lr=settings.lr, momentum=0.9, weight_decay=1e-4)
    classify = torch.optim.SGD(network.classifier.parameters(), lr=settings.lr, momentum=0.9, weight_decay=1e-4)
    schedules = [
        torch.optim.lr_scheduler.CosineAnnealingLR(each, settings.epochs, settings.lr / 1000)
        for each in (contrast, classify)
    ]
    for epoch in range(settings.epochs):
        now = method if epoch >= settings.explained_from else "supcon"
        network.train()
        for rows in batches(len(images), settings.batch):
            take_step(training_loss(network, images[rows], train_set.label[rows], settings, now), contrast)
        _train_classifier(network, images, train_set.label, classify, size=settings.batch)
        for schedule in schedules:
            schedule.step()
    optimizer = torch.optim.Adam(network.classifier.parameters(), 3e-3)
    _train_classifier(network, images, train_set.label, optimizer, size=settings.batch, epochs=30)
    return dict(network.state_dict())


def training_loss(
    network: Network, images: Pixels, label: Int[Tensor, " batch"], settings: ExconSettings, method: str
) -> Float[Tensor, ""]:
    """Return the contrast of two views of each image, as the method defines them."""
    first, second = augment(images), augment(images)
    background = images[:0]
    if method != "supcon":
        masked, right = masked_views(network, images, label, threshold=settings.threshold)
        first = torch.where(right[:, None, None, None], masked, first)
        background = masked[~right] if method == "excon_b" else background
    embeddings = network.embed(torch.cat([first, second, background]))
    views, others = embeddings[: 2 * len(images)], embeddings[2 * len(images) :]
    # A background belongs to both views, as in the released code: it counts twice.
    return supervised_contrast(
        views, label.repeat(2), temperature=settings.temperature, background=torch.cat([others, others])
    )


def _train_classifier(
    network: Network,
    images: Pixels,
    label: Int[Tensor, " images"],
    optimizer: torch.optim.Optimizer,
    *,
    size: int,
    epochs: int = 1,
) -> None:
    with evaluating(network):
        features = torch.cat([network.body(part).mean(dim=(2, 3)) for part in torch.split(images, _READ)])
    for rows in batches(len(features), size, epochs=epochs):
        take_step(cross_entropy(network.classifier(features[rows]), label[rows]), optimizer)


def measure(settings: ExconSettings, data: ImageSets, method: str, weights: Weights) -> Mapping[str, float]:
    """Measure accuracy and the explanations of predicted classes, on test images."""
    _, test = data
    network = load_network(weights)
    classes, last = len(network.classifier.bias), int(test.label.max())
    if last >= classes:
        raise InputError(
            f"--test-images {settings.test_images}: an image has class {last}, counted from 0, but the model was "
            f"trained for {classes} classes. Train it again with more --images."
        )
    places = torch.split(torch.arange(len(test.label)), _READ)
    parts = [_measure_part(network, test.select(rows)) for rows in places]
    before, after, noisy, right, attacked = (torch.cat(column) for column in zip(*parts, strict=True))
    return {
        "accuracy": float(right.float().mean()),
        "drop": float(relative_drop(before, after).mean()),
        "increase": float(increased(before, after).mean()),
        "attacked": float(attacked.float().mean()),
        "calibration": calibration_error(noisy, test.label),
    }


def _measure_part(network: Network, part: LabelledImages) -> list[Tensor]:
    images = network.normalised(part.pixels)
    with evaluating(network):
        logits = network.classify(network.body(images))
    predicted = logits.argmax(dim=1)
    masked = images * top_share(explain(network, images, predicted), _KEPT)[:, None]
    noise = torch.randn_like(images) * _NOISE / network.std
    step = AttackConfig(epsilon=_EPSILON, steps=1, step_size=_EPSILON, random_start=False)

    def loss(at: Pixels) -> Tensor:
        return cross_entropy(network.classify(network.body(at)), part.label, reduction="sum")

    gradient = partial(gradient_at, score=loss)
    attacked = perturb(images, config=step, mean=network.mean, std=network.std, gradient=gradient)
    with evaluating(network):
        answers = [network.classify(network.body(each)) for each in (masked, images + noise, attacked)]
    before, after = (each.softmax(dim=1).gather(1, predicted[:, None])[:, 0] for each in (logits, answers[0]))
    return [before, after, answers[1].softmax(dim=1), predicted == part.label, answers[2].argmax(dim=1) == part.label]


def draw(settings: ExconSettings, data: ImageSets, models: Mapping[str, Weights], name: str) -> Figure:
    """Draw the first test images, half as many on a phone; below, one row per method, what its explanation keeps."""
    few = data[1].select(torch.arange(min(_SHOWN, len(data[1].label))))
    rows = {"": few.pixels} | {
        method: _evidence_pixels(load_network(weights), few, settings.threshold) for method, weights in models.items()
    }

    @styled
    def plot(width: float) -> str:
        columns = min(len(few.label), _SHOWN if width > 6 else _SHOWN_NARROW)
        figure, panels = new_figure(width, width * len(rows) / (columns + 0.3), len(rows), columns, squeeze=False)
        for line, (method, pictures) in zip(panels, rows.items(), strict=True):
            for axes, picture in zip(line, pictures, strict=False):
                axes.imshow(picture.permute(1, 2, 0).numpy())
                axes.set_xticks([])
                axes.set_yticks([])
            line[0].set_ylabel(method)
        figure.tight_layout(pad=0.4)
        return to_svg(figure, f"excon-{name}")

    caption = (
        "Test images; below, for each method, what Grad-CAM of the predicted class keeps above the threshold of "
        f"{settings.threshold:g}, with the rest in the mean colour."
    )
    return Figure(plot, caption, title=name)
