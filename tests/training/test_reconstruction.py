"""Token reconstruction: a frozen decoder predicts a true text from a caption's state; only a map is trained with it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.losses.core import Processes
from degla.losses.token_reconstruction import TokenReconstruction
from degla.model.load import load_encoder
from degla.model.trained_along import LONGEST, DecoderTokens, TextDecoder
from degla.training.loop import train
from degla.training.pairs import open_pairs
from tests.tiny import CAPTIONS, CONFIG, write_model
from tests.training.configs import tiny_config, whole_and_resumed

transformers = pytest.importorskip("transformers")

Pairs = dict[str, Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 1.1 of two small layers with random weights; letters are its tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    path = tmp_path_factory.mktemp("decoder") / "t5"
    tokens = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz "]
    inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(path)
    config = transformers.T5Config(
        vocab_size=32128, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, initializer_factor=3.0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(path)
    return path


@pytest.fixture
def decoder(folder: Path) -> TextDecoder:
    torch.manual_seed(1)
    return TextDecoder(folder, width=12)


def _inner(decoder: TextDecoder) -> Any:
    return decoder._frozen[0]


def _targets(folder: Path, *texts: str) -> torch.Tensor:
    return torch.stack([DecoderTokens.of(folder)(text) for text in texts])


def test_the_known_answers() -> None:
    losses = torch.tensor([[1.0, 1, 9, 9, 9, 9], [3] * 6])
    inputs = {"image": torch.ones(2, 3), "caption": torch.ones(2, 3), "reconstruction": losses,
             "reconstruction_valid": torch.arange(6) < torch.tensor([[2], [6]])}  # fmt: skip
    assert float(TokenReconstruction()(**inputs)) == 2.5
    assert float(TokenReconstruction(reduction="sentence")(**inputs)) == 2.0


def test_a_decoder_that_knows_nothing(decoder: TextDecoder, folder: Path) -> None:
    torch.nn.init.zeros_(_inner(decoder).lm_head.weight)
    losses, valid = decoder(torch.randn(2, 12), _targets(folder, "a cat", "dogs"))
    assert losses.shape == (2, 6) and valid.sum(dim=1).tolist() == [6, 5]
    torch.testing.assert_close(losses[valid], torch.full((11,), math.log(32128)))
    assert math.log(32128) == pytest.approx(10.377483, abs=1e-6)


def test_it_is_what_transformers_computes(decoder: TextDecoder, folder: Path) -> None:
    states, target = torch.randn(2, 12), _targets(folder, "a cat", "two small dogs")
    losses, valid = decoder(states, target)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    source = (decoder.entry(states)[:, None],)
    expected = theirs(encoder_outputs=source, labels=target.masked_fill(target == 0, -100)).loss
    torch.testing.assert_close(losses[valid].mean(), expected)
    assert (losses[0, :3] - losses[1, :3]).abs().min() > 1e-4
    wider = torch.cat([target, torch.zeros(2, 9, dtype=torch.long)], dim=1)
    assert torch.equal(decoder(states, wider)[0], losses), "padding was read"


def test_only_the_state_and_the_map_get_a_gradient(decoder: TextDecoder, folder: Path) -> None:
    states, target = torch.randn(2, 12, requires_grad=True), _targets(folder, "a cat", "two dogs")
    before = decoder(states, target)[0]
    before.sum().backward()
    assert states.grad is not None and states.grad.abs().min() > 0
    assert decoder.entry.weight.grad is not None and decoder.entry.weight.grad.abs().sum() > 0
    assert all(value.grad is None for value in _inner(decoder).parameters())
    assert [name for name, _ in decoder.named_parameters()] == ["entry.weight"]
    assert list(decoder.state_dict()) == ["entry.weight"]
    # With one vector to attend to, queries and keys do not matter.
    for block in _inner(decoder).decoder.block:
        attention = block.layer[1].EncDecAttention
        attention.q.weight.mul_(3), attention.k.weight.mul_(-2)
    torch.testing.assert_close(decoder(states, target)[0], before)


def _config(folder: Path, model: Path, pairs: Pairs, out: Path, **loop: Any) -> TrainConfig:
    config = tiny_config("read_clip", model=model, pairs=pairs, out=out, **loop)
    objective = config.objective | {"token_reconstruction": TokenReconstruction()}
    return replace(config, objective=objective, data=replace(config.data, decoder=folder))


def _entry(run: Path) -> torch.Tensor:
    entry: torch.Tensor = torch.load(run / "optimizer.pt", weights_only=True)["decoder"]["entry.weight"]
    return entry


def test_read_clip_with_its_decoder(folder: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = _config(folder, tiny_model, tiny_pairs, tmp_path / "whole")
    done, resumed = whole_and_resumed(whole)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    parts = ("contrastive", "text_contrast", "token_reconstruction")
    assert all(math.isfinite(row[name]) for row in rows for name in parts)
    first = rows[0]
    assert first["loss"] == pytest.approx(
        first["contrastive"] + 0.5 * first["text_contrast"] + 0.1 * first["token_reconstruction"]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole.train.seed)
        start = TextDecoder(folder, width=CONFIG["text_cfg"]["width"]).entry.weight
    assert (_entry(done.folder) - start).abs().max() > 1e-4, "the map did not change"
    # Resumed and in parts, it is the same run.
    again = resumed.folder
    weights = "open_clip_model.safetensors"
    one, other = load_file(done.folder / weights), load_file(again / weights)
    assert all(torch.equal(one[name], other[name]) for name in one) and torch.equal(_entry(done.folder), _entry(again))
    parts_run = train(_config(folder, tiny_model, tiny_pairs, tmp_path / "parts", chunk_size=2, steps=1))
    alone = train(_config(folder, tiny_model, tiny_pairs, tmp_path / "one", steps=1))
    assert parts_run.values["loss"] == pytest.approx(alone.values["loss"], rel=1e-5)
    # The first AdamW step follows the sign of the gradient, unless that is rounding error.
    assert ((_entry(parts_run.folder) - _entry(alone.folder)).abs() > 1e-5).float().mean() < 0.01
    other_decoder = tmp_path / "other"
    shutil.copytree(folder, other_decoder)
    transformers.T5ForConditionalGeneration(transformers.T5Config.from_pretrained(folder)).save_pretrained(
        other_decoder
    )
    (again / "state.json").unlink()
    with pytest.raises(InputError, match=r"training data have changed .* changed: decoder\."):
        train(replace(whole, out=again.parent, data=replace(whole.data, decoder=other_decoder)), resume=True)


def test_the_text_is_of_the_same_image(folder: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config(folder, tiny_model, tiny_pairs, tmp_path)
    encoder = load_encoder(str(tiny_model))
    pairs = open_pairs(config, encoder=encoder, processes=Processes())
    texts: dict[str, set[str]] = {}
    of = {row["id"]: row for row in map(json.loads, tiny_pairs["captions"].open())}
    for row in of.values():
        texts.setdefault(row["image_id"], set()).add(row["text"])
    tokens, own = DecoderTokens.of(folder), set()
    for epoch in range(6):
        for batch in pairs.batches(epoch, start=0, device=encoder.device):
            for name, target in zip(batch.ids, batch.extra["target"], strict=True):
                of_image = [text for text in texts[of[name]["image_id"]] if torch.equal(tokens(text), target)]
                assert target.shape == (LONGEST,) and of_image
                own.add(of_image[0] == of[name]["text"])
    assert own == {False, True}, "the caption itself is one of them"


def test_texts_of_the_column_are_reconstructed_too(
    folder: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """Contextualization Distillation reconstructs the longer texts that it trains with."""
    rows = [{**json.loads(line), "positives": ["two longer texts"]} for line in tiny_pairs["captions"].open()]
    captions = tmp_path / "longer.jsonl"
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = _config(folder, tiny_model, {**tiny_pairs, "captions": captions}, tmp_path / "run")
    longer = DecoderTokens.of(folder)("two longer texts")
    for source in ("same_image", "column"):
        variant = replace(config, data=replace(config.data, positives=source))
        pairs = open_pairs(variant, encoder=load_encoder(str(tiny_model)), processes=Processes())
        batches = [each for epoch in range(4) for each in pairs.batches(epoch, start=0, device=torch.device("cpu"))]
        targets = torch.cat([batch.extra["target"] for batch in batches])
        assert bool((targets == longer).all(dim=1).any()) == (source == "column")


def test_without_the_loss_no_decoder_is_loaded(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("read_clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    train(replace(config, data=replace(config.data, decoder=tmp_path / "nowhere")))


def test_what_does_not_go_is_one_line(folder: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config(folder, tiny_model, tiny_pairs, tmp_path / "run")
    both_ways = write_model(tmp_path / "both", text_cfg=CONFIG["text_cfg"] | {"no_causal_mask": True})
    for changed, message in (
        (replace(config, data=replace(config.data, decoder=None)), "Set --data.decoder FOLDER"),
        (
            replace(config, data=replace(config.data, decoder=tmp_path / "no")),
            r"no such folder\. A decoder is a transformers folder of",
        ),
        (replace(config, attack=replace(config.attack, epsilon=0.01)), "cannot be combined with --attack.epsilon"),
        (replace(config, model=str(both_ways)), "no text states for .*: attends both ways"),
        (replace(config, train=replace(config.train, trim=False)), "no text states for .*: --train.trim is needed"),
    ):
        with pytest.raises(InputError, match=message):
            train(changed)
    shutil.copytree(folder, tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"config\.json: field 'model_type' is 'bert', but the decoder must be a T5"):
        TextDecoder(tmp_path / "bert", width=3)


def test_states_are_those_that_are_projected(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    tokens = encoder.tokenize(CAPTIONS)
    with torch.no_grad():
        outputs = encoder.embed(None, tokens, state=True)
        assert outputs.text is not None and outputs.state is not None
        torch.testing.assert_close(outputs.text, encoder.encode_captions(tokens))
        projected = torch.nn.functional.normalize(outputs.state @ encoder.clip.text_projection, dim=-1)
        torch.testing.assert_close(projected, outputs.text)


def test_no_kernel_of_the_hub_is_asked_for(kernels: list[Any], folder: Path) -> None:
    TextDecoder(folder, width=12)
    assert kernels == [False]
