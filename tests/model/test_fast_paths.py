"""Missing fast paths are reported once, with name, reason and cost; results stay correct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from degla.model import fast_paths, linear_kernel
from degla.model.block import why_unknown
from degla.model.load import load_encoder
from tests.attention_forms import models_of
from tests.tiny import CONFIG, RESNET, timm_tower, write_model


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a fresh process on a CPU with equally fast kernels."""
    monkeypatch.setattr(fast_paths, "_messages", set())
    monkeypatch.setattr(linear_kernel, "is_faster", lambda: False)


@pytest.mark.usefixtures("attention_form")
def test_every_fast_path_is_there_for_both_attentions(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load_encoder(str(tiny_model))
    assert caplog.messages == [] and fast_paths.lacks(encoder) == fast_paths.refusals(encoder) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda block: setattr(block.attn, "ln_q", nn.LayerNorm(16)), "has attn.ln_q.bias in its blocks, which CLIP's"),
        (lambda block: setattr(block.attn, "in_proj_bias", None), "has no attn.in_proj_bias in its blocks, which"),
        (lambda block: setattr(block.attn, "attn_drop", nn.Dropout(0.1)), "uses dropout in training"),
        (
            lambda block: setattr(block, "forward", lambda states, **_: block.mlp(states)),
            "that compute something other",
        ),
        (lambda block: setattr(block, "forward", lambda states, mask: states), "that compute something other"),
    ],
    ids=["other parameters", "fewer parameters", "dropout", "another order", "another call"],
)
def test_blocks_are_known_by_what_they_are(change: Any, reason: str, tiny_model: Path) -> None:
    with models_of("4"):
        transformer = load_encoder(str(tiny_model)).clip.transformer
    assert why_unknown(transformer) is None
    change(transformer.resblocks[1])
    if "compute" in reason:
        transformer.resblocks[1].__class__ = type("Other", (type(transformer.resblocks[1]),), {})
    assert reason in str(why_unknown(transformer))


def _text(**changes: Any) -> dict[str, Any]:
    return {"custom_text": True, "text_cfg": CONFIG["text_cfg"] | changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vision_cfg": timm_tower()}, []),  # Its map has no class token: there is nothing to save.
        (
            {"vision_cfg": timm_tower("test_convnext")},
            [
                "slower than possible, with the same results: no reading of only the class token, because its image "
                "tower is a TimmModel, not open_clip's own"
            ],
        ),
        (
            {"vision_cfg": RESNET},
            ["class token, because its image tower is a ModifiedResNet, not open_clip's own"],
        ),
        (
            _text(no_causal_mask=True),
            ["shared prefixes, because its text tower attends both ways, to padding too: each"],
        ),
        (_text(embed_cls=True), ["shared prefixes, because its text tower appends a class token: each text costs 24"]),
        (_text(pool_type="last"), ["shared prefixes, because its text tower is read by 'last', not at the end token"]),
    ],
)
def test_each_kind_of_tower_says_what_it_is(
    changes: dict[str, Any], expected: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_encoder(str(write_model(tmp_path / "model", **changes)))
    assert len(caplog.messages) == len(expected)
    assert all(part in message for part, message in zip(expected, caplog.messages, strict=True)), caplog.messages


def test_a_second_model_of_the_kind_is_not_reported_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed in (0, 1):
        load_encoder(str(write_model(tmp_path / f"model-{seed}", seed=seed, vision_cfg=RESNET)))
    assert len(caplog.messages) == 1


def test_slower_linear_layers_are_reported_where_they_are_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`degla evaluate` warned of training, too."""
    monkeypatch.setattr(linear_kernel, "is_faster", lambda: True)
    encoder = load_encoder(str(write_model(tmp_path / "model", vision_cfg=RESNET)))
    assert "in training" not in caplog.text
    fast_paths.tell(encoder, training=True)
    assert caplog.text.count("linear layers by oneDNN in training") == 1


def test_the_doctor_tells_all_of_them(tmp_path: Path) -> None:
    from degla.doctor.examine import _model

    finding = _model(load_encoder(str(write_model(tmp_path / "model", vision_cfg=timm_tower("test_convnext")))))
    assert finding.state == "warning"
    for name in ("only the class token", "adapters in the image tower", "outputs of patches and tokens"):
        assert name in finding.text


@pytest.mark.parametrize(("vision", "expected"), [(RESNET, ["image tower, a ModifiedResNet"]), (timm_tower(), [])])
def test_gradient_checkpointing_that_does_nothing_is_reported(
    vision: dict[str, Any], expected: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", vision_cfg=vision)))
    caplog.clear()
    encoder.checkpoint_gradients()
    assert len(caplog.messages) == len(expected)
    assert all(part in message for part, message in zip(expected, caplog.messages, strict=True))
