"""The last block computes only the class token if nothing else is read; other towers run unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from degla.model.image import encode_class_token, reads_class_token
from degla.model.load import load_encoder
from tests.tiny import ALL_TOKENS, CONFIG, write_model

VISION = CONFIG["vision_cfg"]


@pytest.mark.usefixtures("attention_form")
@pytest.mark.parametrize("activation", [True, False], ids=["QuickGELU", "GELU"])
@pytest.mark.parametrize("scaled", [None, 0.1], ids=["plain", "layer scale"])
def test_the_class_token_alone_is_exact(tmp_path: Path, activation: bool, scaled: float | None) -> None:
    changes = {"quick_gelu": activation, "vision_cfg": VISION | {"ls_init_value": scaled}}
    encoder = load_encoder(str(write_model(tmp_path / "model", **changes))).double()
    assert encoder.reads_class_token
    images = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    weights = torch.randn(5, 16, dtype=torch.float64)
    gradients = []
    rows = []
    for encode in (
        encoder.clip.encode_image,
        lambda images: encode_class_token(encoder.clip, images),
        lambda images: encoder.see_class_token(images, lambda attention, values: attention),
    ):
        encoder.zero_grad(set_to_none=True)
        rows.append(encode(images))
        (rows[-1] * weights).sum().backward()
        visual = encoder.clip.visual.named_parameters()
        gradients.append({name: value.grad.clone() for name, value in visual if value.grad is not None})
    assert len(gradients[0]) > 20
    for own, row in zip(gradients, rows, strict=True):
        torch.testing.assert_close(rows[0], row)
        assert gradients[0].keys() == own.keys()
        for name, expected in gradients[0].items():
            torch.testing.assert_close(own[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool_type": "avg"},
        {"attentional_pool": True, "attn_pooler_heads": 2},
        {"block_type": "custom", "qk_norm": True},
    ],
    ids=["average", "attention", "other blocks"],
)
def test_other_towers_run_as_they_are(tmp_path: Path, changes: dict[str, object]) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", vision_cfg=VISION | changes)))
    assert not encoder.reads_class_token and not reads_class_token(encoder.clip)
    images = torch.randn(3, 3, 32, 32)
    expected = torch.nn.functional.normalize(encoder.clip.encode_image(images), dim=-1)
    torch.testing.assert_close(encoder.encode_images(images), expected)


@torch.no_grad()
def test_embeddings_before_normalisation(tmp_path: Path) -> None:
    """Without being asked not to, open_clip's CoCa normalises them itself."""
    vision = VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = ALL_TOKENS | {"embed_cls": True, "output_tokens": True}
    coca = write_model(
        tmp_path / "coca", custom_text=True, vision_cfg=vision, text_cfg=text, multimodal_cfg=ALL_TOKENS | {"heads": 2}
    )
    encoder, images = load_encoder(str(coca)), torch.randn(3, 3, 32, 32)
    expected = encoder.clip.visual(images)[0]
    assert (expected.norm(dim=1) - 1).abs().min() > 0.1
    torch.testing.assert_close(encoder.embed(images, None, raw=True).raw_image, expected)
