"""Training, measuring and pictures of ExCon and supervised contrast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from degla.model.attack import AttackConfig, perturb
from degla.model.evidence import above, enlarge, grad_cam, top_share, unit_range
from degla.pages import plot as svg
from degla.pages.page import Figure
from degla.systems.excon.measures import average_drop, calibration_error, rate_of_increase
from degla.systems.excon.pictures import LabelledPictures, batches, read_pictures
from degla.systems.excon.settings import ExconSettings
from degla.systems.excon.supcon import supervised_contrast
from degla.systems.system import Case, Weights

Pixels = Float[Tensor, "batch 3 height width"]
_KEPT = 0.15
"""Share of the pixels that an explanation keeps when it is measured."""
_EPSILON = 2 / 255
_NOISE = 0.1
_WIDTHS = (16, 32, 64)
_READ = 500
"""Pictures at a time where no gradient is kept."""


class Network(nn.Module):
    """Three convolutions to states, their mean as features; a head for the contrast, a linear classifier."""

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *_WIDTHS), (*_WIDTHS, 0), strict=True):
            if after:
                step = 1 if before == 3 else 2
                layers += [nn.Conv2d(before, after, 3, step, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        width = _WIDTHS[-1]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.classifier = nn.Linear(width, classes)
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))

    def classify(self, states: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the classes."""
        return self.classifier(states.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def embed(self, images: Pixels) -> Float[Tensor, "batch dim"]:
        """Unit embeddings of the head."""
        return normalize(self.head(self.body(images).mean(dim=(2, 3))), dim=1)

    def normalised(self, pixels: Tensor) -> Pixels:
        """Bytes to what the network reads; 0 is the mean colour."""
        return (pixels.float() / 255 - self.mean) / self.std


@contextmanager
def looking(network: Network) -> Iterator[None]:
    """Evaluation mode without gradients, and the mode before it behind the block."""
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(mode)


def explain(
    network: Network, images: Pixels, label: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch height width"], Float[Tensor, "batch classes"]]:
    """Grad-CAM of a class of each picture, 0 to 1, and the logits of all; the network stays as it is."""
    with looking(network):
        states = network.body(images)
        logits = network.classify(states)
        evidence = grad_cam(states, lambda leaf: network.classify(leaf).gather(1, label[:, None])[:, 0])
        return unit_range(enlarge(evidence, (images.shape[2], images.shape[3]))), logits


def masked_views(
    network: Network, images: Pixels, label: Int[Tensor, " batch"], *, threshold: float
) -> tuple[Pixels, Tensor]:
    """What the explanation of its own class keeps of each picture, and whether the class is still found in it."""
    evidence, _ = explain(network, images, label)
    masked = images * above(evidence, threshold)[:, None]
    with looking(network):
        return masked, network.classify(network.body(masked)).argmax(dim=1) == label


def augment(images: Pixels, *, least: float = 0.2) -> Pixels:
    """A crop of a share of the area, mirrored or not, with other brightness, contrast and, of some, no colour."""
    count = len(images)
    side = (least + (1 - least) * torch.rand(count)).sqrt()
    move = (2 * torch.rand(count, 2) - 1) * (1 - side)[:, None]
    turn = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    affine = torch.stack([torch.stack([side * turn, zero, move[:, 0]], 1), torch.stack([zero, side, move[:, 1]], 1)], 1)
    views = grid_sample(images, affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)
    jitter = (torch.rand(count, 1, 1, 1) < 0.8).float()
    factor = 1 + jitter * (0.8 * torch.rand(count, 1, 1, 1) - 0.4)
    shift = jitter * (0.8 * torch.rand(count, 3, 1, 1) - 0.4)
    views = views * factor + shift
    grey = views.mean(dim=1, keepdim=True).expand_as(views)
    return torch.where(torch.rand(count, 1, 1, 1) < 0.2, grey, views)


def train(settings: ExconSettings, case: Case) -> Weights:
    """One network by supervised contrast, with masked views and backgrounds as the method says."""
    pictures, _ = _data(settings, case)
    network = Network(int(pictures.label.max()) + 1)
    shares = pictures.pixels.float() / 255
    network.mean.copy_(shares.mean(dim=(0, 2, 3)).view(3, 1, 1))
    network.std.copy_(shares.std(dim=(0, 2, 3)).view(3, 1, 1).clamp(min=0.05))
    images = network.normalised(pictures.pixels)
    trained = [*network.body.parameters(), *network.head.parameters()]
    contrast = torch.optim.SGD(trained, lr=settings.lr, momentum=0.9, weight_decay=1e-4)
    classify = torch.optim.SGD(network.classifier.parameters(), lr=settings.lr, momentum=0.9, weight_decay=1e-4)
    schedules = [
        torch.optim.lr_scheduler.CosineAnnealingLR(each, settings.epochs, settings.lr / 1000)
        for each in (contrast, classify)
    ]
    for epoch in range(settings.epochs):
        masks = case.method != "supcon" and epoch >= settings.explained_from
        network.train()
        for rows in batches(len(images), settings.batch_size):
            loss = _contrast(network, images[rows], pictures.label[rows], settings, case.method if masks else "supcon")
            contrast.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            contrast.step()
        _train_classifier(network, images, pictures.label, classify, size=settings.batch_size)
        for schedule in schedules:
            schedule.step()
    _train_classifier(network, images, pictures.label, torch.optim.Adam(network.classifier.parameters(), 3e-3),
                      size=settings.batch_size, epochs=30)  # fmt: skip
    return dict(network.state_dict())


def _contrast(
    network: Network, images: Pixels, label: Int[Tensor, " batch"], settings: ExconSettings, method: str
) -> Tensor:
    first, second = augment(images), augment(images)
    background = images[:0]
    if method != "supcon":
        masked, found = masked_views(network, images, label, threshold=settings.threshold)
        first = torch.where(found[:, None, None, None], masked, first)
        background = masked[~found] if method == "excon_b" else background
    embeddings = network.embed(torch.cat([first, second, background]))
    views, others = embeddings[: 2 * len(images)], embeddings[2 * len(images) :]
    # A background belongs to both views, as in the released code: it counts twice.
    return supervised_contrast(
        views, label.repeat(2), temperature=settings.temperature, background=torch.cat([others, others])
    )


def _train_classifier(
    network: Network,
    images: Pixels,
    label: Int[Tensor, " pictures"],
    optimizer: torch.optim.Optimizer,
    *,
    size: int,
    epochs: int = 1,
) -> None:
    with looking(network):
        features = torch.cat([network.body(part).mean(dim=(2, 3)) for part in torch.split(images, _READ)])
    for _ in range(epochs):
        for rows in batches(len(features), size):
            optimizer.zero_grad()
            loss = cross_entropy(network.classifier(features[rows]), label[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _data(settings: ExconSettings, case: Case) -> tuple[LabelledPictures, LabelledPictures]:
    return read_pictures(case.data, images=settings.images, test_images=settings.test_images, seed=case.seed,
                         validation=settings.validation)  # fmt: skip


def load_network(weights: Weights) -> Network:
    """The network of these weights, in evaluation mode."""
    network = Network(len(weights["classifier.bias"]))
    network.load_state_dict(dict(weights))
    return network.eval()


def measure(settings: ExconSettings, case: Case, weights: Weights) -> Mapping[str, float]:
    """Accuracy, and what the explanations of the predicted classes keep, on test pictures."""
    _, test = _data(settings, case)
    network = load_network(weights)
    found = [_measured(network, part) for part in _parts(test)]
    before, after, noisy, right, attacked = (torch.cat(column) for column in zip(*found, strict=True))
    return {
        "accuracy": float(right.float().mean()),
        "drop": average_drop(before, after),
        "increase": rate_of_increase(before, after),
        "attacked": float(attacked.float().mean()),
        "calibration": calibration_error(noisy, test.label),
    }


def _parts(pictures: LabelledPictures) -> Iterator[LabelledPictures]:
    for rows in torch.split(torch.arange(len(pictures.label)), _READ):
        yield pictures.chosen(rows)


def _measured(network: Network, part: LabelledPictures) -> list[Tensor]:
    images = network.normalised(part.pixels)
    with looking(network):
        logits = network.classify(network.body(images))
    predicted = logits.argmax(dim=1)
    evidence, _ = explain(network, images, predicted)
    kept = images * top_share(evidence, _KEPT)[:, None]
    noise = torch.randn_like(images) * _NOISE / network.std
    step = AttackConfig(epsilon=_EPSILON, steps=1, step_size=_EPSILON, random_start=False)
    attacked = perturb(images, config=step, mean=network.mean, std=network.std,
                       gradient=partial(_gradient, network, part.label))  # fmt: skip
    with looking(network):
        answers = [network.classify(network.body(each)) for each in (kept, images + noise, attacked)]
    before, after = (each.softmax(dim=1).gather(1, predicted[:, None])[:, 0] for each in (logits, answers[0]))
    return [before, after, answers[1].softmax(dim=1), predicted == part.label,
            answers[2].argmax(dim=1) == part.label]  # fmt: skip


def _gradient(network: Network, label: Int[Tensor, " batch"], images: Pixels) -> Pixels:
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        loss = cross_entropy(network.classify(network.body(leaf)), label, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def draw(settings: ExconSettings, models: Mapping[Case, Weights]) -> Sequence[Figure]:
    """Explanations of all methods for the first test pictures of each data set."""
    figures = []
    for data in dict.fromkeys(case.data for case in models):
        cases = [case for case in models if case.data == data]
        _, test = _data(settings, cases[0])
        shown = {case.method: _explained(load_network(models[case]), test.chosen(torch.arange(8))) for case in cases}
        caption = (
            "Test pictures; below, for each method, what Grad-CAM of the predicted class keeps above the threshold of "
            f"{settings.threshold:g}, the rest in the mean colour."
        )
        figures.append(Figure(svg.both_widths(partial(_draw_rows, data, test.pixels[:8], shown)), caption, title=data))
    return figures


def _explained(network: Network, part: LabelledPictures) -> Tensor:
    images = network.normalised(part.pixels)
    with looking(network):
        predicted = network.classify(network.body(images)).argmax(dim=1)
    evidence, _ = explain(network, images, predicted)
    kept = images * above(evidence, 0.5)[:, None]
    return ((kept * network.std + network.mean) * 255).round().clamp(0, 255).byte()


@svg.styled
def _draw_rows(data: str, pixels: Tensor, shown: Mapping[str, Tensor], width: float) -> str:
    rows = {"": pixels, **shown}
    figure, first = svg.new_figure(width, width * len(rows) / (len(pixels) + 1))
    first.remove()
    panels: Any = figure.subplots(len(rows), len(pixels))
    for line, (name, pictures) in zip(panels, rows.items(), strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture.permute(1, 2, 0).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name)
    figure.tight_layout(pad=0.4)
    return svg.to_svg(figure, f"excon-{data}")
