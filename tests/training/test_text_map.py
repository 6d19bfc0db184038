"""LABCLIP: a matrix on the text embeddings, trained on frozen towers and folded into the projection of a checkpoint."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from degla.errors import InputError
from degla.losses.image_grounded import ImageGrounded
from degla.model.adapters import AdapterConfig, adapter_state, add_text_map, load_adapter_state, merged_state
from degla.model.checkpoint import average_weights
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.recipes.labclip import labclip
from tests.tiny import CAPTIONS, CONFIG, write_model
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]
LINEAR = {"custom_text": True, "text_cfg": CONFIG["text_cfg"] | {"proj_type": "linear", "proj_bias": True}}


def matrix_of(encoder: Encoder) -> torch.Tensor:
    """The map, after checking that there is exactly one."""
    (matrix,) = (value for name, value in encoder.clip.named_parameters() if name.endswith(".text_map"))
    return matrix


def moved(encoder: Encoder, matrix: torch.Tensor) -> Encoder:
    """A copy whose map is `matrix`."""
    mapped = copy.deepcopy(encoder)
    matrix_of(mapped).data = matrix
    return mapped


def test_what_is_trained_beside_the_weights_of_a_sigmoid_model_comes_back(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "model", init_logit_bias=-10))
    trained, again = load_encoder(folder), load_encoder(folder)
    with pytest.raises(RuntimeError, match="the adapters differ"):
        load_adapter_state(again.clip, {"text_map": torch.eye(16)})
    for encoder in (trained, again):
        add_text_map(encoder.clip, name="tiny")
    with torch.no_grad():
        for value in (matrix_of(trained), trained.clip.logit_scale, trained.clip.logit_bias):
            value += 0.5
    load_adapter_state(again.clip, adapter_state(trained.clip))
    assert again.fingerprint == trained.fingerprint != load_encoder(folder).fingerprint


@pytest.mark.parametrize("changes", [{}, LINEAR], ids=["matrix", "layer with bias"])
def test_the_identity_changes_no_bit_and_a_folded_map_is_the_map(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **changes)
    plain, mapped = load_encoder(str(folder)), load_encoder(str(folder))
    add_text_map(mapped.clip, name="tiny")
    texts = plain.tokenize(CAPTIONS)
    before = plain.encode_captions(texts).detach()
    assert torch.equal(before, mapped.encode_captions(texts))
    assert plain.clip.state_dict().keys() == merged_state(mapped.clip).keys()
    assert all(torch.equal(value, merged_state(mapped.clip)[name]) for name, value in plain.clip.state_dict().items())

    matrix = torch.eye(16) + 0.3 * torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    changed = moved(mapped, matrix)
    expected = torch.nn.functional.normalize(before @ matrix.T, dim=-1)
    raw = plain.clip.encode_text(texts) @ matrix.T
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(changed.encode_captions(texts), expected, rtol=0, atol=1e-6)
    # open_clip's own model, with only the folded weights.
    kind = open_clip.CustomTextCLIP if changes else open_clip.CLIP
    own = kind(**{name: value for name, value in (CONFIG | changes).items() if name != "custom_text"}).eval()
    own.load_state_dict(merged_state(changed.clip), strict=True)
    torch.testing.assert_close(own.encode_text(texts), raw, rtol=1e-6, atol=1e-6)

    scaled = moved(mapped, 3.0 * torch.eye(16))
    torch.testing.assert_close(scaled.encode_captions(texts), before, rtol=0, atol=1e-6)
    turn = torch.linalg.qr(matrix)[0]
    rows = moved(mapped, turn).encode_captions(texts)
    torch.testing.assert_close(rows @ rows.T, before @ before.T, rtol=0, atol=1e-6)
    assert (rows - before).abs().max() > 0.1


def test_known_answers() -> None:
    """A batch of two at scale 1 with orthogonal negatives; four equal options of one image."""
    axes = torch.eye(4)
    config = labclip()
    loss = config.objective["contrastive"](image=axes[:2], caption=axes[:2], negative=axes[2:], scale=1.0)
    assert loss.item() == pytest.approx(0.528465, abs=1e-6)
    assert config.optim.start_scale == 1
    choice = ImageGrounded()(image=axes[:1], caption=axes[:1], negative=axes[None, [0, 0, 0]], scale=1.0)
    assert choice.item() == pytest.approx(1.386294, abs=1e-6)


def test_a_run_moves_map_and_scale_alone_and_continues_exactly(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("labclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", chunk_size=3)
    outcome, resumed = whole_and_resumed(config)
    base, tuned = load_file(tiny_model / "open_clip_model.safetensors"), load_encoder(str(outcome.folder))
    assert {name for name, value in tuned.clip.state_dict().items() if not torch.equal(value, base[name])} == {
        "text_projection",
        "logit_scale",
    }
    assert 1 <= tuned.scale.item() < 1.1, "started at 1"
    adapters = load_file(outcome.folder / "adapters.safetensors")
    matrix = next(value for name, value in adapters.items() if name.endswith(".text_map"))
    torch.testing.assert_close(tuned.clip.text_projection, base["text_projection"] @ matrix.T, rtol=0, atol=1e-6)
    for name in ("open_clip_model", "adapters"):
        left, right = (load_file(folder / f"{name}.safetensors") for folder in (outcome.folder, resumed.folder))
        assert left and all(torch.equal(value, right[key]) for key, value in left.items()), name
    # Averaging the weights averages the map: (I + A) / 2.
    half = average_weights(load_encoder(str(tiny_model)), tuned, share=0.5).clip.text_projection
    expected = base["text_projection"] @ (torch.eye(16) + matrix).T / 2
    torch.testing.assert_close(half, expected, rtol=0, atol=1e-6)


def test_the_map_of_a_layer_with_a_bias_is_written_once_and_resumed(tiny_pairs: Pairs, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", **LINEAR)
    config = tiny_config("degla", model=model, pairs=tiny_pairs, out=tmp_path / "whole")
    outcome, resumed = whole_and_resumed(replace(config, adapter=AdapterConfig(text_map=True)))
    for name in ("open_clip_model", "adapters", "teacher_adapters"):
        left, right = (load_file(folder / f"{name}.safetensors") for folder in (outcome.folder, resumed.folder))
        assert left and all(torch.equal(value, right[key]) for key, value in left.items()), name
    base, tuned = load_encoder(str(model)), load_encoder(str(outcome.folder))
    (matrix,) = (v for n, v in load_file(outcome.folder / "adapters.safetensors").items() if n.endswith(".text_map"))
    texts = base.tokenize(CAPTIONS)
    mapped = torch.nn.functional.normalize(base.encode_captions(texts) @ matrix.T, dim=-1)
    torch.testing.assert_close(tuned.encode_captions(texts), mapped, rtol=0, atol=1e-5)


def test_with_adapters_both_are_trained(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    _, gradients, _ = first_step(replace(config, adapter=AdapterConfig(rank=2, text_map=True)))
    kinds = {"lora" if "lora_" in name else name.rpartition(".")[2] for name in gradients}
    assert kinds == {"lora", "text_map", "logit_scale"}


def test_a_tower_without_a_projection_is_refused(tmp_path: Path) -> None:
    text = CONFIG["text_cfg"] | {"proj_type": "none", "width": 16}
    encoder = load_encoder(str(write_model(tmp_path / "model", custom_text=True, text_cfg=text)))
    with pytest.raises(InputError, match=r"--adapter\.text-map: tiny has no linear text projection"):
        add_text_map(encoder.clip, name="tiny")
