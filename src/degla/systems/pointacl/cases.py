"""Training, evaluation and figures of PointACL and its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from degla.model.token_mask import gumbel, largest, sampling_keys
from degla.pages.page import Figure
from degla.pages.plot import PALETTE, new_figure, styled, to_svg
from degla.systems.learning import batches, classify, probe, take_step, with_weights
from degla.systems.pointacl.clouds import CloudPoints, CloudSets
from degla.systems.pointacl.network import (
    PointNetwork,
    all_patches,
    encode_clouds,
    pretraining_loss,
    turns,
)
from degla.systems.pointacl.settings import PointaclSettings
from degla.systems.system import Weights

_SHOWN: Final = 5
_SHOWN_NARROW: Final = 3
_NOISE = 0.05
_CUT = 0.4


def train(settings: PointaclSettings, data: CloudSets, method: str) -> Weights:
    """Train one encoder, on unlabelled clouds with a new rotation and scale each time."""
    clouds, _, _ = data
    centres, points = all_patches(settings, clouds.points)
    network = PointNetwork(settings)
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=0.05)
    steps = settings.epochs * -(-len(centres) // settings.batch)
    warm = max(1, steps // 30)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps + 1, pct_start=min(0.75, warm / steps), cycle_momentum=False
    )
    for rows in batches(len(centres), settings.batch, epochs=settings.epochs):
        turn = turns(len(rows))
        batch = (centres[rows] @ turn, points[rows] @ turn[:, None])
        take_step(pretraining_loss(network, settings, method, batch), optimizer, most=10.0)
        schedule.step()
    return dict(network.state_dict())


def cut_out(points: CloudPoints, share: float) -> CloudPoints:
    """Remove the share of the points nearest to a random one, and repeat the first of the others to keep the number of
    points."""
    count = int(share * points.shape[1])
    middle = points[torch.arange(len(points)), torch.randint(points.shape[1], (len(points),))]
    order = (points - middle[:, None]).square().sum(dim=2).argsort(dim=1)
    remaining = order[:, count:]
    again = remaining.repeat(1, -(-points.shape[1] // remaining.shape[1]))[:, : points.shape[1]]
    return points.gather(1, again[:, :, None].expand(-1, -1, 3))


def measure(settings: PointaclSettings, data: CloudSets, method: str, weights: Weights) -> Mapping[str, float]:
    """Measure the accuracy of a linear classifier on frozen features, on original, noisy and cut test clouds."""
    _, labelled, test = data
    network = with_weights(PointNetwork(settings), weights)
    classes = int(max(labelled.label.max(), test.label.max())) + 1
    classifier = probe(encode_clouds(network, settings, labelled.points).features, labelled.label, classes=classes)
    forms = {
        "clean": test.points,
        "noise": test.points + _NOISE * torch.randn_like(test.points),
        "cut_out": cut_out(test.points, _CUT),
    }
    features = {name: encode_clouds(network, settings, points).features for name, points in forms.items()}
    return {name: float((classify(classifier, rows) == test.label).float().mean()) for name, rows in features.items()}


def draw(settings: PointaclSettings, data: CloudSets, models: Mapping[str, Weights], name: str) -> Figure | None:
    """Draw the first test clouds, fewer on a phone; below, the patches that stay, and the centres of those left out."""
    if "pointacl" not in models:
        return None
    network = with_weights(PointNetwork(settings), models["pointacl"])
    clouds = data[2].points[:_SHOWN]
    centres, near = all_patches(settings, clouds)
    scores = encode_clouds(network, settings, clouds).scores
    assert scores is not None
    noise = gumbel(scores, generator=torch.Generator().manual_seed(0))
    masked = largest(sampling_keys(scores, noise, temperature=settings.sampling_temperature), settings.mask)

    @styled
    def plot(width: float) -> str:
        from matplotlib.colors import LinearSegmentedColormap

        # Colour maps with a dark end would be invisible on a dark page.
        colours_of_scores = LinearSegmentedColormap.from_list("significance", PALETTE[:2])
        columns = min(len(clouds), _SHOWN if width > 6 else _SHOWN_NARROW)
        figure, first = new_figure(width, width * 2 / columns)
        first.remove()
        for place in range(columns):
            nearest = torch.cdist(clouds[place], centres[place]).argmin(dim=1)
            stay = (near[place] + centres[place][:, None])[~masked[place]].flatten(0, 1)
            by_score: dict[str, Any] = {"c": scores[place][nearest].numpy(), "cmap": colours_of_scores}
            layers = ((clouds[place], by_score), (stay, {"color": PALETTE[0]}))
            for line, (dots, colours) in enumerate(layers):
                axes: Any = figure.add_subplot(2, columns, line * columns + place + 1, projection="3d")
                axes.scatter(*dots.numpy().T, s=5, linewidths=0, **colours)
                if line:
                    axes.scatter(
                        *centres[place][masked[place]].numpy().T, s=14, marker="x", color=PALETTE[1], linewidths=1
                    )
                axes.set_axis_off()
                axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), zlim=(-0.8, 0.8))
                axes.set_box_aspect((1, 1, 1), zoom=1.3)
        figure.subplots_adjust(0, 0, 1, 1, 0, 0)
        return to_svg(figure, f"pointacl-{name}")

    caption = (
        "Test clouds. Above: points coloured by the significance of their nearest patch, from blue (low) to orange "
        f"(high). Below: patches that remain when a share of {settings.mask:g} is left out by it; crosses: centres of "
        "those left out."
    )
    return Figure(plot, caption, title=name)
