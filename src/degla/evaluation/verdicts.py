"""From embeddings to verdicts: each item of a benchmark enters, a row that says what was right leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np

from degla.errors import InputError
from degla.evaluation.benchmarks import Benchmark, Classification, Entry, Retrieval, Tie
from degla.evaluation.embed import Embeddings
from degla.evaluation.scoring import class_rows, pair_similarities, rank, score_pairs
from degla.records import ItemImage, ItemVerdict, PairItem

RECALL = (1, 5, 10)
_LARGEST_ENUMERATED = 6


@dataclass(frozen=True)
class Judged:
    """A verdict, and for each of its keys what a blind model would be worth there (without ties)."""

    verdict: ItemVerdict
    chance: dict[str, float]


def texts_of(entry: Entry) -> list[str]:
    """All texts that scoring the entry needs; a classification's prompts class by class."""
    if isinstance(entry, Classification):
        return [template.replace("{}", name) for name in entry.classes for template in entry.templates]
    return list(entry.texts)


def images_of(entries: Iterable[Entry]) -> Iterator[ItemImage]:
    """All images of the entries, repetitions included."""
    for entry in entries:
        yield from entry.images


def judge(
    benchmark: Benchmark, entries: Sequence[Entry], embeddings: Embeddings, *, tie: Tie | None = None
) -> list[Judged]:
    """Score every entry; the order is that of the entries.

    Args:
        benchmark: says the tie rule of each part.
        entries: items to score; those with `keep` False must be left out before.
        embeddings: rows of all their images and texts.
        tie: overrides the benchmark's tie rules.

    Raises:
        DeglaError: a similarity is not finite.
        InputError: an item has nothing to compare.
    """
    pairs = [entry for entry in entries if isinstance(entry, PairItem)]
    judged = {
        id(entry): [verdict]
        for entry, verdict in zip(pairs, _judge_pairs(benchmark, pairs, embeddings, tie), strict=True)
    }
    for entry in entries:
        rule = tie or benchmark.part(entry.part).tie
        if isinstance(entry, Classification):
            judged[id(entry)] = _judge_classification(entry, embeddings, rule)
        elif isinstance(entry, Retrieval):
            judged[id(entry)] = _judge_retrieval(entry, embeddings, rule)
    return [verdict for entry in entries for verdict in judged[id(entry)]]


def _judge_pairs(
    benchmark: Benchmark, items: Sequence[PairItem], embeddings: Embeddings, tie: Tie | None
) -> list[Judged]:
    shapes: dict[tuple[int, int, Tie], list[int]] = {}
    for index, item in enumerate(items):
        rule = tie or benchmark.part(item.part).tie
        shapes.setdefault((len(item.images), len(item.texts), rule), []).append(index)
    result: dict[int, Judged] = {}
    for (K, _, rule), members in shapes.items():
        chosen = [items[index] for index in members]
        image_index = np.array([[embeddings.image_row[image] for image in item.images] for item in chosen])
        text_index = np.array([[embeddings.text_row[text] for text in item.texts] for item in chosen])
        verdicts = score_pairs(
            pair_similarities(embeddings.images, embeddings.texts, image_index, text_index),
            np.array([item.gold for item in chosen]),
            tie=rule,
            ids=[item.id for item in chosen],
        )
        for row, (index, item) in enumerate(zip(members, chosen, strict=True)):
            if not math.isfinite(verdicts.margin[row]):
                raise InputError(f"item {item.id!r}: no text or image is false in its gold, nothing to compare.")
            text_ties, image_ties = int(verdicts.text_ties[row]), int(verdicts.image_ties[row])
            ok, ties = {"text_ok": float(verdicts.text_ok[row])}, {"text_ok": text_ties}
            if K > 1:
                ok |= {"image_ok": float(verdicts.image_ok[row]), "group_ok": float(verdicts.group_ok[row])}
                ties |= {"image_ok": image_ties, "group_ok": text_ties + image_ties}
            verdict = ItemVerdict(
                id=item.id,
                benchmark=item.benchmark,
                part=item.part,
                image=item.images[0].path,
                group=item.group,
                ok=ok,
                ties=ties,
                margin=float(verdicts.margin[row]),
                degenerate=_is_degenerate(item, text_index[row]),
            )
            chance = {key: worth for key, worth in chance_of(item.gold).items() if key in ok}
            result[index] = Judged(verdict, chance)
    return [result[index] for index in range(len(items))]


def _is_degenerate(item: PairItem, text_rows: np.ndarray) -> bool:
    """Whether some image has a true and a false text of the same tokens (which share one row of the table)."""
    return any(
        text_rows[true] == text_rows[false]
        for gold in item.gold
        for true in range(len(gold))
        for false in range(len(gold))
        if gold[true] and not gold[false]
    )


def _judge_classification(entry: Classification, embeddings: Embeddings, tie: Tie) -> list[Judged]:
    prompts = embeddings.texts[[embeddings.text_row[text] for text in texts_of(entry)]]
    images = embeddings.images[[embeddings.image_row[image] for image in entry.images]]
    ids = [f"{entry.benchmark}/{entry.part}/{image.path}" for image in entry.images]
    ranks = rank(images, class_rows(prompts, len(entry.classes)), [[label] for label in entry.labels], ids)
    top1 = ranks.within(1, tie)
    return [
        Judged(
            ItemVerdict(
                id=ids[index],
                benchmark=entry.benchmark,
                part=entry.part,
                image=image.path,
                group={"class": entry.classes[entry.labels[index]]},
                ok={"top1": float(top1[index])},
                ties={"top1": int(ranks.ties[index])},
                margin=float(ranks.margin[index]),
            ),
            {"top1": 1 / len(entry.classes)},
        )
        for index, image in enumerate(entry.images)
    ]


def _judge_retrieval(entry: Retrieval, embeddings: Embeddings, tie: Tie) -> list[Judged]:
    images = embeddings.images[[embeddings.image_row[image] for image in entry.images]]
    texts = embeddings.texts[[embeddings.text_row[text] for text in entry.texts]]
    texts_of_image: list[list[int]] = [[] for _ in entry.images]
    for text, owner in enumerate(entry.owners):
        for image in owner:
            texts_of_image[image].append(text)
    asked = [index for index, true in enumerate(texts_of_image) if true]
    place = f"{entry.benchmark}/{entry.part}"
    image_ids = [f"{place}/image/{entry.images[index].path}" for index in asked]
    text_ids = [f"{place}/text/{number}" for number in range(len(entry.texts))]
    to_text = rank(images[asked], texts, [texts_of_image[index] for index in asked], image_ids)
    to_image = rank(texts, images, entry.owners, text_ids)
    rows = []
    for direction, ranks, ids, paths, true_counts, candidates in (
        (
            "image_to_text",
            to_text,
            image_ids,
            [entry.images[index].path for index in asked],
            [len(texts_of_image[index]) for index in asked],
            len(texts),
        ),
        (
            "text_to_image",
            to_image,
            text_ids,
            [entry.images[owner[0]].path for owner in entry.owners],
            [len(set(owner)) for owner in entry.owners],
            len(images),
        ),
    ):
        worth = {f"{direction}@{k}": ranks.within(k, tie) for k in RECALL}
        for index, name in enumerate(ids):
            margin = float(ranks.margin[index])
            verdict = ItemVerdict(
                id=name,
                benchmark=entry.benchmark,
                part=entry.part,
                image=paths[index],
                ok={key: float(values[index]) for key, values in worth.items()},
                ties=dict.fromkeys(worth, int(ranks.ties[index])),
                margin=margin if math.isfinite(margin) else None,
            )
            chance = {f"{direction}@{k}": _blind_recall(candidates, true_counts[index], k) for k in RECALL}
            rows.append(Judged(verdict, chance))
    return rows


def _blind_recall(candidates: int, true: int, k: int) -> float:
    """Probability that k of the candidates, drawn without looking, hold one of the true ones."""
    k = min(k, candidates)
    return 1 - math.comb(candidates - true, k) / math.comb(candidates, k)


@cache
def chance_of(gold: tuple[tuple[int, ...], ...]) -> dict[str, float]:
    """Worth of an item for a model whose similarities are independent random numbers.

    A row with p true and n false texts is right in 1 of C(p + n, p) orders; rows are independent, and so are
    columns. Both together are not: `group_ok` is counted over all orders, and left out above six similarities.
    """
    rows = math.prod(1 / math.comb(len(line), sum(line)) for line in gold)
    columns = math.prod(1 / math.comb(len(line), sum(line)) for line in zip(*gold, strict=True))
    chance = {"text_ok": rows, "image_ok": columns}
    cells = len(gold) * len(gold[0])
    if len(gold) == 1:
        chance["group_ok"] = rows
    elif cells <= _LARGEST_ENUMERATED:
        orders = np.array(list(permutations(range(cells)))).reshape(-1, len(gold), len(gold[0]))
        truth = np.broadcast_to(np.array(gold), orders.shape)
        chance["group_ok"] = float(score_pairs(orders, truth, tie="strict").group_ok.mean())
    return chance
