"""Parts of images with the evidence for a caption: by finite differences and by hand; which of them join a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from degla.config.run import TrainConfig
from degla.data.batches import Batch
from degla.errors import InputError
from degla.losses.core import Embeddings, Processes, Target
from degla.losses.core.partition import log_partition
from degla.losses.evidence_contrast import EvidenceContrast, before_negatives
from degla.model.evidence import EvidenceConfig, attention_evidence
from degla.model.image import encode_class_token
from degla.model.teacher import Teacher
from degla.training.image_parts import Evidence
from degla.training.loop import train
from tests.tiny import timm_tower, write_model
from tests.training.configs import tiny_config
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _config(model: Path, pairs: Pairs, out: Path, **loop: Any) -> TrainConfig:
    return tiny_config("excon_clip", model=model, pairs=pairs, out=out, **{"batch_size": 8} | loop)


def test_evidence_by_hand() -> None:
    row = torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.8, 0.0]]])
    gradient = torch.tensor([[[9.0, 4.0, -4.0], [0.0, 1.0, 1.0]]])
    torch.testing.assert_close(attention_evidence(row, gradient), torch.tensor([[4.5, 1.8, 0.0]]))


def test_evidence_is_attention_times_what_it_changes_of_the_similarity(teacher: Teacher) -> None:
    """By finite differences: one entry of the attention is changed, and the similarity compared."""
    teacher.encoder.double()
    images, captions = _random(2, 3, 32, 32).double(), normalize(_random(2, 16, seed=1).double(), dim=1)
    rows: list[torch.Tensor] = []

    def similarity(patch: int, head: int, step: float) -> torch.Tensor:
        def move(row: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            rows.append(row)
            moved = row.clone()
            moved[:, head, 1 + patch] += step
            return moved

        raw = encode_class_token(teacher.encoder.clip, images, look=move)
        return (normalize(raw, dim=-1) * captions).sum(dim=1)

    evidence = teacher.evidence(images, captions)
    teacher_state = [parameter.grad for parameter in teacher.encoder.parameters()]
    with torch.no_grad():
        for patch in (0, 7):
            expected = torch.zeros(2, dtype=torch.float64)
            for head in range(2):
                slope = (similarity(patch, head, 1e-5) - similarity(patch, head, -1e-5)) / 2e-5
                expected += (rows[-1][:, head, 1 + patch] * slope).clamp(min=0)
            torch.testing.assert_close(evidence[:, patch].double(), expected, rtol=1e-4, atol=1e-9)
    assert not any(grad is not None for grad in teacher_state) and not evidence.requires_grad
    teacher.encoder.float()


def test_a_caption_before_its_negatives_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0]] * 4)
    captions = torch.tensor([[0.8, 0.6], [0.8, 0.6], [0.8, 0.6], [0.8, 0.6]])
    negatives = torch.tensor([[[0.6, 0.8]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.8, 0.6]]])
    valid = torch.tensor([[True], [True], [False], [True]])
    # A tie is not a first place; a missing negative does not count.
    assert before_negatives(images, captions, negatives, valid).tolist() == [True, False, True, False]


def _made(teacher: Teacher, *, by: Any = "attention", threshold: float = 0.5) -> tuple[Batch, Batch]:
    images, tokens = _random(6, 3, 32, 32), torch.zeros(6, 5, dtype=torch.int64)
    batch = Batch(
        image=images, caption=tokens, negative=tokens[:, None], valid=torch.ones(6, 1, dtype=torch.bool),
        rule=torch.zeros(6, 1, dtype=torch.int64), group=torch.arange(6), ids=tuple("abcdef"),
    )  # fmt: skip
    target = Target(caption=normalize(_random(6, 16, seed=1), dim=1))
    maker = Evidence(EvidenceConfig(threshold=threshold, by=by), (4, 4), Processes(), seed=0)
    whole = maker(batch, list(batch.parts(6)), teacher, target, step=0)
    cut = maker(batch, list(batch.parts(4)), teacher, target, step=0)
    assert torch.equal(whole.extra["evidence_image"], cut.extra["evidence_image"]), "parts of a batch change nothing"
    names = ("image", "caption", "negative", "valid", "rule", "group", "ids")
    half = replace(batch, **{name: getattr(batch, name)[3:] for name in names})
    second = replace(maker, processes=Processes(count=2, rank=1))
    own = second(half, list(half.parts(3)), teacher, Target(caption=target.require("caption")[3:]), step=0)
    assert torch.equal(whole.extra["evidence_image"][3:], own.extra["evidence_image"]), "nor do processes"
    return batch, whole


def test_a_part_is_whole_patches_of_its_image_and_the_mean_colour(teacher: Teacher) -> None:
    batch, result = _made(teacher)
    part = result.extra["evidence_image"]
    patches = (part == batch.image).unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).all(dim=4).all(dim=1)
    empty = (part == 0).unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).all(dim=4).all(dim=1)
    assert (patches ^ empty).all(), "each patch is there or not"
    assert torch.equal(result.extra["evidence_valid"], patches.flatten(1).any(1) & ~patches.flatten(1).all(1))
    embeddings, _ = teacher.encode(part, None)
    torch.testing.assert_close(result.extra["evidence_seen"], embeddings)
    # The patch with the most evidence of each image is in its part.
    captions = normalize(_random(6, 16, seed=1), dim=1)
    most = teacher.evidence(batch.image, captions).argmax(dim=1)
    assert patches.flatten(1).gather(1, most[:, None]).all()
    # A random draw takes as many patches of each image, but other ones.
    _, random = _made(teacher, by="random")
    other = (random.extra["evidence_image"] == 0).flatten(1).sum(dim=1)
    assert torch.equal(other, (part == 0).flatten(1).sum(dim=1)) and not torch.equal(
        random.extra["evidence_image"], part
    )
    # A threshold above all evidence leaves no part.
    assert not _made(teacher, threshold=1.0)[1].extra["evidence_valid"].any()


def test_backgrounds_are_in_the_denominator_of_captions_alone() -> None:
    rows = {name: normalize(_random(4, 5, seed=seed).double(), dim=1) for seed, name in enumerate(("v", "t", "m"))}
    scale = torch.tensor(7.0, dtype=torch.float64)
    # For the first and third part, the teacher ranks the caption above its one negative.
    views = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]], dtype=torch.float64)
    target = Target(
        caption=torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]], dtype=torch.float64),
        negative=torch.tensor([[[0.6, 0.8]]] * 4, dtype=torch.float64),
    )
    student = Embeddings(
        image=rows["v"], caption=rows["t"], negative=rows["v"][:, None], valid=torch.ones(4, 1, dtype=torch.bool),
        scale=scale, group=torch.arange(4), rule=torch.zeros(4, 1, dtype=torch.int64),
        extra={"evidence_image": rows["m"], "evidence_valid": torch.ones(4, dtype=torch.bool), "evidence_seen": views},
    )  # fmt: skip
    value = EvidenceContrast(positive=0.0, background=1.0).value(student, target, Processes())
    place = torch.arange(4)
    plain = log_partition(rows["t"], rows["v"], scale, target=place)
    whole = log_partition(rows["t"], torch.cat([rows["v"], rows["m"][[1, 3]]]), scale, target=place)
    torch.testing.assert_close(plain.mean() + value, whole.mean())
    # Images without a part give no background, and if all captions are found there is none.
    none = replace(student, extra={**student.extra, "evidence_valid": torch.zeros(4, dtype=torch.bool)})
    assert float(EvidenceContrast().value(none, target, Processes())) == 0


def test_chunks_have_the_gradients_of_the_whole(many_patches: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = first_step(_config(many_patches, tiny_pairs, tmp_path))
    chunked = first_step(_config(many_patches, tiny_pairs, tmp_path, chunk_size=3))
    torch.testing.assert_close(whole[0], chunked[0], rtol=1e-5, atol=0)
    for name, expected in whole[1].items():
        gap = (chunked[1][name] - expected).abs().max() / expected.abs().max().clamp(min=1e-9)
        assert gap < 1e-4, name


def test_what_does_not_go_together_is_refused(many_patches: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config(many_patches, tiny_pairs, tmp_path / "run")
    views = replace(config, views=replace(config.views, left_out=0.5))
    with pytest.raises(InputError, match=r"--views.left-out: a loss reads parts of images with evidence"):
        views.check()
    once = replace(config, train=replace(config.train, embed_images_once=True, train_image_tower=False))
    with pytest.raises(InputError, match=r"--train.embed-images-once: a loss reads parts of images with evidence"):
        once.check()
    convolutions = write_model(tmp_path / "timm", vision_cfg=timm_tower())
    with pytest.raises(
        InputError, match=r"--objective.evidence-contrast.weight: .*is not a plain open_clip vision transformer"
    ):
        train(replace(config, model=str(convolutions)))
