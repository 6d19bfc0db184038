"""Fast paths that a model does not allow are told once, by name, reason and cost; what they give stays right."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from degla.model import fast_paths, linear_kernel
from degla.model.load import load_encoder
from tests.tiny import CAPTIONS, RESNET, timm_tower, write_model


class Attention(nn.Module):
    """As in open_clip 4: parameters of the same names as in PyTorch's, another class."""

    def __init__(self, inner: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = inner.in_proj_weight, inner.in_proj_bias
        self.out_proj, self.num_heads = inner.out_proj, inner.num_heads

    def forward(self, query: Tensor, *_: Tensor, attn_mask: Tensor | None = None, **__: Any) -> tuple[Tensor, None]:
        """Batch first."""
        rows = nn.functional.linear(query, self.in_proj_weight, self.in_proj_bias)
        parts = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in rows.chunk(3, dim=-1))
        attended = nn.functional.scaled_dot_product_attention(*parts, attn_mask=attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own, on a processor whose kernels are alike."""
    monkeypatch.setattr(fast_paths, "_told", set())
    monkeypatch.setattr(linear_kernel, "is_faster", lambda: False)


def _of_open_clip_4(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import open_clip

    made = open_clip.create_model_and_transforms

    def create(*given: Any, **options: Any) -> Any:
        clip, *rest = made(*given, **options)
        for block in [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]:
            block.attn = Attention(block.attn)
        return clip, *rest

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    return load_encoder(str(folder))


def test_another_attention_is_told_once_and_computes_the_same(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load_encoder(str(tiny_model))
    assert caplog.messages == [] and fast_paths.lacks(plain) == fast_paths.refusals(plain) == []
    with caplog.at_level(logging.INFO):
        other = _of_open_clip_4(tiny_model, monkeypatch)
        load_encoder(str(tiny_model))
    assert [message.partition(": no ")[2].partition(", for its ")[0] for message in caplog.messages] == [
        "shared beginnings of texts", "reading of the class token alone"
    ]  # fmt: skip
    for tower, message in zip(("text", "image"), caplog.messages, strict=True):
        assert f"its {tower} tower attends by tests Attention, not by PyTorch's MultiheadAttention: " in message
    tokens, images = plain.tokenize(CAPTIONS), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(other.encode_captions(tokens), plain.encode_captions(tokens), rtol=0, atol=1e-5)
        torch.testing.assert_close(other.encode_images(images), plain.encode_images(images), rtol=0, atol=1e-5)
    told = [str(lack) for lack in fast_paths.refusals(other)]
    assert len(told) == 3 and all("attends by tests Attention" in line for line in told)
    assert [line.partition(", for")[0] for line in told] == [
        "no adapters in the image tower", "no adapters in the text tower", "no outputs of patches and tokens"
    ]  # fmt: skip


def _text(**changes: Any) -> dict[str, Any]:
    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    return {"custom_text": True, "text_cfg": text | changes}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"vision_cfg": timm_tower()}, ["class token alone, for its image tower is a TimmModel, not open_clip's own"]),
        ({"vision_cfg": RESNET}, ["class token alone, for its image tower is a ModifiedResNet, not open_clip's own"]),
        (_text(no_causal_mask=True), ["shared beginnings, for its text tower attends both ways: each text costs 24"]),
        (_text(embed_cls=True), ["shared beginnings, for its text tower appends a class token: each text costs 24"]),
        (_text(pool_type="last"), ["shared beginnings, for its text tower is read by 'last', not at the end token"]),
    ],
)
def test_each_kind_of_tower_says_what_it_is(
    changes: dict[str, Any], told: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_encoder(str(write_model(tmp_path / "model", **changes)))
    assert len(caplog.messages) == len(told)
    assert all(part in message for part, message in zip(told, caplog.messages, strict=True)), caplog.messages


def test_slower_linear_layers_are_told_where_they_are_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", vision_cfg=RESNET)))
    monkeypatch.setattr(linear_kernel, "is_faster", lambda: True)
    assert any("linear layers by oneDNN in training" in lack.name for lack in fast_paths.lacks(encoder))


def test_the_doctor_tells_all_of_them(tmp_path: Path) -> None:
    from degla.doctor.examine import _model

    finding = _model(load_encoder(str(write_model(tmp_path / "model", vision_cfg=timm_tower()))))
    assert finding.state == "beware"
    for name in ("class token alone", "adapters in the image tower", "outputs of patches and tokens"):
        assert name in finding.text


@pytest.mark.parametrize(("vision", "told"), [(RESNET, ["image tower, a ModifiedResNet"]), (timm_tower(), [])])
def test_gradient_checkpointing_that_does_nothing_is_told(
    vision: dict[str, Any], told: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", vision_cfg=vision)))
    caplog.clear()
    encoder.checkpoint_gradients()
    assert len(caplog.messages) == len(told)
    assert all(part in message for part, message in zip(told, caplog.messages, strict=True))
