"""Images of which the student reads a part: tower outputs, what is drawn, gradients, and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from degla.config.run import TrainConfig
from degla.data.batches import BatchPart
from degla.errors import InputError
from degla.losses import Distractor, losses_by_name
from degla.losses.core import Processes
from degla.model.attack import AttackConfig
from degla.model.image import encode_class_token
from degla.model.load import load_encoder
from degla.model.teacher import Teacher
from degla.model.token_mask import ViewsConfig
from degla.training.image_parts import Views, image_seeds
from degla.training.loop import train
from tests.tiny import CONFIG, timm_tower, write_model
from tests.training.configs import tiny_config
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]
PATCHES = 16


def _config(model: Path, pairs: Pairs, out: Path, *, recipe: str = "pointacl_clip", **views: Any) -> TrainConfig:
    config = tiny_config(recipe, model=model, pairs=pairs, out=out, batch_size=8)
    return replace(config, views=ViewsConfig(**{"left_out": 0.5} | views))


def _images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_tower_reads_the_kept_patches_at_their_places(teacher: Teacher) -> None:
    clip, images = teacher.encoder.clip, _images()
    whole = encode_class_token(clip, images)
    order = torch.stack([torch.randperm(PATCHES) for _ in images])
    torch.testing.assert_close(encode_class_token(clip, images, order), whole, rtol=1e-4, atol=1e-5)
    indices = order[:, :6]
    embeddings = teacher.encoder.embed(images, None, places=indices).image
    visual = clip.visual
    states = visual._embeds(images)
    states = torch.stack([row[[0, *(1 + places).tolist()]] for row, places in zip(states, indices, strict=True)])
    expected = visual.ln_post(visual.transformer(states))[:, 0] @ visual.proj
    torch.testing.assert_close(embeddings, normalize(expected, dim=-1), rtol=1e-4, atol=1e-5)


def test_the_teacher_tells_embedding_and_significance_by_one_pass(teacher: Teacher) -> None:
    images = _images()
    raw, scores = teacher.patch_significance(images)
    torch.testing.assert_close(raw, teacher.encode_raw_images(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(len(images)))
    assert scores.shape == (len(images), PATCHES) and not scores.requires_grad
    # The attention of the last block, computed with PyTorch's own module.
    visual = teacher.encoder.clip.visual
    states = visual._embeds(images)
    for block in visual.transformer.resblocks[:-1]:
        states = block(states)
    block = visual.transformer.resblocks[-1]
    normal = block.ln_1(states)
    _, weights = torch.nn.functional.multi_head_attention_forward(
        *(normal.transpose(0, 1),) * 3, normal.shape[2], block.attn.num_heads, block.attn.in_proj_weight,
        block.attn.in_proj_bias, None, None, False, 0.0, block.attn.out_proj.weight, block.attn.out_proj.bias,
        average_attn_weights=False,
    )  # fmt: skip
    row = weights[:, :, 0, 1:].sum(dim=1)
    width = normal.shape[2]
    value = normal[:, 1:] @ block.attn.in_proj_weight[2 * width :].T + block.attn.in_proj_bias[2 * width :]
    expected = row * value.norm(dim=2)
    torch.testing.assert_close(scores, expected / expected.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-6)


def _part(rows: slice, images: torch.Tensor) -> BatchPart:
    texts = torch.zeros(len(images), 4, dtype=torch.int64)
    return BatchPart(rows=rows, image=images, texts=texts, captions=texts)


def _kept(views: Views, parts: list[BatchPart], teacher: Teacher | None, *, step: int = 0) -> torch.Tensor:
    results, _ = views(parts, teacher, step=step)
    return torch.cat([part.kept for part in results if part.kept is not None])


def test_draws_depend_on_seed_step_and_row_and_not_on_parts(teacher: Teacher) -> None:
    images = _images(6)
    whole, parts = [_part(slice(0, 6), images)], [_part(slice(0, 4), images[:4]), _part(slice(4, 6), images[4:])]
    for by in ("attention", "random", "low_attention"):
        views = Views(ViewsConfig(left_out=0.4, by=by), PATCHES, Processes(), seed=1)
        places = _kept(views, whole, teacher)
        # floor(0.4 * 16) = 6 are left out.
        assert places.shape == (6, 10) and (places.diff(dim=1) > 0).all()
        assert torch.equal(places, _kept(views, parts, teacher))
        second = replace(views, processes=Processes(count=2, rank=1))
        assert torch.equal(places[3:], _kept(second, [_part(slice(0, 3), images[3:])], teacher))
        assert not torch.equal(places, _kept(views, whole, teacher, step=1))
        assert not torch.equal(places, _kept(replace(views, seed=2), whole, teacher))
    random = Views(ViewsConfig(left_out=0.4, by="random"), PATCHES, Processes(), seed=1)
    assert torch.equal(_kept(random, whole, None), _kept(random, whole, teacher))
    assert random(whole, teacher, step=0)[1] == [], "a random draw does not use the teacher"


def test_each_row_of_each_kind_of_image_has_a_seed_of_its_own() -> None:
    def seeds(rows: slice, images: int) -> list[int]:
        return list(image_seeds("view", _part(rows, _images(images)), first=8, seed=0, step=1))

    whole = seeds(slice(0, 4), 8)  # Of four pairs with their second images.
    assert len(set(whole)) == 8
    first, second = seeds(slice(0, 2), 4), seeds(slice(2, 4), 4)
    assert first[:2] + second[:2] + first[2:] + second[2:] == whole


def test_a_cold_draw_leaves_out_what_the_teacher_attends_to(teacher: Teacher) -> None:
    images = _images(6)
    part, order = [_part(slice(0, 6), images)], teacher.patch_significance(images)[1].argsort(dim=1)
    for by, expected in (("attention", order[:, :8]), ("low_attention", order[:, 8:])):
        views = Views(ViewsConfig(left_out=0.5, by=by, temperature=1e-9), PATCHES, Processes(), seed=0)
        assert torch.equal(_kept(views, part, teacher), expected.sort(dim=1).values)


def test_an_annealed_draw_is_random_first_and_by_attention_in_the_end(teacher: Teacher) -> None:
    part = [_part(slice(0, 6), _images(6))]
    config = ViewsConfig(left_out=0.5, temperature=0.01, anneal_steps=4)
    assert [config.temperature_at(step) for step in (1, 2, 4, 9)] == [0.04, 0.02, 0.01, 0.01]
    annealed, random, drawn = (
        Views(each, PATCHES, Processes(), seed=0)
        for each in (config, ViewsConfig(left_out=0.5, by="random"), replace(config, anneal_steps=0))
    )
    for step, same, other in ((0, random, drawn), (4, drawn, random), (5, drawn, random)):
        kept = _kept(annealed, part, teacher, step=step)
        assert torch.equal(kept, _kept(same, part, teacher, step=step))
        assert not torch.equal(kept, _kept(other, part, teacher, step=step))
    between = _kept(annealed, part, teacher, step=1)
    assert not any(torch.equal(between, _kept(each, part, teacher, step=1)) for each in (random, drawn))


@pytest.mark.parametrize("by", ["attention", "random"])
def test_chunks_have_the_gradients_of_the_whole(by: str, many_patches: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config(many_patches, tiny_pairs, tmp_path, by=by)
    whole = first_step(config)
    chunked = first_step(replace(config, train=replace(config.train, chunk_size=3)))
    torch.testing.assert_close(whole[0], chunked[0], rtol=1e-5, atol=0)
    for name, expected in whole[1].items():
        gap = (chunked[1][name] - expected).abs().max() / expected.abs().max().clamp(min=1e-9)
        assert gap < 1e-4, name
    full = first_step(_config(many_patches, tiny_pairs, tmp_path, left_out=0.0))
    assert not torch.allclose(full[0], whole[0], rtol=1e-4)


def test_second_images_do_not_change_what_is_distilled_from_the_first(
    many_patches: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """The teacher's pass for its attention embeds them too, behind the images of the pairs."""
    config = _config(many_patches, tiny_pairs, tmp_path)
    losses = losses_by_name(view_contrast=config.objective["view_contrast"])
    alone = first_step(replace(config, objective=losses))
    with_second = first_step(replace(config, objective=losses | {"distractor": Distractor(weight=1e-9)}))
    torch.testing.assert_close(alone[0], with_second[0], rtol=1e-5, atol=0)


def test_two_steps_resume_to_the_same_numbers(many_patches: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    first, again = (train(_config(many_patches, tiny_pairs, tmp_path / name)) for name in ("first", "again"))
    one, other = (load_encoder(str(outcome.folder)).fingerprint for outcome in (first, again))
    assert one == other


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attack": AttackConfig(epsilon=1 / 255)}, "--views.left-out: --attack.epsilon attacks whole images"),
        ({"recipe": "fsc_clip"}, "--views.left-out: a loss reads the image tower's patch outputs"),
        ({"views": ViewsConfig(0.5, by="random", anneal_steps=3)}, "--views.anneal-steps turns a random draw into one"),
        ({"recipe": "negclip"}, '--views.by "attention" needs a teacher, but no loss uses one'),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict[str, Any], says: str, many_patches: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    by = "random" if changes.get("recipe") == "fsc_clip" else "attention"
    recipe = changes.pop("recipe", "pointacl_clip")
    config = replace(_config(many_patches, tiny_pairs, tmp_path, recipe=recipe, by=by), **changes)
    with pytest.raises(InputError) as refused:
        config.check()
    assert says in str(refused.value)


def test_a_tower_without_a_class_token_is_refused(tiny_pairs: Pairs, tmp_path: Path) -> None:
    convolutions = write_model(tmp_path / "timm", vision_cfg=timm_tower())
    with pytest.raises(InputError, match=r"--views.left-out: .*is not a plain open_clip vision transformer"):
        train(_config(convolutions, tiny_pairs, tmp_path / "run"))


def test_a_tower_that_drops_patches_by_itself_is_refused(tiny_pairs: Pairs, tmp_path: Path) -> None:
    """Otherwise the drawn patch numbers would refer to other patches, or to none."""
    drops = write_model(tmp_path / "drops", vision_cfg=CONFIG["vision_cfg"] | {"patch_size": 8, "patch_dropout": 0.5})
    with pytest.raises(InputError, match=r"--views.left-out: .*vision_cfg\.patch_dropout"):
        train(_config(drops, tiny_pairs, tmp_path / "run"))
