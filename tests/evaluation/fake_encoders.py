"""Encoders whose answers are known: right, wrong, constant, and one that spreads texts and images over the sphere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

CONTEXT = 16


def words(text: str) -> list[int]:
    """Token numbers from 1 up, the same for the same word in lower case."""
    return [1 + int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 30000 for word in text.lower().split()]


def tokenize(texts: list[str]) -> torch.Tensor:
    rows = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        numbers = words(text)[:CONTEXT]
        row[: len(numbers)] = torch.tensor(numbers)
    return rows


def transform(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32) / 255).permute(2, 0, 1)


def spread_row(key: bytes, dimension: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=dimension)
    return row / np.linalg.norm(row)


@dataclass
class FakeEncoder:
    """Answers from two functions; counts what it is asked."""

    image_row: Callable[[np.ndarray], np.ndarray]
    text_row: Callable[[tuple[int, ...]], np.ndarray]
    name: str = "fake"
    activation: str = "quick_gelu"
    fingerprint: str = "f" * 64
    precision: str = "fp32"
    context_length: int = CONTEXT
    trims: bool = True
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    images_seen: int = 0
    texts_seen: int = 0
    text_lengths: list[int] = field(default_factory=list)

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        return tokenize(texts)

    def transform(self, image: Image.Image) -> torch.Tensor:
        return transform(image)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        self.images_seen += len(images)
        return torch.from_numpy(np.stack([self.image_row(image.numpy()) for image in images])).to(self.dtype)

    def encode_captions(self, tokens: torch.Tensor) -> torch.Tensor:
        self.texts_seen += len(tokens)
        self.text_lengths.append(tokens.shape[1])
        rows = [self.text_row(tuple(int(token) for token in row if token)) for row in tokens]
        return torch.from_numpy(np.stack(rows)).to(self.dtype)


def constant() -> FakeEncoder:
    row = spread_row(b"constant", 24)
    return FakeEncoder(lambda image: row, lambda tokens: row, name="constant")


def spreading() -> FakeEncoder:
    return FakeEncoder(
        lambda image: spread_row(image.tobytes(), 24), lambda tokens: spread_row(repr(tokens).encode(), 24)
    )


def bag_of_words() -> FakeEncoder:
    return FakeEncoder(
        lambda image: spread_row(image.tobytes(), 24),
        lambda tokens: spread_row(repr(sorted(tokens)).encode(), 24),
        name="bag of words",
    )


def knowing(truth: dict[str, list[str]], colours: dict[str, tuple[int, int, int]], *, lying: bool) -> FakeEncoder:
    """Knows which texts are true of which one-coloured image; the liar turns every answer round.

    Args:
        truth: image name to the texts that are true of it.
        colours: image name to its colour.
        lying: prefer what is false.
    """
    names = sorted(truth)
    owners: dict[tuple[int, ...], list[int]] = {}
    for number, name in enumerate(names):
        for text in truth[name]:
            owners.setdefault(tuple(words(text)), []).append(number)

    def image_row(image: np.ndarray) -> np.ndarray:
        colour = np.round(image.reshape(3, -1).mean(axis=1) * 255)
        number = next(index for index, name in enumerate(names) if np.allclose(colours[name], colour, atol=1))
        row = np.zeros(len(names) + 1)
        row[number] = -1.0 if lying else 1.0
        return row

    def text_row(tokens: tuple[int, ...]) -> np.ndarray:
        row = np.zeros(len(names) + 1)
        row[owners.get(tokens, -1)] = 1.0
        return row / np.linalg.norm(row)

    return FakeEncoder(image_row, text_row, name="liar" if lying else "oracle")
