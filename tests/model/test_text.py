"""Trimmed texts have the embeddings of padded ones if trimming is allowed; otherwise it is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.data.batches import text_length
from degla.model.load import load_encoder
from degla.model.text import can_trim, encode_tree, encode_trimmed, padding_token, why_no_tree, why_padded
from degla.prefixes import GrowTree
from tests.tiny import CAPTIONS, CONFIG, write_model

TEXT = CONFIG["text_cfg"]
EXACT = {
    "clip": {},
    "custom text": {"custom_text": True},
    "projection layer": {"custom_text": True, "text_cfg": TEXT | {"proj_bias": True}},
    "end token by number": {
        "custom_text": True,
        "text_cfg": TEXT | {"pool_type": "eos", "eos_id": TEXT["vocab_size"] - 1},
    },
    "no projection": {"custom_text": True, "embed_dim": 32, "text_cfg": TEXT | {"proj_type": "none"}},
}
REFUSED = {
    "both ways": {"custom_text": True, "text_cfg": TEXT | {"no_causal_mask": True}},
    "last position": {"custom_text": True, "text_cfg": TEXT | {"pool_type": "last"}},
    "class token": {"custom_text": True, "text_cfg": TEXT | {"embed_cls": True}},
}


@pytest.mark.usefixtures("attention_form")
@pytest.mark.parametrize("changes", EXACT.values(), ids=EXACT.keys())
def test_trimming_is_exact(tmp_path: Path, changes: dict[str, object]) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", **changes))).double()
    assert encoder.trims
    tokens = encoder.tokenize(CAPTIONS)
    longest = int((tokens != 0).sum(dim=1).max())
    assert longest < tokens.shape[1]
    whole = torch.nn.functional.normalize(encoder.clip.encode_text(tokens), dim=-1)
    for length in (longest, longest + 1, tokens.shape[1]):
        trimmed = torch.nn.functional.normalize(encode_trimmed(encoder.clip, tokens[:, :length]), dim=-1)
        torch.testing.assert_close(trimmed.double(), whole, rtol=0, atol=2e-7)

    whole.square()[:, 0].sum().backward()
    expected = encoder.clip.visual.conv1.weight.grad, _token_gradient(encoder)
    encoder.zero_grad(set_to_none=True)
    trimmed = torch.nn.functional.normalize(encode_trimmed(encoder.clip, tokens[:, :longest]), dim=-1)
    trimmed.square()[:, 0].sum().backward()
    assert expected[0] is None
    torch.testing.assert_close(_token_gradient(encoder), expected[1], rtol=1e-5, atol=1e-7)
    assert expected[1].abs().max() > 0


def _token_gradient(encoder: torch.nn.Module) -> torch.Tensor:
    tower = getattr(encoder.clip, "text", encoder.clip)
    gradient = tower.token_embedding.weight.grad
    assert gradient is not None
    return gradient.clone()


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_trimming_is_refused_where_it_would_change_embeddings(tmp_path: Path, changes: dict[str, object]) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", **changes)))
    assert not encoder.trims and not can_trim(encoder.clip)
    tokens = encoder.tokenize(CAPTIONS)
    expected = torch.nn.functional.normalize(encoder.clip.encode_text(tokens), dim=-1)
    torch.testing.assert_close(encoder.encode_captions(tokens), expected)


def test_padding_that_is_attended_to_cannot_be_cut(tmp_path: Path) -> None:
    """SigLIP's text tower: trimming would change the embeddings."""
    text = TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    clip = load_encoder(str(write_model(tmp_path / "model", custom_text=True, text_cfg=text))).clip
    tokens = torch.randint(1, 100, (3, 24))
    tokens[:, 12:] = 0
    assert why_padded(clip) == "attends both ways, to padding too"
    whole, cut = (torch.nn.functional.normalize(clip.text(each), dim=-1) for each in (tokens, tokens[:, :12]))
    assert (whole - cut).norm(dim=-1).min() > 0.01


HF: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
    "xlm-roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
    "mt5": {"d_model": 32, "num_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 48},
}


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler"])
@pytest.mark.parametrize("kind", HF)
def test_towers_of_transformers_attend_to_no_padding(kind: str, pooler: str) -> None:
    """Trimming, and groups of texts of similar length, change no embedding and no gradient."""
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    config = transformers.AutoConfig.for_model(kind, vocab_size=100, **HF[kind])
    clip: Any = torch.nn.Module()
    clip.text = HFTextEncoder(kind, 16, config=config, pooler_type=pooler, proj_type="linear").eval().double()
    if config.is_encoder_decoder and hasattr(clip.text.transformer, "encoder"):  # open_clip 3 does so only by name.
        clip.text.transformer = clip.text.transformer.encoder
    read: list[tuple[int, ...]] = []
    clip.encode_text = lambda tokens: read.append(tuple(tokens.shape)) or clip.text.forward(tokens)
    padding = padding_token(clip)
    assert can_trim(clip) and padding == config.pad_token_id == (1 if kind == "xlm-roberta" else 0)
    assert "not one of open_clip's own transformers" in str(why_no_tree(clip))
    tokens = torch.randint(2, 100, (40, 20))
    for row, length in zip(tokens, [3, 9, 5, 9] * 10, strict=True):  # Read in groups: of 3, of 3 and 5, of 9.
        row[length:] = padding
    tokens[1, 4] = padding  # Within a text: what follows it is read.
    assert text_length(tokens, padding=padding) == 9
    sides = []
    for encode, each in ((clip.encode_text, tokens), (partial(encode_trimmed, clip), tokens[:, :9])):
        clip.zero_grad()
        rows = encode(each)
        rows.square().sum().backward()
        sides.append([rows, *(value.grad for value in clip.parameters() if value.grad is not None)])
    assert len(sides[0]) == len(sides[1]) > 10
    assert read == [(40, 20), (10, 3), (10, 5), (10, 9), (10, 9)]
    # The softmax of T5 is in float32 before version 5, whatever the weights are.
    rounds = kind == "mt5" and int(transformers.__version__.partition(".")[0]) < 5
    for whole, cut in zip(*sides, strict=True):
        near = {"rtol": 1e-4, "atol": 1e-6 * whole.abs().max().item()} if rounds else {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(cut, whole, **near)


@pytest.mark.usefixtures("attention_form")
@pytest.mark.parametrize("changes", EXACT.values(), ids=EXACT.keys())
def test_trees_are_exact(tmp_path: Path, changes: dict[str, object]) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", **changes))).double()
    texts = [*CAPTIONS, "a red square above a green circle", CAPTIONS[1], "a red square above", ""]
    tokens = encoder.tokenize(texts)
    assert encoder.grow is not None
    tree = encoder.grow(tokens)
    assert len(tree.path) == len(texts) - 1, "a text that occurs twice was not computed once"
    assert len(tree.token) < int((tokens != 0).sum()), "nothing was shared; the test shows nothing"

    weights = torch.randn(len(texts), 16 if "embed_dim" not in changes else 32, dtype=torch.float64)
    gradients = []
    for rows in (
        torch.nn.functional.normalize(encoder.clip.encode_text(tokens), dim=-1),
        torch.nn.functional.normalize(encode_tree(encoder.clip, tree), dim=-1),
    ):
        encoder.zero_grad(set_to_none=True)
        (rows * weights).sum().backward()
        gradients.append(
            {name: value.grad.clone() for name, value in encoder.named_parameters() if value.grad is not None}
        )
    torch.testing.assert_close(rows, torch.nn.functional.normalize(encoder.clip.encode_text(tokens), dim=-1))
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    for name, expected in gradients[0].items():
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("multiple", "end", "length"), [(1, None, 11), (8, None, 16), (1, 1, 11)])
def test_a_tree_gives_its_texts_back(multiple: int, end: int | None, length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.zeros(40, 20, dtype=torch.long)
    lengths = torch.randint(1, 11, (40,), generator=generator).tolist()
    for row, words in zip(tokens, lengths, strict=True):
        row[:words] = torch.randint(2, 5, (words,), generator=generator)
        row[words] = end or 9
    tree = GrowTree(end_token=end, multiple=multiple)(tokens)
    assert tree.path.shape[1] == length
    for number, (row, words) in enumerate(zip(tokens, lengths, strict=True)):
        which = tree.text[number]
        path = tree.path[which, : tree.end[which] + 1]
        assert torch.equal(tree.token[path], row[: words + 1])
        assert torch.equal(tree.position[path], torch.arange(len(path)))
    assert torch.equal(tree.path.flatten()[tree.source], torch.arange(len(tree.token)))
    beginnings = {
        tuple(row[: n + 1].tolist()) for row, words in zip(tokens, lengths, strict=True) for n in range(words + 1)
    }
    assert len(tree.token) == len(beginnings)


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_trees_are_refused_where_they_would_change_embeddings(tmp_path: Path, changes: dict[str, object]) -> None:
    assert load_encoder(str(write_model(tmp_path / "model", **changes))).grow is None


def test_trees_are_refused_for_blocks_that_are_not_known(tmp_path: Path) -> None:
    custom = {"custom_text": True, "text_cfg": TEXT | {"block_type": "custom", "qk_norm": True}}
    encoder = load_encoder(str(write_model(tmp_path / "model", **custom)))
    assert encoder.trims and encoder.grow is None
    tokens = encoder.tokenize(CAPTIONS)
    expected = torch.nn.functional.normalize(encoder.clip.encode_text(tokens), dim=-1)
    torch.testing.assert_close(encoder.encode_captions(tokens), expected)


@pytest.mark.usefixtures("attention_form")
def test_forward_gives_images_texts_and_scale(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model)).eval()
    tokens = encoder.tokenize(CAPTIONS)
    with torch.no_grad():
        images, texts, *others, scale, bias = encoder(torch.randn(3, 3, 32, 32), tokens)
        for number in range(len(CAPTIONS)):
            torch.testing.assert_close(texts[number], encoder.encode_captions(tokens[number : number + 1])[0])
    assert bias is None and images.shape == (3, 16) and texts.shape == (6, 16)
    assert others == [None] * 4, "an output that was not requested"
    torch.testing.assert_close(scale, encoder.clip.logit_scale.exp())
    for unit in (images, texts):
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(unit.shape[:-1]))
