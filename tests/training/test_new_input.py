"""A loss with a new input: one entry of the table and the loss are enough to train with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from degla.errors import InputError
from degla.inputs import INPUTS, Input
from degla.losses.core import Embeddings, Loss, Processes, Target
from degla.model.load import load_encoder
from degla.training.loop import train
from degla.training.pairs import open_pairs
from tests.training.configs import tiny_config


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_second_text_column_needs_an_entry_and_a_loss(
    chunk_size: int | None,
    tiny_model: Path,
    tiny_pairs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = Input("BD", "text", part="second", mask="second_valid", column="label")
    monkeypatch.setitem(INPUTS, "second", second)
    monkeypatch.setitem(INPUTS, "second_valid", Input("B", "value", part="second"))

    @dataclass(frozen=True)
    class SecondPush(Loss):
        weight: float = 1.0
        reads: ClassVar[frozenset[str]] = frozenset({"second"})

        def value(self, student: Embeddings, teacher: Target, processes: Processes) -> Tensor:
            product = (student.image * student.require("second")).sum(-1)
            return processes.mean(1 + product, student.require("second_valid"))

    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", chunk_size=chunk_size)
    config = replace(config, objective=config.objective | {"second_push": SecondPush()})
    encoder = load_encoder(str(tiny_model))
    batch = next(open_pairs(config, encoder=encoder, processes=Processes()).batches(0, start=0, device=encoder.device))
    rows = {row["id"]: row for row in map(json.loads, tiny_pairs["captions"].open())}
    for place, name in enumerate(batch.ids):
        text = rows[name]["label"] or rows[name]["text"]
        tokens = encoder.tokenize([text])[0, : batch.caption.shape[1]]
        assert torch.equal(batch.extra["second"][place], tokens)
        assert bool(batch.extra["second_valid"][place]) == (rows[name]["label"] is not None)
    train(config)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 4 and steps[-1]["second_push"] < steps[0]["second_push"]

    image, text = torch.randn(3, 5), torch.randn(3, 5)
    alone = SecondPush()(image=image, caption=text, second=text, scale=1.0)  # type: ignore[call-arg]
    torch.testing.assert_close(alone, 1 + torch.cosine_similarity(image, text).mean())
    with pytest.raises(InputError, match=r"SecondPush: missing second \[B, D\], second_valid \[B\]\."):
        SecondPush()(image=image, caption=text, scale=1.0)


def test_a_loss_that_reads_what_no_input_is_says_so() -> None:
    with pytest.raises(TypeError, match=r"Odd\.reads: unknown part 'positve'\. Did you mean 'positive'"):

        class Odd(Loss):
            reads: ClassVar[frozenset[str]] = frozenset({"positve"})
