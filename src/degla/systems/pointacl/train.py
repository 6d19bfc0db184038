"""Training, measuring and pictures of PointACL and its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from degla.model.token_mask import MaskedTokens, gumbel, largest, places_of, sampling_keys, taken
from degla.pages import plot as svg
from degla.pages.page import Figure
from degla.systems.pointacl.clouds import CloudPoints, Clouds, patches_of, read_clouds
from degla.systems.pointacl.network import Encoded, PointNetwork
from degla.systems.pointacl.settings import PointaclSettings
from degla.systems.probe import classify, probe
from degla.systems.system import Case, Weights

MASKED_BY: Final[dict[str, MaskedTokens]] = {
    "point_mae": "random",
    "random_contrast": "random",
    "pointacl": "high",
    "low_contrast": "low",
}
"""How each method draws the patches that are left out."""
_NOISE = 0.05
_CUT = 0.4
_READ = 200
"""Clouds at a time where no gradient is kept."""


def chamfer(found: Float[Tensor, "*batch points 3"], true: Float[Tensor, "*batch others 3"]) -> Float[Tensor, ""]:
    """Mean squared distance of each point to the nearest of the other set, both ways added (Chamfer-L2)."""
    squared = (found[..., :, None, :] - true[..., None, :, :]).square().sum(dim=-1)
    return squared.amin(dim=-1).mean() + squared.amin(dim=-2).mean()


def info_nce(
    one: Float[Tensor, "batch dim"], other: Float[Tensor, "batch dim"], *, temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of each row's own partner among all of the batch, the mean of both ways; unit rows."""
    logits = one @ other.T / temperature
    own = torch.arange(len(one))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def pretraining_loss(
    network: PointNetwork, settings: PointaclSettings, method: str, patches: tuple[CloudPoints, Tensor]
) -> Float[Tensor, ""]:
    """Chamfer distance of the patches that were left out, and the weighted contrast where the method has one.

    Args:
        network: that is trained.
        settings: mask, weight, temperatures.
        method: of `MASKED_BY`.
        patches: centres and points of each, as `patches_of` gives them.
    """
    centres, points = patches
    tokens, places = network.tokens(points), network.place(centres)
    weight = 0.0 if method == "point_mae" else settings.weight
    whole = None
    by = MASKED_BY[method]
    if weight or by != "random":
        whole = network.encode(tokens, places, scores=True)
    noise = gumbel(centres[:, :, 0])
    scores = noise if whole is None or whole.scores is None else whole.scores
    keys = sampling_keys(scores, noise, temperature=settings.sampling_temperature, by=by)
    kept, left = places_of(largest(keys, settings.mask))
    seen = network.encode(taken(tokens, kept), taken(places, kept))
    true = points.gather(1, left[:, :, None, None].expand(-1, -1, *points.shape[2:]))
    loss = chamfer(network.rebuild(seen, places, kept, left), true)
    if weight and whole is not None:
        loss = loss + weight * info_nce(network.project(seen), network.project(whole), temperature=settings.temperature)
    return loss


def train(settings: PointaclSettings, case: Case) -> Weights:
    """One encoder, on clouds without labels that are turned and scaled anew each time."""
    clouds, _, _ = read_clouds(settings, case.data, case.seed)
    centres, points = _patched(settings, clouds.points)
    network = PointNetwork(settings)
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=0.05)
    steps = settings.epochs * -(-len(centres) // settings.batch_size)
    warm = max(1, steps // 30)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps + 1, pct_start=min(0.5, warm / steps), cycle_momentum=False
    )
    for _ in range(settings.epochs):
        for rows in torch.split(torch.randperm(len(centres)), settings.batch_size):
            turn = _turns(len(rows))
            batch = (centres[rows] @ turn, points[rows] @ turn[:, None])
            optimizer.zero_grad()
            pretraining_loss(network, settings, case.method, batch).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            schedule.step()
    return dict(network.state_dict())


def _turns(count: int) -> Float[Tensor, "count 3 3"]:
    """Turns about the upright axis, each times a scale of 2/3 to 3/2."""
    angle = 2 * torch.pi * torch.rand(count)
    scale = (2 / 3) * (9 / 4) ** torch.rand(count)
    zero, one = torch.zeros(count), torch.ones(count)
    rows = [[angle.cos(), angle.sin(), zero], [-angle.sin(), angle.cos(), zero], [zero, zero, one]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1) * scale[:, None, None]


def _patched(settings: PointaclSettings, points: CloudPoints) -> tuple[CloudPoints, Tensor]:
    found = [patches_of(part, patches=settings.patches, size=settings.patch_points)
             for part in torch.split(points, _READ)]  # fmt: skip
    return torch.cat([centres for centres, _ in found]), torch.cat([near for _, near in found])


def load_network(settings: PointaclSettings, weights: Weights) -> PointNetwork:
    """The network of these weights, in evaluation mode."""
    network = PointNetwork(settings)
    network.load_state_dict(dict(weights))
    return network.eval()


def encode_clouds(network: PointNetwork, settings: PointaclSettings, points: CloudPoints) -> Encoded:
    """The encoder on whole clouds, without gradients."""
    parts = []
    with torch.no_grad():
        for part in torch.split(points, _READ):
            centres, near = _patched(settings, part)
            parts.append(network.encode(network.tokens(near), network.place(centres), scores=True))
    scores = [part.scores for part in parts if part.scores is not None]
    return Encoded(torch.cat([part.summary for part in parts]), torch.cat([part.patches for part in parts]),
                   torch.cat(scores))  # fmt: skip


def cut_out(points: CloudPoints, share: float) -> CloudPoints:
    """Without the share of the points that are nearest to one drawn by chance; the first of the others again in their
    place, so that their number stays."""
    count = int(share * points.shape[1])
    middle = points[torch.arange(len(points)), torch.randint(points.shape[1], (len(points),))]
    order = (points - middle[:, None]).square().sum(dim=2).argsort(dim=1)
    left = order[:, count:]
    again = left.repeat(1, -(-points.shape[1] // left.shape[1]))[:, : points.shape[1]]
    return points.gather(1, again[:, :, None].expand(-1, -1, 3))


def measure(settings: PointaclSettings, case: Case, weights: Weights) -> Mapping[str, float]:
    """Accuracy of a linear classifier on frozen features, on test clouds as they are, noisy and cut."""
    _, labelled, test = read_clouds(settings, case.data, case.seed)
    network = load_network(settings, weights)
    classes = int(max(labelled.label.max(), test.label.max())) + 1
    found = probe(encode_clouds(network, settings, labelled.points).features, labelled.label, classes=classes)
    forms = {
        "clean": test.points,
        "noise": test.points + _NOISE * torch.randn_like(test.points),
        "cut_out": cut_out(test.points, _CUT),
    }
    return {name: _accuracy(network, settings, found, Clouds(points, test.label)) for name, points in forms.items()}


def _accuracy(network: PointNetwork, settings: PointaclSettings, found: Tensor, test: Clouds) -> float:
    features = encode_clouds(network, settings, test.points).features
    return float((classify(found, features) == test.label).float().mean())


def draw(settings: PointaclSettings, models: Mapping[Case, Weights]) -> Sequence[Figure]:
    """Solids coloured by the significance of their patches, and what a mask by it keeps."""
    figures = []
    for case, weights in models.items():
        if case.method == "pointacl":
            _, _, test = read_clouds(settings, case.data, case.seed)
            caption = (
                "Test clouds. Above: points in the colour of their nearest patch's significance, dark for little. "
                f"Below: patches that stay where a share of {settings.mask:g} is left out by it; crosses: centres of "
                "those left out."
            )
            drawn = svg.both_widths(partial(_draw_clouds, settings, weights, test.points[:5]))
            figures.append(Figure(drawn, caption, title=case.data))
    return figures


@svg.styled
def _draw_clouds(settings: PointaclSettings, weights: Weights, clouds: CloudPoints, width: float) -> str:
    network = load_network(settings, weights)
    centres, near = _patched(settings, clouds)
    scores = encode_clouds(network, settings, clouds).scores
    assert scores is not None
    generator = torch.Generator().manual_seed(0)
    keys = sampling_keys(scores, gumbel(scores, generator=generator), temperature=settings.sampling_temperature)
    left = largest(keys, settings.mask)
    figure, first = svg.new_figure(width, width * 0.42)
    first.remove()
    for place, cloud in enumerate(clouds):
        nearest = torch.cdist(cloud, centres[place]).argmin(dim=1)
        stay = (near[place] + centres[place][:, None])[~left[place]].flatten(0, 1)
        out = centres[place][left[place]]
        for row, (points, colour) in enumerate(((cloud, scores[place][nearest]), (stay, None))):
            axes: Any = figure.add_subplot(2, len(clouds), row * len(clouds) + place + 1, projection="3d")
            colours = {"color": svg.PALETTE[0]} if colour is None else {"c": colour.numpy(), "cmap": "viridis"}
            axes.scatter(*points.numpy().T, s=4, linewidths=0, **colours)
            if row:
                axes.scatter(*out.numpy().T, s=14, marker="x", color=svg.PALETTE[1], linewidths=1)
            axes.set_axis_off()
            axes.set_box_aspect((1, 1, 1))
    figure.tight_layout(pad=0.2)
    return svg.to_svg(figure, "pointacl")
