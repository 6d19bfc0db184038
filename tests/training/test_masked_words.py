"""MACCO's text half: masked words in the text tower, predicted from the image by a jointly trained predictor."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from degla.config.run import TrainConfig
from degla.data.extras import mask_words
from degla.errors import InputError
from degla.losses.contrastive import Contrastive
from degla.losses.core import Processes
from degla.losses.masked_contrast import MaskedContrast
from degla.losses.masked_text import MaskedText
from degla.model.load import load_encoder
from degla.model.text import text_tower
from degla.model.trained_along import PredictorConfig, WordPredictor
from degla.prefixes import MASKED
from degla.training.loop import train
from degla.training.pairs import open_pairs
from tests.tiny import CAPTIONS, CONFIG, write_model
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]
EYE = torch.eye(4, dtype=torch.float64)


def test_masked_contrasts_known_answers() -> None:
    inputs: Any = {"image": EYE[:2], "caption": EYE[:2], "scale": 1.0}
    alone, among_two = math.log(math.e + 3) - 1, math.log(math.e + 1) - 1
    across = alone / 2 + (among_two + math.log(2)) / 4
    for text in (0.0, 0.05):
        loss = MaskedContrast(text=text)(**inputs, masked=EYE[2:])
        assert float(loss) == pytest.approx(across + text * math.log(2), abs=1e-12)
    # No masked word: the masked caption is the caption itself, or is missing.
    none: Any = inputs | {"masked": EYE[2:] / 0, "masked_valid": torch.zeros(2, dtype=torch.bool)}
    twins = [float(MaskedContrast(text=text, missing="published")(**none)) for text in (0.0, 1.0)]
    assert twins[1] - twins[0] == pytest.approx(among_two, abs=1e-12), "the contrast of captions with themselves"
    assert twins[0] == pytest.approx((math.log(2 * math.e + 2) - 1 + among_two) / 2, abs=1e-12)
    assert float(MaskedContrast()(**none)) == pytest.approx(float(Contrastive(negative_scope="none")(**inputs)))


def test_masked_texts_known_answers() -> None:
    losses = torch.tensor([[1.0, 1, 9], [3, 3, 3], [9, 9, 9]], dtype=torch.float64)
    valid = torch.arange(3) < torch.tensor([[2], [3], [0]])
    inputs: Any = {"image": EYE[:3], "caption": EYE[:3], "prediction": losses}
    assert float(MaskedText()(**inputs, prediction_valid=valid)) == 2.0, "of captions, not of tokens"
    assert float(MaskedText()(**inputs, prediction_valid=torch.zeros_like(valid))) == 0.0


def _predictor(vocabulary: int = 50) -> WordPredictor:
    torch.manual_seed(0)
    config = PredictorConfig(heads=2)
    return WordPredictor(width=6, dim=8, vocabulary=vocabulary, config=config, predicts=True)


def _asked() -> dict[str, Any]:
    caption = torch.tensor([[48, 3, 4, 5, 49, 0], [48, 6, 49, 0, 0, 0]])
    masked = caption.clone()
    masked[0, 1], masked[0, 3] = MASKED, MASKED
    return {"caption": caption, "masked": masked, "end": torch.tensor([4, 2])}


def test_a_predictor_that_knows_nothing() -> None:
    predictor = _predictor(49408)
    words: Any = predictor.head[1]
    torch.nn.init.zeros_(words.weight), torch.nn.init.zeros_(words.bias)
    losses, valid = predictor(torch.randn(2, 6, 8), torch.randn(2, 5, 8), torch.randn(2, 8), **_asked())
    assert valid.tolist() == [[True, True], [False, False]]
    assert losses[valid].tolist() == pytest.approx([10.8079] * 2, abs=1e-4)


def test_the_predictor_reads_its_own_words_and_picture() -> None:
    predictor, questions = _predictor(), _asked()
    tokens, patches, images = (torch.randn(*shape, requires_grad=True) for shape in ((2, 6, 8), (2, 5, 8), (2, 8)))
    losses, valid = predictor(tokens, patches, images, **questions)
    losses[valid].sum().backward()
    assert patches.grad is None and images.grad is None, "the image gets no gradient"
    assert tokens.grad is not None and tokens.grad[1].abs().sum() == 0
    places = tokens.grad[0].abs().sum(dim=1) > 0
    assert places.tolist() == [False, True, False, True, True, False], "the masked places and the end"
    with torch.no_grad():
        other = predictor(tokens, patches.flip(0), images, **questions)[0]
        assert (other - losses)[valid].abs().min() > 1e-5, "the prediction depends on the image"
        turned = {name: value.flip(0) for name, value in questions.items()}
        result = predictor(tokens.flip(0), patches.flip(0), images.flip(0), **turned)[0]
        torch.testing.assert_close(result[1], losses[0])


def test_words_are_masked_where_they_stand_first(tiny_model: Path) -> None:
    tokenize = load_encoder(str(tiny_model)).tokenize
    text = "a dog on a dog, red"
    (caption,) = tokenize([text])
    masked = mask_words(caption, ["dog", "red", "purple", "a dog"], tokenize)
    place = {word: caption.tolist().index(tokenize([word])[0, 1].item()) for word in ("dog", "red")}
    assert (masked == MASKED).nonzero()[:, 0].tolist() == sorted({1, *place.values()})
    assert torch.equal(mask_words(caption, ["purple", ""], tokenize), caption)


def test_the_mask_token_stands_before_positions_are_added(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    token = torch.randn(CONFIG["text_cfg"]["width"])
    encoder.read_masked_as(token)
    whole = encoder.tokenize(CAPTIONS[:3])
    masked = whole.clone()
    masked[0, 1], masked[1, 2] = MASKED, MASKED
    texts = torch.cat([whole, masked])
    tower = text_tower(encoder.clip)
    with torch.no_grad():
        rows = encoder.embed(None, texts, dense=False).text
        states = tower.token_embedding(texts.clamp(min=0))
        states[texts == MASKED] = token
        states = tower.transformer(states + tower.positional_embedding, attn_mask=tower.attn_mask)
        projected = tower.ln_final(states) @ tower.text_projection
        expected = projected[torch.arange(6), texts.argmax(dim=1)]
        torch.testing.assert_close(rows, torch.nn.functional.normalize(expected, dim=1), rtol=0, atol=1e-5)
        assert rows is not None and torch.equal(rows[2], rows[5]) and (rows[0] - rows[3]).abs().max() > 1e-3
        dense = encoder.embed(None, texts, dense=True)
        assert dense.token is not None
        torch.testing.assert_close(dense.token[3, :3], projected[3, :3], rtol=0, atol=1e-5)
        torch.testing.assert_close(dense.text, rows, rtol=0, atol=1e-5)
    assert not any("mask" in name for name in encoder.state_dict())


def _config(model: Path, pairs: Pairs, out: Path, **loop: Any) -> TrainConfig:
    config = tiny_config("macco", model=model, pairs=pairs, out=out, **loop)
    return replace(config, predictor=replace(config.predictor, heads=2, lr=1e-2))


def _along(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "optimizer.pt", weights_only=True)["predictor"]
    return state


def test_macco_trains_and_resumes(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = _config(tiny_model, tiny_pairs, tmp_path / "whole")
    done, resumed = whole_and_resumed(whole)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(math.isfinite(row["loss"]) for row in rows)
    assert rows[0]["loss"] == pytest.approx(rows[0]["masked_contrast"] + 20 * rows[0]["masked_text"], rel=1e-6)
    # Its own rate: 1e-2 where the model has 1e-3, both halved in the first of two warm-up steps.
    groups = torch.load(done.folder / "optimizer.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0, 0.01]
    assert groups[2]["lr"] == pytest.approx(10 * groups[0]["lr"])
    weights = "open_clip_model.safetensors"
    one, start = load_file(done.folder / weights), load_file(tiny_model / weights)
    assert one.keys() == start.keys(), "a plain open_clip model"
    assert all((one[name] != start[name]).any() for name in ("text_projection", "visual.proj"))
    other = load_file(resumed.folder / weights)
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = _along(done.folder), _along(resumed.folder)
    assert "mask_token" in first and all(torch.equal(first[name], second[name]) for name in first)
    alone, parts = (
        train(_config(tiny_model, tiny_pairs, tmp_path / name, steps=1, **loop))
        for name, loop in (("one", {}), ("parts", {"chunk_size": 2}))
    )
    assert parts.values["loss"] == pytest.approx(alone.values["loss"], rel=1e-5)
    # The first AdamW step follows the sign of the gradient, unless that is rounding error.
    moved = [(_along(run.folder)["mask_token"] - first["mask_token"]).sign() for run in (alone, parts)]
    assert (moved[0] != moved[1]).float().mean() < 0.1


def test_the_norm_that_is_clipped_is_of_the_predictor_too(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tiny_model, tiny_pairs, tmp_path)
    _, gradients, trainer = first_step(replace(config, optim=replace(config.optim, clip_norm=0.01)))
    assert torch.stack([gradient.norm() for gradient in gradients.values()]).norm() > 1
    norms: list[float] = []

    def step() -> None:
        values = [value for group in trainer.optimizer.param_groups for value in group["params"]]
        norms.append(float(torch.stack([value.grad.norm() for value in values if value.grad is not None]).norm()))

    monkeypatch.setattr(trainer.optimizer, "step", step)
    trainer.update(torch.zeros(()))
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_only_the_mask_token_is_made_where_nothing_is_predicted(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = _config(tiny_model, tiny_pairs, tmp_path / "run", steps=1)
    config = replace(config, objective=config.objective | {"masked_text": MaskedText(weight=0.0)})
    assert list(_along(train(config).folder)) == ["mask_token"]


def test_rows_hold_their_masked_captions(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    pairs = open_pairs(_config(tiny_model, tiny_pairs, tmp_path), encoder=encoder, processes=Processes())
    of = {row["id"]: row for row in map(json.loads, tiny_pairs["captions"].open())}
    for batch in pairs.batches(0, start=0, device=encoder.device):
        masked, valid = batch.extra["masked"], batch.extra["masked_valid"]
        assert torch.equal((masked != batch.caption).any(dim=1), valid)
        assert torch.equal(masked[masked != batch.caption].unique(), torch.full((int(valid.any()),), MASKED))
        assert [bool(of[name]["masked_words"]) for name in batch.ids] == valid.tolist()


def test_what_does_not_go_is_one_line(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config(tiny_model, tiny_pairs, tmp_path / "run")
    both_ways = write_model(tmp_path / "both", text_cfg=CONFIG["text_cfg"] | {"no_causal_mask": True})
    bare = tmp_path / "bare.jsonl"
    rows = [json.loads(line) for line in tiny_pairs["captions"].open()]
    bare.write_text("".join(json.dumps({**row, "masked_words": []}) + "\n" for row in rows))
    alone = replace(config, objective=config.objective | {"masked_text": MaskedText(weight=0.0)})
    words = replace(config, objective=config.objective | {"masked_contrast": MaskedContrast(weight=0.0)})
    words = replace(words, train=replace(config.train, strategy="fsdp"))
    replayed = replace(config, replay=replace(config.replay, data=config.data, objective={"masked_text": MaskedText()}))
    for changed, message in (
        (
            replace(config, data=replace(config.data, captions=bare)),
            "no caption has the field masked_words, but a loss of",
        ),
        (replace(config, attack=replace(config.attack, epsilon=0.01)), "cannot be combined with --attack.epsilon"),
        (words, "--objective.masked-text.weight cannot be combined with --train.strategy fsdp"),
        (replayed, "--replay.objective.masked-text.weight: this loss cannot be computed on replayed pairs"),
        (replace(config, model=str(both_ways)), "has no patch and token outputs"),
        (replace(alone, train=replace(alone.train, trim=False)), "no mask token.*: --train.trim is needed"),
        (replace(config, predictor=PredictorConfig(heads=7)), r"--predictor\.heads 7 does not divide the joint space"),
    ):
        with pytest.raises(InputError, match=message):
            train(changed)
