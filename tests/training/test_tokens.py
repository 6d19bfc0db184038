"""From a batch to the outputs of patches and tokens in the layout of the objective."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from degla.data.batches import Collate
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model.encoder import TowerOutputs
from degla.model.load import load_encoder
from degla.training.embed import to_embeddings
from degla.training.loop import train
from degla.training.pairs import open_pairs
from tests.tiny import timm_tower, write_model
from tests.training.configs import tiny_config

Pairs = dict[str, Path]


@pytest.mark.parametrize("multiple", [1, 8])
def test_every_token_stands_beside_its_text(multiple: int, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    pairs = open_pairs(
        tiny_config("fsc_clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path),
        encoder=encoder,
        processes=Processes(),
    )
    assert encoder.grow is not None and isinstance(pairs.collate, Collate)
    grow = replace(encoder.grow, multiple=multiple)  # With 8, trees are longer than the batch's texts.
    pairs = replace(pairs, collate=replace(pairs.collate, grow=grow))
    batch = next(iter(pairs.batches(0, start=0, device=torch.device("cpu"))))
    (part,) = batch.parts(len(batch))
    with torch.no_grad():
        *rows, scale, _ = encoder(part.image, part.texts, dense=True)
    output = to_embeddings([TowerOutputs(*rows)], scale=scale, batch=batch)
    assert output.extra["caption_token"].shape[:2] == batch.caption.shape and output.extra["patch"].shape == (4, 4, 16)
    assert output.extra["negative_token"].shape[:3] == batch.negative.shape
    assert not output.valid.all() and output.valid.any()

    def expect(tokens: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> None:
        end = int(text.argmax())
        assert mask.tolist() == [0 < place <= end for place in range(len(text))]
        with torch.no_grad():
            _, unit, _, alone, *_ = encoder.embed(batch.image[:1], text[None], dense=True)
        torch.testing.assert_close(tokens[1 : end + 1], alone[0, 1 : end + 1])
        assert torch.count_nonzero(tokens[~mask]) == 0
        # The end token's output is the embedding before normalisation.
        torch.testing.assert_close(torch.nn.functional.normalize(tokens[end], dim=0), unit[0])

    for row in range(4):
        expect(output.extra["caption_token"][row], batch.caption[row], output.extra["caption_token_valid"][row])
        for number in range(2):
            if output.valid[row, number]:
                expect(
                    output.extra["negative_token"][row, number],
                    batch.negative[row, number],
                    output.extra["negative_token_valid"][row, number],
                )
            else:
                assert not output.extra["negative_token_valid"][row, number].any()


def test_towers_and_flags_without_tokens_are_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("fsc_clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, trim=False)
    with pytest.raises(InputError, match=r"has no patch and token outputs with these flags.*--train\.trim"):
        open_pairs(config, encoder=load_encoder(str(tiny_model)), processes=Processes())


def test_places_of_a_convolutional_network_are_learnt_from(tiny_pairs: Pairs, tmp_path: Path) -> None:
    tower = timm_tower("test_resnet")
    model = write_model(tmp_path / "model", vision_cfg=tower)
    trained = train(tiny_config("fsc_clip", model=model, pairs=tiny_pairs, out=tmp_path / "run", steps=2))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(row["dense_grounded"] > 0 for row in rows if "loss" in row)
    start, end = (load_encoder(str(folder)).clip.visual.head.proj.weight.detach() for folder in (model, trained.folder))
    assert (start - end).abs().max() > 1e-4
