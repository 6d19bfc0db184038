"""Depth: the blocks of open_clip's, timm's and transformers' towers, in order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from degla.model.towers import tower_depth

TIMM = {
    "vit_tiny_patch16_224": {"depth": 3, "embed_dim": 24, "num_heads": 2},
    "convnext_atto": {"depths": (1, 2, 1, 1), "dims": (8, 8, 16, 16)},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 2, 1), "embed_dim": 12, "num_heads": (1, 1, 2, 2)},
    "resnet18": {},
    "test_efficientnet": {},
    "mobilenetv3_small_050": {},
    "fastvit_t8": {"embed_dims": (8, 8, 16, 16), "layers": (1, 1, 1, 1)},
    "eva02_tiny_patch14_224": {"depth": 2, "embed_dim": 24, "num_heads": 2},
}


def _clip(visual: nn.Module | None = None, text: nn.Module | None = None) -> nn.Module:
    clip: Any = nn.Module()
    clip.visual, clip.text = visual or nn.Identity(), text or nn.Identity()
    clip.logit_scale = nn.Parameter(torch.zeros(()))
    return clip


class _TimmTower(nn.Module):
    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        import timm

        self.trunk = timm.create_model(name, num_classes=0, **options)
        self.head = nn.Linear(self.trunk.head_hidden_size or self.trunk.num_features, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.trunk(images))
        return output


def _reached(tower: nn.Module, image_size: int) -> list[str]:
    """Parameters in the order in which their modules are called."""
    order: list[str] = []
    for path, part in tower.named_modules():
        own = [f"{path}.{name}" for name, _ in part.named_parameters(recurse=False)]
        part.register_forward_pre_hook(lambda *_, own=own: order.extend(own))
    with torch.no_grad():
        tower.eval()(torch.zeros(1, 3, image_size, image_size))
    return order


@pytest.mark.parametrize("name", TIMM)
def test_blocks_of_timm_in_the_order_of_the_computation(name: str) -> None:
    tower = _TimmTower(name, **TIMM[name])
    depth = tower_depth(_clip(tower), "image")
    assert depth is not None and depth.count >= 3 - ("eva02" in name)
    names = [f"visual.{path}" for path, _ in tower.named_parameters()]
    assert [*depth.of] == names and set(depth.of.values()) == {*range(-1, depth.count + 1)}
    assert depth.of["visual.head.weight"] == depth.count
    size = tower.trunk.default_cfg["input_size"][-1]
    numbers = [depth.of[f"visual.{path}"] for path in dict.fromkeys(_reached(tower, size))]
    assert numbers == sorted(numbers), "a block with a higher number was computed first"


def test_blocks_of_open_clip() -> None:
    import open_clip

    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 3}
    resnet = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8}
    clip = open_clip.CLIP(embed_dim=8, vision_cfg=resnet, text_cfg=text)
    image, texts = tower_depth(clip, "image"), tower_depth(clip, "text")
    assert image is not None and texts is not None and (image.count, texts.count) == (5, 3)
    assert image.of["visual.bn3.weight"] == -1 and image.of["visual.layer1.0.conv1.weight"] == 0
    assert image.of["visual.layer2.1.bn2.bias"] == 2 and image.of["visual.attnpool.positional_embedding"] == 5
    assert texts.of["token_embedding.weight"] == texts.of["positional_embedding"] == -1
    assert texts.of["transformer.resblocks.2.ln_1.weight"] == 2 and texts.of["text_projection"] == 3
    assert not {"logit_scale"} & (image.of.keys() | texts.of.keys())


def test_blocks_of_a_text_tower_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
    tower: Any = nn.Module()
    tower.transformer = transformers.BertModel(transformers.BertConfig(**small, num_hidden_layers=3))
    tower.proj = nn.Linear(16, 4)
    depth = tower_depth(_clip(text=tower), "text")
    assert depth is not None and depth.count == 3
    of = {name.removeprefix("text.transformer."): number for name, number in depth.of.items()}
    assert of["embeddings.LayerNorm.weight"] == -1 and of["encoder.layer.1.output.dense.bias"] == 1
    assert of["pooler.dense.weight"] == of["text.proj.weight"] == 3

    t5 = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_heads=2, vocab_size=50, num_layers=2)
    tower.transformer = transformers.T5EncoderModel(t5).encoder
    depth = tower_depth(_clip(text=tower), "text")
    assert depth is not None and depth.count == 2
    assert depth.of["text.transformer.embed_tokens.weight"] == -1
    assert depth.of["text.transformer.final_layer_norm.weight"] == 2


def test_a_tower_of_another_kind_has_no_depth() -> None:
    assert tower_depth(_clip(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))), "image") is None
