"""Outputs for patches and tokens match open_clip's own towers, and embeddings match the plain calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from degla.errors import InputError
from degla.model.load import load_encoder
from tests.tiny import CAPTIONS, CONFIG, timm_tower, write_model

VISION = CONFIG["vision_cfg"]


@pytest.mark.usefixtures("attention_form")
@pytest.mark.parametrize("custom_text", [False, True], ids=["CLIP", "CustomTextCLIP"])
def test_outputs_are_those_of_the_whole_towers(tmp_path: Path, custom_text: bool) -> None:
    changes = {"custom_text": True} if custom_text else {}
    encoder = load_encoder(str(write_model(tmp_path / "model", **changes))).double()
    assert encoder.gives_tokens
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    texts = encoder.tokenize([*CAPTIONS, CAPTIONS[0]])
    image, text, patch, token, *_ = encoder.embed(images, texts, dense=True)
    torch.testing.assert_close(image, encoder.encode_images(images))
    torch.testing.assert_close(text, encoder.encode_captions(texts))

    clip: Any = encoder.clip
    visual, tower = clip.visual, getattr(clip, "text", clip)
    states = visual.ln_post(visual.transformer(visual._embeds(images))) @ visual.proj
    assert patch.shape == (4, 4, 16)
    torch.testing.assert_close(patch, states[:, 1:].float())
    states = tower.token_embedding(texts) + tower.positional_embedding
    states = tower.ln_final(tower.transformer(states, attn_mask=tower.attn_mask)) @ tower.text_projection
    end = texts.argmax(dim=1)
    assert token.shape == (7, int(end.max()) + 1, 16)
    for row, last in enumerate(end.tolist()):
        torch.testing.assert_close(token[row, : last + 1], states[row, : last + 1].float())
    assert patch.norm(dim=-1).std() > 0.01, "outputs of patches are not of unit length"


@pytest.mark.usefixtures("attention_form")
def test_gradients_reach_both_towers_whole(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    _, _, patch, token, *_ = encoder.embed(torch.randn(2, 3, 32, 32), encoder.tokenize(CAPTIONS[:2]), dense=True)
    (patch.square().sum() + token.square().sum()).backward()
    still = [name for name, value in encoder.clip.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == ["logit_scale"]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("projection", ["linear", ""])
def test_places_of_a_map_are_the_patches(tmp_path: Path, name: str, projection: str) -> None:
    tower = timm_tower(name, image_size=64) | {"timm_proj": projection}
    encoder = load_encoder(str(write_model(tmp_path / "model", vision_cfg=tower)))
    images, texts = torch.randn(3, 3, 64, 64), encoder.tokenize(CAPTIONS[:2])
    _, _, patch, _, raw, *_ = encoder.embed(images, texts, dense=True, raw=True)
    torch.testing.assert_close(raw, encoder.clip.encode_image(images))
    visual: Any = encoder.clip.visual
    place = visual.trunk.forward_features(images)[:, :, 1:2, 0:1]
    torch.testing.assert_close(patch[:, 2], visual.head(visual.trunk.forward_head(place)))
    assert patch.shape == (3, 4, 16), "two positions in each direction, row by row"


@pytest.mark.parametrize(
    "vision",
    [
        VISION | {"pool_type": "avg"},
        timm_tower("test_convnext"),
        timm_tower("test_vit"),
        timm_tower() | {"timm_pool": "avgmax"},
        timm_tower() | {"timm_proj": "mlp"},
    ],
    ids=["average", "norm behind the average", "blocks of timm", "average and maximum", "two layers"],
)
def test_other_towers_are_refused(tmp_path: Path, vision: dict[str, object]) -> None:
    encoder = load_encoder(str(write_model(tmp_path / "model", vision_cfg=vision)))
    assert not encoder.gives_tokens
    with pytest.raises(InputError, match=r"provides no outputs for patches and tokens\. .* --train\.trim"):
        encoder.embed(torch.randn(1, 3, 32, 32), encoder.tokenize(["a cat"]), dense=True)
