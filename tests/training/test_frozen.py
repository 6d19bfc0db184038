"""What is frozen stays byte-equal, buffers included; BatchNorm keeps its statistics unless told to update them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.model.towers import rest_what_stays, tower_depth, tower_of
from degla.training.loop import train
from degla.training.optim import choose_trainable
from tests.tiny import CONFIG, RESNET, timm_tower, write_model
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]
TOWERS = {"resnet": RESNET, "timm": timm_tower()}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module", params=TOWERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP whose image tower has BatchNorm."""
    return write_model(tmp_path_factory.mktemp("models") / request.param, vision_cfg=TOWERS[request.param])


def _changed(model: Path, folder: Path, file: str = "open_clip_model.safetensors") -> tuple[set[str], set[str]]:
    """Names of parameters and buffers that differ, and of those that do not."""
    before, after = load_file(model / "open_clip_model.safetensors"), load_file(folder / file)
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return changed, before.keys() - changed


def _config(model: Path, pairs: Pairs, out: Path, recipe: str = "degla", **loop: Any) -> TrainConfig:
    return tiny_config(recipe, model=model, pairs=pairs, out=out, **{"steps": 2} | loop)


@pytest.mark.parametrize("batch_norm", ["frozen", "update"])
def test_a_frozen_tower_stays(batch_norm: str, model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    loop = {"train_image_tower": False, "train_scale": False, "batch_norm": batch_norm}
    outcome = train(_config(model, tiny_pairs, tmp_path / "run", **loop))
    changed, same = _changed(model, outcome.folder)
    assert {name for name in same if tower_of(name) != "text"} == {
        name for name in same | changed if tower_of(name) != "text"
    }
    assert any(name.endswith("running_var") for name in same) and len(changed) > 20


def test_a_frozen_scale_stays_where_it_is(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config(tiny_model, tiny_pairs, tmp_path / "run", train_scale=False, steps=1)
    outcome = train(replace(config, optim=replace(config.optim, max_scale=2.0)))
    assert "logit_scale" in _changed(tiny_model, outcome.folder)[1]


def test_trained_towers_keep_their_statistics(model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    outcome = train(_config(model, tiny_pairs, tmp_path / "run"))
    for file in ("open_clip_model.safetensors", "teacher.safetensors"):
        changed, same = _changed(model, outcome.folder, file)
        assert not any(name.endswith(STATISTICS) for name in changed)
        assert any(name.endswith(STATISTICS) for name in same) and any(tower_of(name) == "image" for name in changed)


def test_statistics_move_to_the_given_device(model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = _config(model, tiny_pairs, tmp_path / "run", batch_norm="update", freeze_image_blocks=-1, steps=4)
    outcome, resumed = whole_and_resumed(whole)
    changed, same = _changed(model, outcome.folder)
    depth = tower_depth(load_encoder(str(model)).clip, "image")
    assert depth is not None
    trained = {name.rpartition(".")[0] for name, number in depth.of.items() if number >= depth.count - 1}
    moved = {name for name in changed if name.endswith(STATISTICS)}
    assert moved and {name.rpartition(".")[0] for name in moved} <= trained
    assert {name for name in same if name.rpartition(".")[0] in trained} & {
        name for name in same if name.endswith(STATISTICS)
    } == set()

    for file in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = load_file(outcome.folder / file), load_file(resumed.folder / file)
        assert all(torch.equal(value, right[name]) for name, value in left.items()), file


@pytest.mark.parametrize("batch_norm", ["frozen", "update"])
def test_chunks_are_exact_or_refused(batch_norm: str, model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = _config(model, tiny_pairs, tmp_path, batch_norm=batch_norm, batch_size=8)
    chunked = replace(whole, train=replace(whole.train, chunk_size=3))
    if batch_norm == "update":
        with pytest.raises(InputError, match=r"^--train\.batch-norm update .* --train\.chunk-size 3: each part would"):
            train(replace(chunked, out=tmp_path / "run"))
        return
    _, expected, _ = first_step(whole)
    _, gradients, _ = first_step(chunked)
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()) + 1e-8)


def test_chunks_of_neighbours_and_of_larger_replayed_batches_are_refused_too(
    model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    loop: dict[str, Any] = {"batch_norm": "update", "chunk_size": 4}
    replayed = _config(model, tiny_pairs, tmp_path, "negbench", **loop)
    choose_trainable(load_encoder(str(model)), replayed)
    replayed = replace(replayed, replay=replace(replayed.replay, batch_size=5))
    for config in (_config(model, tiny_pairs, tmp_path, "negclip_hard_images", **loop), replayed):
        with pytest.raises(InputError, match=r"--train\.chunk-size 4: each part would"):
            choose_trainable(load_encoder(str(model)), config)


def test_statistics_of_a_share_of_the_batch_are_refused(
    model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(model, tiny_pairs, tmp_path, batch_norm="update")
    again = replace(config, train=replace(config.train, gradient_checkpointing=True))
    with pytest.raises(InputError, match=r"combined with --train\.gradient-checkpointing: each batch would .* twice"):
        choose_trainable(load_encoder(str(model)), again)
    monkeypatch.setattr(Processes, "current", lambda: Processes(rank=0, count=2))
    with pytest.raises(InputError, match="combined with 2 processes: each would have statistics of its own rows"):
        choose_trainable(load_encoder(str(model)), config)


def test_moving_statistics_mean_nothing_without_batch_norm(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="degla.train")
    assert train(_config(tiny_model, tiny_pairs, tmp_path / "run", batch_norm="update", chunk_size=2)).finished
    assert f"--train.batch-norm update has no effect: {tiny_model} trains no BatchNorm." in caplog.messages


@pytest.mark.parametrize("name", ["resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_degla_plus_trains_the_last_block_of_any_tower(name: str, tiny_pairs: Pairs, tmp_path: Path) -> None:
    vision = RESNET if name == "resnet" else timm_tower(name, image_size=160 if name == "test_vit" else 32)
    model = write_model(tmp_path / "model", vision_cfg=vision)
    outcome = train(_config(model, tiny_pairs, tmp_path / "run", "degla_plus"))
    depth = tower_depth(load_encoder(str(model)).clip, "image")
    assert depth is not None and depth.count > 2
    changed, same = _changed(model, outcome.folder)
    moved = {depth.of[name] for name in changed if tower_of(name) == "image" and not name.endswith(STATISTICS)}
    assert moved == {depth.count - 1, depth.count}
    assert {depth.of[name] for name in same & depth.of.keys()} >= {*range(-1, depth.count - 1)}


def test_a_tower_without_depth_is_refused_with_the_remedy(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.training.optim.tower_depth", lambda *_: None)
    message = (
        r"^--train\.freeze-image-blocks is -1, but the blocks of the image tower of .*tiny are not known "
        r"\(VisionTransformer\)\. Use 0 to .*--train\.no-train-image-tower"
    )
    with pytest.raises(InputError, match=message):
        train(_config(tiny_model, tiny_pairs, tmp_path / "run", "degla_plus"))


def test_what_is_frozen_drops_nothing_out() -> None:
    drop, trained, norm = nn.Dropout(0.5), nn.Linear(2, 2), nn.BatchNorm1d(2)
    frozen = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.BatchNorm1d(2)).requires_grad_(False)
    module = nn.Sequential(frozen, drop, trained, norm).train()
    rest_what_stays(module, statistics=False)
    assert not any(part.training for part in frozen.modules())
    assert drop.training and trained.training and norm.training
    rest_what_stays(module, statistics=True)
    assert drop.training and not norm.training


def test_what_no_embedding_reads_is_not_trained(tiny_pairs: Pairs, tmp_path: Path) -> None:
    """CoCa's decoder would get no gradient, for which several processes wait."""
    vision = CONFIG["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = CONFIG["text_cfg"] | {"embed_cls": True, "output_tokens": True}
    written = CONFIG["text_cfg"] | {"attn_pooler_heads": 2}
    coca = write_model(tmp_path / "coca", custom_text=True, vision_cfg=vision, text_cfg=text, multimodal_cfg=written)
    encoder = load_encoder(str(coca))
    choose_trainable(encoder, _config(coca, tiny_pairs, tmp_path))
    trained = {name: value for name, value in encoder.clip.named_parameters() if value.requires_grad}
    assert "text_decoder.text_projection" not in trained and "text.text_projection" in trained
    images, texts = encoder.encode_images(torch.randn(2, 3, 32, 32)), encoder.encode_captions(encoder.tokenize(["a"]))
    (images.sum() + texts.sum() + encoder.scale).backward()
    assert [name for name, value in trained.items() if value.grad is None] == []


def test_attacks_and_evaluations_leave_the_modes_as_they_were(model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    from degla.model.attack import at_rest

    _, _, trainer = first_step(_config(model, tiny_pairs, tmp_path, train_text_tower=False))
    modes = {name: part.training for name, part in trainer.encoder.named_modules()}
    assert True in modes.values() and False in modes.values()
    with at_rest(trainer.encoder):
        assert not any(part.training for part in trainer.encoder.modules())
    assert {name: part.training for name, part in trainer.encoder.named_modules()} == modes
    assert CONFIG["text_cfg"]["layers"] == sum(
        not modes[f"clip.transformer.resblocks.{number}"] for number in range(CONFIG["text_cfg"]["layers"])
    )
