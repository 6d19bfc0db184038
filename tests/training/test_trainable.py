"""Frozen blocks and adapters: what changes, what stays, what the teacher averages, what a checkpoint holds."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from degla.errors import InputError
from degla.losses import losses_by_name
from degla.model.adapters import AdapterConfig, add_adapters, merged_state
from degla.model.block import run_block
from degla.model.image import count_frozen
from degla.model.load import load_encoder
from degla.training.loop import train
from degla.training.optim import choose_trainable
from tests.tiny import CAPTIONS, CONFIG, timm_tower, write_model
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]


def _moved(model: Path, folder: Path) -> set[str]:
    before, after = (load_file(place / "open_clip_model.safetensors") for place in (model, folder))
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize(("tower", "count"), [("image", 1), ("text", 1), ("image", -1)])
def test_first_blocks_stay(tower: str, count: int, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    flags = {f"freeze_{tower}_blocks": count}  # All but the last of two is the first.
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=3, **flags)
    moved = _moved(tiny_model, train(config).folder)
    names = load_file(tiny_model / "open_clip_model.safetensors").keys()
    first = "visual.transformer.resblocks.0." if tower == "image" else "transformer.resblocks.0."
    entrance = ("visual.conv1", "visual.class_embedding", "visual.positional_embedding", "visual.ln_pre")
    entrance = entrance if tower == "image" else ("token_embedding", "positional_embedding")
    frozen = {name for name in names if name.startswith((first, *entrance))}
    assert moved == names - frozen and len(frozen) > 12
    with pytest.raises(InputError, match=rf"freeze-{tower}-blocks is {9 * count}, but .* has 2 such blocks"):
        train(replace(config, out=tmp_path / "b", train=replace(config.train, **{f"freeze_{tower}_blocks": 9 * count})))


def test_all_blocks_may_be_frozen_or_be_the_last_ones(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    trained = {}
    for count in (2, -2):
        encoder = load_encoder(str(tiny_model))
        config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, freeze_image_blocks=count)
        choose_trainable(encoder, config)
        named = encoder.clip.visual.named_parameters()
        trained[count] = {name for name, value in named if value.requires_grad}
    behind = {"ln_post.weight", "ln_post.bias", "proj"}
    assert trained[2] == behind and trained[-2] == behind | {
        name for name, _ in encoder.clip.visual.named_parameters() if name.startswith("transformer.")
    }


@pytest.mark.usefixtures("attention_form")
@pytest.mark.parametrize("parts", ["attention", "all"])
def test_adapters_start_at_the_base_and_merge_to_equal_outputs(parts: Any, tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    tokens, images = encoder.tokenize(CAPTIONS), torch.randn(4, 3, 32, 32)
    base = encoder.encode_captions(tokens), encoder.encode_images(images)
    blocks = [f"{tower}transformer.resblocks.{number}" for tower in ("visual.", "") for number in (0, 1)]
    add_adapters(encoder.clip, AdapterConfig(rank=3, parts=parts), blocks=blocks)
    assert torch.equal(encoder.encode_captions(tokens), base[0]) and torch.equal(encoder.encode_images(images), base[1])

    generator = torch.Generator().manual_seed(0)
    adapters = [(name, value) for name, value in encoder.clip.named_parameters() if "lora_" in name]
    assert len(adapters) == 4 * 2 * (2 if parts == "attention" else 4)
    for _, value in adapters:
        value.data = 0.3 * torch.randn(value.shape, generator=generator)
    with torch.no_grad():
        changed = encoder.encode_captions(tokens), encoder.encode_images(images)
    assert (changed[0] - base[0]).abs().max() > 0.01 and (changed[1] - base[1]).abs().max() > 0.01
    plain = load_encoder(str(tiny_model))
    plain.clip.load_state_dict(merged_state(encoder.clip), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(plain.encode_captions(tokens), changed[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(plain.encode_images(images), changed[1], rtol=0, atol=1e-5)


def test_training_with_adapters(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", steps=4)
    whole = replace(whole, adapter=AdapterConfig(rank=2))
    outcome, resumed = whole_and_resumed(whole)
    moved = _moved(tiny_model, outcome.folder)
    ends = ("in_proj_weight", "out_proj.weight", "c_fc.weight", "c_proj.weight", "logit_scale")
    assert moved and all(name.endswith(ends) for name in moved)
    assert len(moved) == 4 * 4 + 1, "an adapter of a block did not move"

    teacher = load_file(outcome.folder / "teacher.safetensors")
    base = load_file(tiny_model / "open_clip_model.safetensors")
    assert teacher.keys() == base.keys()
    assert {name for name, value in teacher.items() if not torch.equal(value, base[name])} == moved

    for name in ("open_clip_model", "teacher", "adapters", "teacher_adapters"):
        left, right = (load_file(folder / f"{name}.safetensors") for folder in (outcome.folder, resumed.folder))
        assert left and all(torch.equal(value, right[key]) for key, value in left.items()), name


def test_adapters_stand_in_trained_blocks_alone(tiny_pairs: Pairs, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", vision_cfg=CONFIG["vision_cfg"] | {"layers": 11})
    loop = {"freeze_image_blocks": 10, "train_text_tower": False}
    config = tiny_config("clip", model=model, pairs=tiny_pairs, out=tmp_path, **loop)
    encoder = load_encoder(str(model))
    choose_trainable(encoder, replace(config, adapter=AdapterConfig(rank=2)))
    trained = {name for name, value in encoder.clip.named_parameters() if value.requires_grad} - {"logit_scale"}
    assert len(trained) == 2 * 4 and all(name.startswith("visual.transformer.resblocks.10.") for name in trained)
    assert sum("lora_" in name for name, _ in encoder.clip.named_parameters()) == len(trained)


@pytest.mark.parametrize("frozen", [{"freeze_image_blocks": 1}, {"train_image_tower": False}])
def test_adapters_of_the_text_tower_stand_in_no_frozen_image_block(
    frozen: dict[str, Any], tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """The names of CLIP's text blocks end those of its image blocks, which got adapters too, and were trained."""
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, **frozen)
    encoder = load_encoder(str(tiny_model))
    choose_trainable(encoder, replace(config, adapter=AdapterConfig(rank=2)))
    blocks = {name.partition("resblocks.")[0] + name.split("resblocks.")[1][0]
              for name, _ in encoder.clip.named_parameters() if "lora_" in name}  # fmt: skip
    image = {"visual.transformer.1"} if "freeze_image_blocks" in frozen else set()
    assert blocks == {"transformer.0", "transformer.1"} | image


def test_adapters_are_those_of_the_seed(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    """Whatever was drawn before, because models are loaded in several ways."""
    adapters = []
    for before, seed in ((1, 3), (2, 3), (1, 4)):
        config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path, seed=seed)
        torch.manual_seed(before)
        _, _, trainer = first_step(replace(config, adapter=AdapterConfig(rank=2)))
        adapters.append({name: value for name, value in trainer.encoder.named_parameters() if "lora_A" in name})
    one, again, other = adapters
    assert one and all(torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name]) for name in one)


def test_tsvlc_trains_adapters_of_a_quarter_and_nothing_else(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("tsvlc", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    config = replace(config, data=replace(config.data, positives="same_image"))
    _, gradients, trainer = first_step(config)
    factors = [factor for layer in trainer.encoder.clip.modules() for factor in getattr(layer, "scaling", {}).values()]
    assert len(factors) == 4 * 4 and set(factors) == {0.25}
    assert gradients and all("lora_" in name for name in gradients)


def test_the_teacher_shares_what_is_not_trained(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    _, gradients, trainer = first_step(replace(config, adapter=AdapterConfig(rank=2)))
    assert trainer.teacher is not None
    theirs = dict(trainer.teacher.encoder.clip.named_parameters())
    for name, value in trainer.encoder.clip.named_parameters():
        assert (theirs[name].data_ptr() == value.data_ptr()) != value.requires_grad, name
        assert not theirs[name].requires_grad
    assert all("lora_" in name or name == "clip.logit_scale" for name in gradients)
    assert sum("lora_" in name for name in gradients) == 2 * 4 * 4


def _blocks_run(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The image tower's blocks as `run_block` runs them from now on, by the weights that they read."""
    run: list[Any] = []

    def counted(block: Any, states: Any, attend: Any) -> Any:
        run.append(block.mlp.c_fc.weight)
        return run_block(block, states, attend)

    monkeypatch.setattr("degla.model.image.run_block", counted)
    monkeypatch.setattr("degla.model.block.run_block", counted)
    return run


@pytest.mark.parametrize(
    ("recipe", "blocks", "chunk_size", "shared"),
    [
        ("degla", -1, None, 2),
        ("degla", 2, None, 2),  # The last block is never among them.
        ("degla", 1, None, 1),
        ("degla", 0, None, 0),
        ("degla", -1, 2, 2),
        ("gift", -1, None, 2),
        ("fsc_clip", -1, None, 2),  # Reads all patches.
        ("fare", -1, None, 0),  # The student's images are attacked.
        ("pointacl_clip", -1, None, 0),  # It reads some of the patches.
        ("excon_clip", -1, None, 0),  # Parts of the images are added for it.
    ],
)
def test_student_and_teacher_share_the_states_of_frozen_blocks(
    recipe: str, blocks: int, chunk_size: int | None, shared: int, monkeypatch: pytest.MonkeyPatch,
    tiny_pairs: Pairs, tmp_path: Path,
) -> None:  # fmt: skip
    """Loss and gradients are the same to the bit as when each runs all blocks."""
    model = write_model(tmp_path / "model", vision_cfg=CONFIG["vision_cfg"] | {"layers": 3})
    loop = {"freeze_image_blocks": blocks, "chunk_size": chunk_size}
    config = tiny_config(recipe, model=model, pairs=tiny_pairs, out=tmp_path / "run", **loop)
    distilling = replace(config.objective["self_distillation"], weight=0.1)  # For recipes without a teacher.
    config = replace(config, objective=losses_by_name(**config.objective | {"self_distillation": distilling}))
    run = _blocks_run(monkeypatch)
    loss, gradients, trainer = first_step(config)
    visual = trainer.encoder.clip.visual
    weights = [block.mlp.c_fc.weight for block in visual.transformer.resblocks]
    times = [sum(each is weight for each in run) for weight in weights]
    monkeypatch.setattr("degla.training.build.count_frozen", lambda clip: 0)
    run.clear()
    whole_loss, whole, _ = first_step(config)
    assert torch.equal(loss, whole_loss) and gradients.keys() == whole.keys()
    assert all(torch.equal(gradients[name], value) for name, value in whole.items())
    if shared:
        assert times[:shared] == [1 if chunk_size is None else 4 // chunk_size] * shared and len(run) > sum(times)


def test_a_tower_that_drops_patches_in_training_shares_nothing(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", vision_cfg=CONFIG["vision_cfg"] | {"patch_dropout": 0.5})
    clip = load_encoder(str(model)).requires_grad_(False).clip
    assert clip.visual.patch_dropout.prob == 0.5 and count_frozen(clip) == 0
    clip.visual.patch_dropout.prob = 0.0
    assert count_frozen(clip) == 1


@pytest.mark.usefixtures("attention_form")
def test_open_clip_itself_computes_adapters_as_we_do(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    tokens, images = encoder.tokenize(CAPTIONS), torch.randn(4, 3, 32, 32)
    blocks = [f"{tower}transformer.resblocks.{number}" for tower in ("visual.", "") for number in (0, 1)]
    add_adapters(encoder.clip, AdapterConfig(rank=3), blocks=blocks)
    generator = torch.Generator().manual_seed(0)
    for name, value in encoder.clip.named_parameters():
        if "lora_" in name:
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    for model in (encoder, copy.deepcopy(encoder)):
        plain = load_encoder(str(tiny_model))
        plain.clip.load_state_dict(merged_state(model.clip), strict=True)
        before = {name: value.clone() for name, value in model.clip.state_dict().items()}
        for mode in (True, False):
            ours, theirs = model.train(mode).clip, plain.train(mode).clip
            for result, expected in (
                (ours.encode_text(tokens, normalize=True), theirs.encode_text(tokens, normalize=True)),
                (ours.encode_image(images, normalize=True), theirs.encode_image(images, normalize=True)),
                (ours.encode_text(tokens, normalize=True), model.encode_captions(tokens)),
                (ours.encode_image(images, normalize=True), model.encode_images(images)),
            ):
                torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
        assert all(torch.equal(value, before[name]) for name, value in model.clip.state_dict().items())
    encoder.clip.encode_text(tokens).sum().backward()
    grads = [value.grad for name, value in encoder.clip.named_parameters() if "lora_B" in name and "visual" not in name]
    assert grads and all(grad is not None and grad.abs().max() > 0 for grad in grads)


def test_towers_that_take_no_adapters_are_refused_by_what_they_are(tiny_pairs: Pairs, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", vision_cfg=timm_tower())
    config = tiny_config("clip", model=model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    config = replace(config, adapter=AdapterConfig(rank=2))
    with pytest.raises(InputError, match=r"add adapters to .*: its image tower is open_clip TimmModel, not one of"):
        train(config)
    outcome = train(replace(config, train=replace(config.train, train_image_tower=False)))
    moved = _moved(model, outcome.folder)
    assert moved and not any(name.startswith("visual.") for name in moved)


@pytest.mark.usefixtures("attention_form")
def test_adapters_of_a_tower_that_attends_both_ways(tiny_pairs: Pairs, tmp_path: Path) -> None:
    text = {"custom_text": True, "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2,
                                              "layers": 2, "no_causal_mask": True}}  # fmt: skip
    model = write_model(tmp_path / "model", **text)
    config = tiny_config("clip", model=model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    outcome = train(replace(config, adapter=AdapterConfig(rank=2)))
    assert any(name.startswith("text.transformer") for name in _moved(model, outcome.folder))


def test_adapters_of_a_tower_whose_class_token_sees_no_padding(tmp_path: Path) -> None:
    """As in CoCa's texts, where each row has a mask of its own."""
    text = CONFIG["text_cfg"] | {"embed_cls": True}
    model = write_model(tmp_path / "model", custom_text=True, text_cfg=text)
    encoder, plain = load_encoder(str(model)), load_encoder(str(model))
    add_adapters(encoder.clip, AdapterConfig(rank=2), blocks=[f"text.transformer.resblocks.{n}" for n in (0, 1)])
    generator = torch.Generator().manual_seed(0)
    for name, value in encoder.clip.named_parameters():
        if "lora_" in name:
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    tokens = encoder.tokenize(CAPTIONS)
    with torch.no_grad():
        base = plain.encode_captions(tokens)
        plain.clip.load_state_dict(merged_state(encoder.clip), strict=True)
        changed = encoder.encode_captions(tokens)
        torch.testing.assert_close(plain.encode_captions(tokens), changed, rtol=0, atol=1e-5)
    assert (changed - base).abs().max() > 0.1
