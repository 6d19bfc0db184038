"""Trimmed texts give the embeddings of padded ones, where trimming is allowed; elsewhere it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from degla.model.load import load_encoder
from degla.model.text import can_trim
from tests.tiny import CAPTIONS, CONFIG, write_model

TEXT = CONFIG["text_cfg"]
EXACT = {
    "clip": {},
    "custom text": {"custom_text": True},
    "projection layer": {"custom_text": True, "text_cfg": TEXT | {"proj_bias": True}},
    "end token by number": {"custom_text": True, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 49407}},
    "no projection": {"custom_text": True, "embed_dim": 32, "text_cfg": TEXT | {"proj_type": "none"}},
}
REFUSED = {
    "both ways": {"custom_text": True, "text_cfg": TEXT | {"no_causal_mask": True}},
    "last position": {"custom_text": True, "text_cfg": TEXT | {"pool_type": "last"}},
    "class token": {"custom_text": True, "text_cfg": TEXT | {"embed_cls": True}},
}


@pytest.mark.parametrize("changes", EXACT.values(), ids=EXACT.keys())
def test_trimming_is_exact(tmp_path: Path, changes: dict[str, object]) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", **changes))).double()
    assert encoder.trims
    tokens = encoder.tokenize(CAPTIONS)
    longest = int((tokens != 0).sum(dim=1).max())
    assert longest < tokens.shape[1]
    whole = torch.nn.functional.normalize(encoder.clip.encode_text(tokens), dim=-1)
    for length in (longest, longest + 1, tokens.shape[1]):
        trimmed = encoder.encode_captions(tokens[:, :length])
        torch.testing.assert_close(trimmed.double(), whole, rtol=0, atol=2e-7)

    whole.square()[:, 0].sum().backward()
    expected = encoder.clip.visual.conv1.weight.grad, _token_gradient(encoder)
    encoder.zero_grad(set_to_none=True)
    encoder.encode_captions(tokens[:, :longest]).square()[:, 0].sum().backward()
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


def test_forward_keeps_each_negative_with_its_caption(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model)).eval()
    captions = encoder.tokenize(CAPTIONS[:3])
    negatives = torch.stack([encoder.tokenize([CAPTIONS[3 + k], CAPTIONS[k]]) for k in range(3)])
    with torch.no_grad():
        images, texts, rows, scale = encoder(torch.randn(3, 3, 32, 32), captions, negatives)
        for b in range(3):
            for k in range(2):
                torch.testing.assert_close(rows[b, k], encoder.encode_captions(negatives[b, k : k + 1])[0])
    assert rows.shape == (3, 2, 16) and images.shape == texts.shape == (3, 16)
    torch.testing.assert_close(scale, encoder.clip.logit_scale.exp())
    for unit in (images, texts, rows):
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(unit.shape[:-1]))
