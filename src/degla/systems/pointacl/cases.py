"""Training, measuring and pictures of PointACL and its baselines."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from degla.pages.page import Figure
from degla.systems.pointacl.clouds import CloudPoints, Clouds, read_clouds
from degla.systems.pointacl.network import PointNetwork, all_patches, encode_clouds, load_network
from degla.systems.pointacl.picture import draw_clouds
from degla.systems.pointacl.settings import PointaclSettings, check_settings
from degla.systems.pointacl.training import pretraining_loss, turns
from degla.systems.probe import classify, probe
from degla.systems.system import Case, Weights

_NOISE = 0.05
_CUT = 0.4


def train(settings: PointaclSettings, case: Case) -> Weights:
    """One encoder, on clouds without labels that are turned and scaled anew each time."""
    check_settings(settings)
    clouds, _, _ = read_clouds(settings, case.data, case.seed)
    centres, points = all_patches(settings, clouds.points)
    network = PointNetwork(settings)
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=0.05)
    steps = settings.epochs * -(-len(centres) // settings.batch)
    warm = max(1, steps // 30)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps + 1, pct_start=min(0.75, warm / steps), cycle_momentum=False
    )
    for _ in range(settings.epochs):
        for rows in torch.split(torch.randperm(len(centres)), settings.batch):
            turn = turns(len(rows))
            batch = (centres[rows] @ turn, points[rows] @ turn[:, None])
            optimizer.zero_grad()
            pretraining_loss(network, settings, case.method, batch).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            schedule.step()
    return dict(network.state_dict())


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


def draw(settings: PointaclSettings, models: Mapping[Case, Weights]) -> Figure | None:
    """Solids coloured by the significance of their patches, and what a mask by it keeps."""
    for case, weights in models.items():
        if case.method == "pointacl":
            _, _, test = read_clouds(settings, case.data, case.seed)
            return draw_clouds(load_network(settings, weights), settings, test.points, data=case.data)
    return None
