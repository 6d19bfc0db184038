"""Rows to batches: shapes, masks, trimming, and the same values for any number of workers."""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from degla.data.batches import Batch, Collate, Pair, text_length
from degla.data.dataset import ImageTransform, PairDataset, RandomCrop
from degla.data.decoding import ImageError, Subject
from degla.data.joining import join
from degla.data.loader import EpochSampler, make_loader
from degla.data.neighbours import Neighbours
from degla.data.pairs import PairRow
from degla.data.plan import BatchPlan
from degla.data.sources import read_captions
from degla.data.table import table_of
from degla.errors import InputError
from degla.records import CaptionRecord, NegativeRecord
from degla.remote import RemoteError
from tests.launch import FORKS

CONTEXT, START, END = 12, 998, 999
MODEL = ImageTransform(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def tokenize(texts: list[str]) -> Tensor:
    """One token per word, truncated to the context with the end token last, as in CLIP's tokenizer; "!" is token 0."""
    tokens = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
    for row, text in enumerate(texts):
        words = [0 if word == "!" else sum(map(ord, word)) % 997 + 1 for word in text.lower().split()]
        numbers = [START, *words[: CONTEXT - 2], END]
        tokens[row, : len(numbers)] = torch.tensor(numbers)
    return tokens


def rows_in(folder: Path, *, count: int = 10) -> list[PairRow]:
    rows = []
    for number in range(count):
        name = f"{number // 2}.png"
        if not (folder / name).exists():
            pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
        caption = CaptionRecord(id=f"c{number}", image=name, text=f"a dog number {number}", image_id=name)
        negatives = tuple(f"a cat {'very ' * place}number {number}" for place in range(number % 5))
        rules = tuple(("swap", "replace")[place % 2] for place in range(number % 5))
        rows.append(PairRow(caption, negatives, rules))
    return rows


def dataset_in(folder: Path, *, count: int = 10, negatives: int = 3, seed: int = 0, **more: object) -> PairDataset:
    return PairDataset(
        table_of(rows_in(folder, count=count)),
        folder=folder,
        transform=RandomCrop(MODEL, scale=(0.5, 1.0)),
        tokenize=tokenize,
        negatives_per_caption=negatives,
        seed=seed,
        **more,  # type: ignore[arg-type]
    )


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.ids == other.ids
    for name, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name


def test_a_batch_has_the_promised_layout(tmp_path: Path) -> None:
    dataset = dataset_in(tmp_path)
    plan = BatchPlan(dataset.groups, batch_size=10)
    (batch,) = make_loader(dataset, EpochSampler(plan, 0))
    assert batch.image.shape == (10, 3, 16, 16) and batch.image.dtype == torch.float32
    assert batch.caption.shape == (10, CONTEXT) and batch.caption.dtype == torch.int64
    assert batch.negative.shape == (10, 3, CONTEXT) and batch.negative.dtype == torch.int64
    assert batch.valid.shape == batch.rule.shape == (10, 3) and batch.valid.dtype == torch.bool
    assert batch.group.shape == (10,) and batch.group.dtype == batch.rule.dtype == torch.int64
    assert len(batch) == 10
    rows = {row.caption.id: row for row in rows_in(tmp_path)}
    for place, name in enumerate(batch.ids):
        row = rows[name]
        assert torch.equal(batch.caption[place], tokenize([row.caption.text])[0])
        assert batch.valid[place].sum() == min(3, len(row.negatives))
        possible = {
            tuple(tokenize([text])[0].tolist()): rule for text, rule in zip(row.negatives, row.rules, strict=True)
        }
        negatives = set()
        for column in range(3):
            tokens = tuple(batch.negative[place, column].tolist())
            if batch.valid[place, column]:
                assert dataset.rules[batch.rule[place, column]] == possible[tokens]
                negatives.add(tokens)
            else:
                assert tokens == tuple(batch.caption[place].tolist())
                assert batch.rule[place, column] == -1
        assert len(negatives) == min(3, len(row.negatives)), "drawn without replacement"
    same = batch.group[:, None] == batch.group
    images = [rows[name].caption.image for name in batch.ids]
    assert same.tolist() == [[one == other for other in images] for one in images]
    moved = batch.to("cpu", non_blocking=True)
    assert_equal(batch, moved)
    assert moved is not batch


@pytest.mark.parametrize("start_method", ["fork", FORKS.get_start_method()])
def test_workers_change_nothing(tmp_path: Path, start_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked, or started in a fresh process to which the dataset is pickled."""
    monkeypatch.setattr("degla.data.loader.get_start_method", lambda: start_method)
    monkeypatch.setattr("degla.data.loader.WORKERS", FORKS)

    def batches(workers: int, epoch: int, start: int = 0) -> list[Batch]:
        dataset = dataset_in(tmp_path, seed=5)
        plan = BatchPlan(dataset.groups, batch_size=3, seed=5, duplicates="avoid")
        loader = make_loader(dataset, EpochSampler(plan, epoch, start), workers=workers, collate=Collate(trim=True))
        assert len(loader) == 3 - start
        return list(loader)

    alone = batches(0, 1)
    torch.manual_seed(99)
    for one, other in zip(alone, batches(2, 1), strict=True):
        assert_equal(one, other)
    for one, other in zip(alone[1:], batches(2, 1, start=1), strict=True):
        assert_equal(one, other)


def test_a_sampler_goes_from_one_epoch_into_the_next() -> None:
    plan = BatchPlan(range(7), batch_size=2, seed=3)
    epochs = [list(EpochSampler(plan, epoch)) for epoch in (4, 5, 6)]
    sampler = EpochSampler(plan, 4, 1, steps=6)
    assert list(sampler) == [*epochs[0][1:], *epochs[1], epochs[2][0]]
    assert len(sampler) == 6
    assert list(EpochSampler(plan, 4, 3, steps=1)) == epochs[1][:1]
    assert list(EpochSampler(plan, 4, 1)) == epochs[0][1:]
    for first in (0, 1):
        second = EpochSampler(plan, 4, 1, steps=6, every=2, first=first)
        assert list(second) == list(sampler)[first::2] and len(second) == 3


def test_neighbours_are_of_the_epoch_of_their_rows() -> None:
    class Drawn:
        def draw(self, epoch: int, index: int) -> list[int]:
            return [(index + epoch) % 7]

    plan, near = BatchPlan(range(7), batch_size=2, seed=3), cast(Neighbours, Drawn())
    epochs = [list(EpochSampler(plan, epoch, neighbours=near)) for epoch in (4, 5, 6)]
    assert list(EpochSampler(plan, 4, neighbours=near, steps=9)) == [batch for each in epochs for batch in each]


def test_pairs_are_functions_of_seed_epoch_and_index(tmp_path: Path) -> None:
    dataset, again, other = dataset_in(tmp_path), dataset_in(tmp_path), dataset_in(tmp_path, seed=1)
    pair = dataset[0, 4]
    assert torch.equal(pair.image, again[0, 4].image) and torch.equal(pair.negative, again[0, 4].negative)
    assert not torch.equal(pair.image, dataset[1, 4].image)
    assert not torch.equal(pair.image, other[0, 4].image)
    draws = {tuple(dataset[epoch, 4].negative.flatten().tolist()) for epoch in range(20)}
    assert len(draws) > 3, "other negatives in other epochs"
    first = dataset_in(tmp_path, draw="first")
    assert torch.equal(first[0, 4].negative, tokenize(list(rows_in(tmp_path)[4].negatives[:3])))
    assert torch.equal(first[0, 4].negative, first[7, 4].negative)


def test_without_negatives_the_axis_is_empty(tmp_path: Path) -> None:
    dataset = dataset_in(tmp_path, negatives=0)
    plan = BatchPlan(dataset.groups, batch_size=4)
    batch = next(iter(make_loader(dataset, EpochSampler(plan, 0), collate=Collate(trim=True))))
    assert batch.negative.shape == (4, 0, 6) and batch.valid.shape == (4, 0) and batch.caption.shape == (4, 6)


def test_a_negative_that_the_context_cuts_to_its_caption_is_masked(tmp_path: Path) -> None:
    long = "one two three four five six seven eight nine ten"
    caption = rows_in(tmp_path)[0].caption.model_copy(update={"text": f"{long} dog"})
    row = PairRow(caption, (f"{long} cat", "a short one"), ("swap", "swap"))
    dataset = PairDataset(
        table_of([row]), folder=tmp_path, transform=lambda p, _: MODEL.to_tensor(p.resize((16, 16))),
        tokenize=tokenize, negatives_per_caption=2, seed=0, draw="first",
    )  # fmt: skip
    assert dataset[0, 0].valid.tolist() == [False, True]
    assert dataset[0, 0].rule.tolist() == [-1, 0]


PAIR = Pair(
    image=torch.zeros(3, 2, 2),
    caption=tokenize(["a"])[0],
    negative=tokenize(["b", "c"]),
    valid=torch.ones(2, dtype=torch.bool),
    rule=torch.zeros(2, dtype=torch.long),
    group=0,
    id="c",
)
words = st.lists(st.sampled_from(["dog", "cat", "!", "red", "sofa"]), max_size=14).map(" ".join)


@settings(max_examples=150)
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=4))
def test_trimming_never_cuts_a_token_and_leaves_no_empty_column(texts) -> None:
    pairs = []
    for number, (caption, *negatives) in enumerate(texts):
        tokens = tokenize([caption, *negatives])
        pairs.append(
            dataclasses.replace(
                PAIR, caption=tokens[0], negative=tokens[1:], valid=torch.ones(2, dtype=torch.bool), group=number
            )
        )
    whole, cut = Collate()(pairs), Collate(trim=True)(pairs)
    length = cut.caption.shape[1]
    assert cut.negative.shape[2] == length
    assert torch.equal(whole.caption[:, :length], cut.caption)
    assert torch.equal(whole.negative[..., :length], cut.negative)
    every = torch.cat([whole.caption[:, None], whole.negative], dim=1)
    assert not every[..., length:].any(), "a token was trimmed"
    assert (every == END).any(-1).all() and (every[..., :length] == END).any(-1).all()
    ends = (every == END).float().argmax(-1).max() + 1
    assert ends == length


def test_length_of_other_tokenizers() -> None:
    assert text_length(torch.tensor([[5, 9, 2, 0, 0]])) == 3, "an end token that is not the largest id"
    assert text_length(torch.tensor([[5, 2, 1, 1, 1]])) == 5, "padding with 1 is never trimmed"
    assert text_length(torch.zeros(2, 0, 5, dtype=torch.long)) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_stops_with_one_clear_message(tmp_path: Path, workers: int) -> None:
    dataset = dataset_in(tmp_path, count=4)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:500])
    plan = BatchPlan(dataset.groups, batch_size=4)
    with pytest.raises(
        ImageError, match=rf"\A{re.escape(str(tmp_path))}/1\.png: the image of caption 'c\d' is damaged"
    ):
        list(make_loader(dataset, EpochSampler(plan, 0), workers=workers))
    assert not multiprocessing.active_children()

    def answer(place: str, subject: Subject) -> bytes:
        raise RemoteError("memory://x/1.png: the server is away")

    dataset.read = answer
    with pytest.raises(RemoteError, match=r"\Amemory://x/1\.png: the server is away\Z"):
        list(make_loader(dataset, EpochSampler(plan, 0), workers=workers))
    (tmp_path / "whole").mkdir()
    for _ in make_loader(dataset_in(tmp_path / "whole", count=4), EpochSampler(plan, 0), workers=workers):
        break
    assert not multiprocessing.active_children()


def test_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no pairs to train on"):
        PairDataset(table_of([]), folder=tmp_path, transform=RandomCrop(MODEL), tokenize=tokenize,
                    negatives_per_caption=1, seed=0)  # fmt: skip


def test_photographs_and_clips_tokenizer(data_root: Path) -> None:
    import open_clip

    captions = list(read_captions(data_root / "coco" / "annotations" / "captions_val2017.json"))[:60]
    negatives = [
        NegativeRecord(caption_id=record.id, rule="reverse", kind="order", source="rules", accepted=True,
                       text=" ".join(reversed(record.text.rstrip(".").split())))
        for record in captions
    ]  # fmt: skip
    text_of = {record.id: record.text for record in captions}
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    dataset = PairDataset(
        join(captions, negatives),
        folder=data_root / "coco" / "val2017",
        transform=RandomCrop(dataclasses.replace(MODEL, size=64)),
        tokenize=tokenizer,
        negatives_per_caption=1,
        seed=0,
    )
    plan = BatchPlan(dataset.groups, batch_size=4, duplicates="avoid")
    for batch in make_loader(dataset, EpochSampler(plan, 0), collate=Collate(trim=True), workers=2):
        texts = [text_of[name] for name in batch.ids]
        length = int(tokenizer(texts).argmax(-1).max()) + 1
        assert length <= batch.caption.shape[1] < 77
        assert torch.equal(tokenizer(texts)[:, : batch.caption.shape[1]], batch.caption)
        assert len(set(batch.group.tolist())) == 4 and batch.valid.all()
