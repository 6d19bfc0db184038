"""A model trained with a sigmoid loss: evaluated, trained with sigmoid forms, rejected by recipes without them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from degla.errors import InputError
from degla.losses import SigmoidContrastive
from degla.losses.core.objective import loss_class, losses_by_name
from degla.model.adapters import AdapterConfig
from degla.model.load import load_encoder
from degla.shelf import LOSSES, RECIPES
from degla.training.loop import train
from tests.tiny import CAPTIONS, write_model
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with a logit bias."""
    return write_model(tmp_path_factory.mktemp("models") / "siglip", init_logit_bias=-10)


SIGMOID = (
    "clip",
    "negclip",
    "negclip_hard_images",
    "degla",
    "degla_published",
    "degla_plus",
    "smoke",
    "labclip",
    "negbench",
    "c2lip",
    "pointacl_clip",
)
"""Recipes of losses that all have a sigmoid form, or read neither scale nor bias."""


@pytest.mark.parametrize("recipe", sorted({*RECIPES.names()} - {"fare", "structure_clip", *SIGMOID}))
def test_recipes_without_a_sigmoid_form_refuse_a_bias(
    recipe: str, siglip: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    refusal = r"siglip: the model has a logit_bias, .* use its scale.*such as clip, negclip"
    if recipe == "cs_clip_sg":
        refusal = "--objective.contrastive.queries images has no sigmoid form; keep it at both"
    with pytest.raises(InputError, match=refusal):
        train(tiny_config(recipe, model=siglip, pairs=tiny_pairs, out=tmp_path / "run"))


def test_the_pages_say_which_recipes_these_are() -> None:
    docs = Path(__file__).parents[2] / "docs"
    model, choosing = ((docs / f"{name}.md").read_text(encoding="utf-8") for name in ("model", "choosing"))
    table = model.partition("\n## Sigmoid-loss models")[2].partition("\nScale ")[0]
    assert set(re.findall(r"`(\w+)`", table)) - {"logit_bias"} == {*SIGMOID, "fare", "structure_clip"}
    named = re.search(r"\n\* (.*) and \[(\w+) more\]\(model", choosing)
    assert named and named[1].count("`") // 2 + 7 == len(SIGMOID) and named[2] == "seven"


@pytest.mark.parametrize("recipe", SIGMOID)
def test_recipes_with_one_train_scale_and_bias(recipe: str, siglip: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    outcome = train(tiny_config(recipe, model=siglip, pairs=tiny_pairs, out=tmp_path / "run", steps=2))
    assert outcome.values["sigmoid_contrastive"] > 0 and "contrastive" not in outcome.values
    base, tuned = (load_file(folder / "open_clip_model.safetensors") for folder in (siglip, outcome.folder))
    assert tuned["logit_bias"] != -10 and tuned["logit_scale"] != base["logit_scale"]
    assert outcome.values["bias"] == pytest.approx(tuned["logit_bias"].item(), abs=1e-6)


def test_parts_and_adapters_of_a_sigmoid_step_are_those_of_the_whole(
    siglip: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("degla", model=siglip, pairs=tiny_pairs, out=tmp_path)
    loss, whole, _ = first_step(config)
    again, parts, _ = first_step(replace(config, train=replace(config.train, chunk_size=1)))
    assert loss.item() == pytest.approx(again.item(), rel=1e-6) and whole["clip.logit_bias"] != 0
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-4)
    _, adapted, _ = first_step(replace(config, adapter=AdapterConfig(rank=2)))
    assert {"clip.logit_scale", "clip.logit_bias"} == {name for name in adapted if "lora_" not in name}
    _, frozen, _ = first_step(replace(config, train=replace(config.train, train_scale=False)))
    assert "clip.logit_bias" not in frozen and "clip.logit_scale" not in frozen


def test_a_sigmoid_run_resumes_bit_equal(siglip: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = tiny_config("degla", model=siglip, pairs=tiny_pairs, out=tmp_path / "a")
    done, resumed = (load_encoder(str(run.folder)).fingerprint for run in whole_and_resumed(whole))
    assert done == resumed


def test_a_scale_below_the_bound_may_rise_to_it(siglip: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=siglip, pairs=tiny_pairs, out=tmp_path)
    _, _, trainer = first_step(replace(config, optim=replace(config.optim, max_scale=50.0)))
    assert trainer.encoder.scale < 20
    trainer.encoder.clip.logit_scale.data.fill_(9.0)
    trainer.update(torch.zeros(()))
    assert trainer.encoder.scale.item() == pytest.approx(50.0)


def test_a_scale_above_the_bound_stays(tiny_pairs: Pairs, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", init_logit_bias=-12, init_logit_scale=4.76)
    config = tiny_config("clip", model=model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    scale = load_encoder(str(train(config).folder)).scale.item()
    assert 110 < scale <= load_encoder(str(model)).scale.item()


def test_a_scale_to_start_at_leaves_that_of_the_bias(
    siglip: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """From scale 1, with the bias of another scale, only pulls would be left: LABCLIP's map made all texts alike."""
    for model, scale in ((siglip, load_encoder(str(siglip)).scale.item()), (tiny_model, 1.0)):
        _, _, trainer = first_step(tiny_config("labclip", model=model, pairs=tiny_pairs, out=tmp_path))
        assert trainer.encoder.scale.item() == pytest.approx(scale, rel=0.01)
    # A value that a caller has set cannot be ignored as the recipe's own.
    for recipe, chosen in (("labclip", 2.0), ("clip", 1.0)):
        config = tiny_config(recipe, model=siglip, pairs=tiny_pairs, out=tmp_path)
        with pytest.raises(InputError, match=rf"^--optim\.start-scale {chosen:g}: .* has a logit_bias that fits its "):
            first_step(replace(config, optim=replace(config.optim, start_scale=chosen)))


def test_a_run_that_has_a_scale_to_start_at_goes_on(siglip: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    """Earlier versions ignored it with a warning; a resumed run cannot omit the flag."""
    config = tiny_config("clip", model=siglip, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    train(config)
    assert train(replace(config, optim=replace(config.optim, start_scale=2.0)), resume=True).finished


@pytest.mark.parametrize("size", [1, 2])
def test_a_contrast_of_one_pair_is_warned_of(
    size: int, siglip: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for model, name in ((siglip, "sigmoid_contrastive"), (tiny_model, "contrastive")):
        config = tiny_config("clip", model=model, pairs=tiny_pairs, out=tmp_path)
        first_step(replace(config, train=replace(config.train, batch_size=size)))
        assert (f"--train.batch-size 1: no other pair is in a batch, so {name} has" in caplog.text) == (size == 1)
        caplog.clear()


def test_a_model_without_a_bias_refuses_a_sigmoid_loss(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    sigmoid = losses_by_name(sigmoid_contrastive=SigmoidContrastive())
    with pytest.raises(InputError, match=r"has no logit_bias, but .* for sigmoid_contrastive\. Use contrastive"):
        train(replace(config, objective=sigmoid))


@pytest.mark.parametrize("recipe", ["fare", "structure_clip"])
def test_what_reads_no_scale_trains_and_everything_evaluates(
    recipe: str, siglip: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    outcome = train(tiny_config(recipe, model=siglip, pairs=tiny_pairs, out=tmp_path / "run", steps=1))
    tuned = load_encoder(str(outcome.folder))
    assert tuned.clip.logit_bias.item() == -10
    assert tuned.encode_captions(tuned.tokenize(CAPTIONS)).isfinite().all()


def test_losses_say_truly_whether_they_read_the_scale() -> None:
    """Losses that read the scale compute logits from cosines, directly, with `pair_logits` or place by place."""
    import inspect

    for name in LOSSES.names():
        source = inspect.getsource(inspect.getmodule(loss_class(name)) or object)
        assert loss_class(name).scaled == any(
            way in source for way in (".scale", "pair_logits(", "contrast_by_place(")
        ), name
        assert ("bias" in loss_class(name).reads) == ("pair_logits(" in source), name
