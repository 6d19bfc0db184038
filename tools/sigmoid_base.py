"""Convert a softmax-loss model to a sigmoid-loss model: `python -m tools.sigmoid_base MODEL CAPTIONS --out FOLDER`.

Recipes such as c2lip need models with a `logit_bias`, which CLIP does not have. Scale and bias are chosen so that
sigmoid(s <v, t> + b) best separates pairs from the other pairs of their batch: they minimise SigLIP's loss over the
given captions, by Newton's method in float64. The towers, and so all rankings, stay the same.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import degla
from degla.cli import exit_status_of
from degla.data.sources import read_captions
from degla.errors import InputError
from degla.losses.core.pairwise import true_pair
from degla.model.checkpoint import save_encoder
from degla.model.load import load_encoder
from degla.pages.words import counted


def fit(
    images: Float[Tensor, "pairs dim"], captions: Float[Tensor, "pairs dim"], *, batch_size: int
) -> tuple[float, float, float]:
    """Return the fitted scale and bias, and the loss per pair.

    Args:
        images: unit embeddings, one row per pair.
        captions: unit embeddings of their captions.
        batch_size: pairs that are compared with each other; an incomplete batch is not used.
    """
    whole = len(images) // batch_size * batch_size
    rows, texts = (part[:whole].double().unflatten(0, (-1, batch_size)) for part in (images, captions))
    similarity = rows @ texts.transpose(1, 2)
    sign = 2 * torch.eye(batch_size, dtype=torch.float64) - 1

    def loss(values: Tensor) -> Tensor:
        return true_pair(sign * (values[0] * similarity + values[1])).sum() / whole

    values = torch.tensor([10.0, -10.0], dtype=torch.float64)
    for _ in range(100):
        slope = torch.func.grad(loss)(values)
        if slope.abs().max() < 1e-9:
            break
        step = torch.linalg.solve(torch.func.hessian(loss)(values), slope)
        while loss(values - step) > loss(values):
            step = step / 2
        values = values - step
    return float(values[0]), float(values[1]), float(loss(values))


def main() -> None:
    """Write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="any model with the softmax loss that degla accepts")
    parser.add_argument("captions", type=Path, help="pairs to fit scale and bias on")
    parser.add_argument("--images", type=Path, required=True, help="folder that the image paths are relative to")
    parser.add_argument("--out", type=Path, required=True, help="output folder, in open_clip's format")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=4096, help="number of captions to read from the start")
    given = parser.parse_args()
    encoder = load_encoder(given.model)
    rows = list(islice(read_captions(given.captions), given.pairs))
    if len(rows) < given.batch_size:
        held = counted(len(rows), "pair is", "pairs are")
        raise InputError(f"{given.captions}: {held} no batch of {given.batch_size}; see --batch-size.")
    captions = degla.encode_captions(encoder, [row.text for row in rows])
    images = degla.encode_images(encoder, [given.images / row.image for row in rows])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))  # Pairs of an image are adjacent.
    scale, bias, loss = fit(images[order], captions[order], batch_size=given.batch_size)
    encoder.add_bias(bias, scale=scale)
    save_encoder(encoder, given.out)
    print(f"{given.out}: scale {scale:.3f}, bias {bias:.3f}; SigLIP loss {loss:.3f} per pair")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
