"""Time the image tower's patch convolution, forward and backward: as is, channels-last, and as a linear layer."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from torch import Tensor, nn

from degla.cli import exit_status_of
from degla.model.linear_kernel import linear
from degla.speed.machine import device_name
from degla.verbs._arguments import at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--size", type=at_least(1), default=224, help="image side in pixels (224)")
    parser.add_argument("--patch", type=at_least(1), default=32, help="patch side in pixels (32)")
    parser.add_argument("--width", type=at_least(1), default=768)
    parser.add_argument("--runs", type=at_least(1), default=10)
    given = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(given.batch_size, 3, given.size, given.size)
    layer = nn.Conv2d(3, given.width, given.patch, stride=given.patch, bias=False)
    turned = nn.Conv2d(3, given.width, given.patch, stride=given.patch, bias=False)
    turned.load_state_dict(layer.state_dict())
    turned.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = given.size // given.patch

    def cut() -> Tensor:
        parts = images.view(given.batch_size, 3, side, given.patch, side, given.patch)
        rows = parts.permute(0, 2, 4, 1, 3, 5).reshape(given.batch_size, side * side, -1)
        return linear(rows, layer.weight.flatten(1), None)

    ways: dict[str, tuple[Callable[[], Tensor], nn.Conv2d]] = {
        "as it is": (lambda: layer(images).flatten(2).transpose(1, 2), layer),
        # Converting the images is part of it: the data delivers them as planes.
        "channels-last": (
            lambda: turned(images.contiguous(memory_format=torch.channels_last)).flatten(2).transpose(1, 2),
            turned,
        ),
        "linear layer": (cut, layer),
    }
    expected = ways["as it is"][0]().detach()
    grad = torch.randn_like(expected)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.runs + 1):
        for name, (run, held) in ways.items():
            started = time.process_time()
            rows = run()
            rows.backward(grad)
            seconds[name].append(time.process_time() - started)
            torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-4)
            held.zero_grad()
    # The cost of the rest of the tower: twelve blocks of four products, each forward and twice backward.
    tokens, width = given.batch_size * (side * side + 1), given.width
    inner, outer = torch.randn(tokens, width), torch.randn(4 * width, width)
    linear(inner, outer, None)
    started = time.process_time()
    linear(inner, outer, None)
    product = time.process_time() - started
    print(f"{device_name(torch.device('cpu'))}, B={given.batch_size}, {given.size} pixels, fp32; processor seconds")
    for name, values in seconds.items():
        print(f"{name:<14} {statistics.median(values[1:]) * 1000:7.1f} ms, {min(values[1:]) * 1000:.1f} at best")
    print(f"linear layers of twelve blocks: about {12 * 3 * 3 * product * 1000:.0f} ms")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
