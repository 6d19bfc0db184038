"""Judge each item of a benchmark from embeddings: one verdict row per item."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark, Classification, Entry, Retrieval, TieRule
from degla.evaluation.scoring import (
    RankVerdicts,
    class_rows,
    pair_similarities,
    rank,
    ranking_chance,
    score_pairs,
    score_ranking,
    score_texts,
)
from degla.records import ItemImage, PairItem
from degla.results import ItemVerdict

if TYPE_CHECKING:  # A report reads verdicts and opens no rooms that embed.
    from degla.evaluation.embed import EmbeddedItems
    from degla.evaluation.regions import RegionTable

RECALL = (1, 5, 10)
TOP = (1, 5)
NEAR = (3, 5, 10)
"""k of the verdicts `text_ok@k`."""
Gold = tuple[tuple[int, ...], ...]
_LARGEST_ENUMERATED = 6
_WORD = re.compile(r"[\w']+")
_ALL = slice(None)


@dataclass(frozen=True)
class Judged:
    """A verdict, and for each of its keys the expected value for a blind model (without ties)."""

    verdict: ItemVerdict
    chance: dict[str, float]


def order_blind(benchmark: Benchmark, items: Iterable[PairItem], *, tie: TieRule | None = None) -> list[Judged]:
    """Judge the best answers of a model that ignores the order of words, case and punctuation.

    Such a model gives texts with the same words the same similarity, so a true and a false one of them tie. Whatever
    else an item asks, it gets right.

    Args:
        benchmark: defines the metrics, and the tie rule of each part.
        items: its pairs.
        tie: overrides the benchmark's tie rules.
    """
    wanted = frozenset(metric.verdict for part in benchmark.parts for metric in part.metrics)

    @cache
    def judged(gold: Gold, words: tuple[int, ...], rule: TieRule, *, pictured: bool) -> _Worths:
        true, numbers = np.array(gold, dtype=bool), np.array(words)
        # As true of an image as any text with the same words is.
        best = (true[:, None, :] & (numbers[:, None] == numbers)).any(axis=2).astype(np.float32)
        if not pictured:
            ok, ties, margin = score_texts(best[:, :, None] * best[:, None, :], true, tie=rule)
            return _Worths({"text_only_ok": ok}, {"text_only_ok": ties}, margin, {})
        worths = _compare_images([], gold, best[None], rule, wanted)
        # A single text can always have the right image.
        alone = {key: np.ones(1) for key in worths.ok if key.startswith("image_ok.")}
        return replace(worths, ok=worths.ok | alone)

    rows = []
    for item in items:
        by_words: dict[tuple[str, ...], int] = {}
        words = tuple(
            by_words.setdefault(tuple(sorted(_WORD.findall(text.lower()))), len(by_words)) for text in item.texts
        )
        rule = tie or benchmark.part(item.part).tie
        worths = judged(item.gold, words, rule, pictured=bool(item.images))
        verdict = ItemVerdict(
            id=item.id,
            benchmark=item.benchmark,
            part=item.part,
            image=item.id,
            group=item.group,
            ok={key: float(values[0]) for key, values in worths.ok.items()},
            ties={key: int(values[0]) for key, values in worths.ties.items()},
            margin=None,
        )
        rows.append(Judged(verdict, {}))
    return rows


def texts_of(entry: Entry) -> list[str]:
    """Return all texts needed to score the entry; a classification's prompts class by class."""
    if isinstance(entry, Classification):
        return [template.replace("{}", name) for name in entry.classes for template in entry.templates]
    return list(entry.texts)


def images_of(entries: Iterable[Entry]) -> Iterator[ItemImage]:
    """Yield all images of the entries, with repetitions."""
    for entry in entries:
        yield from entry.images


def judge(
    benchmark: Benchmark, entries: Sequence[Entry], embeddings: EmbeddedItems, *, tie: TieRule | None = None,
    regions: RegionTable | None = None,
) -> list[Judged]:  # fmt: skip
    """Score every entry, in the order of the entries.

    Args:
        benchmark: defines the tie rule of each part.
        entries: items to score, without those whose `keep` is False.
        embeddings: rows of all their images and texts.
        tie: overrides the benchmark's tie rules.
        regions: compares images and texts of pairs part by part, instead of by cosine.

    Raises:
        DeglaError: a similarity is not finite.
        InputError: an item has nothing to compare.
    """
    pairs = [entry for entry in entries if isinstance(entry, PairItem)]
    repeated = _repeated_images(entries, embeddings.digests)
    verdicts = _judge_pairs(benchmark, pairs, embeddings, tie, regions, repeated)
    judged = {id(entry): [verdict] for entry, verdict in zip(pairs, verdicts, strict=True)}
    for entry in entries:
        part = benchmark.part(entry.part)
        rule = tie or part.tie
        if isinstance(entry, Classification):
            wanted = frozenset(metric.verdict for metric in part.metrics)
            judged[id(entry)] = _judge_classification(entry, embeddings, rule, repeated, wanted)
        elif isinstance(entry, Retrieval):
            judged[id(entry)] = _judge_retrieval(entry, embeddings, rule, repeated)
    return [verdict for entry in entries for verdict in judged[id(entry)]]


def _judge_pairs(
    benchmark: Benchmark, items: Sequence[PairItem], embeddings: EmbeddedItems, tie: TieRule | None,
    regions: RegionTable | None, repeated: Mapping[str, str],
) -> list[Judged]:  # fmt: skip
    wanted = frozenset(metric.verdict for part in benchmark.parts for metric in part.metrics)
    alike: dict[tuple[int, Gold, TieRule], list[int]] = {}
    for index, item in enumerate(items):
        rule = tie or benchmark.part(item.part).tie
        alike.setdefault((len(item.images), item.gold, rule), []).append(index)
    result: dict[int, Judged] = {}
    for (K, gold, rule), members in alike.items():
        chosen = [items[index] for index in members]
        worths = (
            _compare_images(chosen, gold, _similarities(chosen, embeddings, regions), rule, wanted)
            if K
            else _compare_texts(chosen, gold, embeddings, rule)
        )
        for row, (index, item) in enumerate(zip(members, chosen, strict=True)):
            if not math.isfinite(worths.margin[row]):
                raise InputError(f"item {item.id!r}: gold has no false text or image, so there is nothing to compare.")
            image = item.images[0].path if K else item.group.get("image", item.id)
            drawn = item.group.get("image", image)
            verdict = ItemVerdict(
                id=item.id,
                benchmark=item.benchmark,
                part=item.part,
                image=image,
                same_as="" if repeated.get(drawn, drawn) == image else repeated.get(drawn, drawn),
                group=item.group,
                ok={key: float(values[row]) for key, values in worths.ok.items()},
                ties={key: int(values[row]) for key, values in worths.ties.items()},
                margin=float(worths.margin[row]),
                degenerate=_is_degenerate(item, embeddings),
            )
            result[index] = Judged(verdict, worths.chance)
    return [result[index] for index in range(len(items))]


def _repeated_images(entries: Sequence[Entry], digests: Mapping[str, str]) -> dict[str, str]:
    """Path of an image (of pairs only the first) to that of an earlier one with the same bytes, if any."""
    first: dict[str, str] = {}
    repeated: dict[str, str] = {}
    groups = (entry.images[:1] if isinstance(entry, PairItem) else entry.images for entry in entries)
    for path in (image.path for images in groups for image in images):
        if (earlier := first.setdefault(digests.get(path, path), path)) != path:
            repeated[path] = earlier
    return repeated


@dataclass(frozen=True)
class _Worths:
    """Verdicts of N items with the same gold: by key, worth and ties `[N]`; margin `[N]`; chance by key."""

    ok: dict[str, NDArray[np.float64]]
    ties: dict[str, NDArray[np.int64]]
    margin: NDArray[np.float32]
    chance: dict[str, float]


def _similarities(
    items: Sequence[PairItem], embeddings: EmbeddedItems, regions: RegionTable | None
) -> NDArray[np.float32]:
    if regions is not None:
        return regions.similarities(items, embeddings)
    images = np.array([[embeddings.image_row[image] for image in item.images] for item in items])
    return pair_similarities(embeddings.images, embeddings.texts, images, _text_index(items, embeddings))


def _compare_images(
    items: Sequence[PairItem], gold: Gold, similarities: NDArray[np.float32], rule: TieRule, wanted: frozenset[str]
) -> _Worths:
    ids = [item.id for item in items]
    if "average_precision" in wanted and len(gold[0]) == 1:
        true_images = np.array(gold)[:, 0]
        precision, equal, margin = score_ranking(similarities[:, :, 0], true_images, ids=ids)
        name = "average_precision"
        return _Worths({name: precision}, {name: equal}, margin, {name: ranking_chance(true_images)})
    truth = np.broadcast_to(np.array(gold), similarities.shape)
    verdicts = score_pairs(similarities, truth, tie=rule, ids=ids)
    chance = dict(chance_of(gold))
    ok, ties = {"text_ok": verdicts.text_ok}, {"text_ok": verdicts.text_ties}
    alone: dict[str, tuple[Any, ...]] = {}
    if len(gold) > 1:
        ok |= {"image_ok": verdicts.image_ok, "group_ok": verdicts.group_ok}
        ties |= {"image_ok": verdicts.image_ties, "group_ok": verdicts.text_ties + verdicts.image_ties}
        if len(gold[0]) == 1:  # one text: only the image direction is scored
            ok, ties = {"image_ok": ok["image_ok"]}, {"image_ok": ties["image_ok"]}
        # Not in the order of a set, which differs between processes: equal results must give equal files.
        places: dict[str, tuple[Any, ...]] = {f"text_ok.{at + 1}": (_ALL, [at]) for at in range(len(gold))}
        places |= {f"image_ok.{at + 1}": (_ALL, _ALL, [at]) for at in range(len(gold[0]))}
        alone = {name: cells for name, cells in places.items() if name in wanted}
    elif sum(gold[0]) > 1:
        true, false = ([at for at, is_true in enumerate(gold[0]) if is_true == kind] for kind in (1, 0))
        alone = {f"text_ok.{number}": (_ALL, _ALL, [at, *false]) for number, at in enumerate(true, start=1)}
    elif len(gold[0]) > 1:
        right = gold[0].index(1)
        lead = similarities[:, 0, [right]] - np.delete(similarities[:, 0], right, axis=1)
        for k in (k for k in NEAR if f"text_ok@{k}" in wanted):
            ok[f"text_ok@{k}"], ties[f"text_ok@{k}"] = near(lead, k, rule), verdicts.text_ties
            chance[f"text_ok@{k}"] = min(1.0, k / len(gold[0]))
        for name, worth in mistakes(lead, verdicts.text_ok, at=right).items():
            if name in wanted:
                ok[name], ties[name] = worth, verdicts.text_ties
                chance[name] = float(name != f"mistake.{right + 1}") / len(gold[0])
    for name, cells in alone.items():
        side = name.partition("_")[0]
        outcome = score_pairs(similarities[cells], truth[cells], tie=rule, ids=ids)
        ok[name], ties[name] = getattr(outcome, f"{side}_ok"), getattr(outcome, f"{side}_ties")
        chance[name] = chance_of(tuple(map(tuple, np.array(gold)[cells[1:]].tolist())))[f"{side}_ok"]
    if len(gold) == 1 and sum(gold[0]) == 2 and "brittle" in wanted:
        ok["brittle"], ties["brittle"] = brittle(ok), verdicts.text_ties
        chance["brittle"] = brittle(chance)
    return _Worths(ok, ties, verdicts.margin, {key: worth for key, worth in chance.items() if key in ok})


def near(leads: NDArray[Any], k: int, tie: TieRule) -> NDArray[np.float64]:
    """Return the worth `[N]` of "the true text is among the first k", from its leads `[N, false]` over false ones."""
    return RankVerdicts((leads < 0).sum(axis=1), (leads == 0).sum(axis=1), leads.min(axis=1)).within(k, tie)


def mistakes(leads: NDArray[Any], right: NDArray[np.float64], *, at: int) -> dict[str, NDArray[np.float64]]:
    """Return by `mistake.k` whether the k-th of the texts is answered instead of the true one.

    Args:
        leads: leads `[N, L - 1]` of the true text over the false ones, in their order.
        right: worth `[N]` of the answer; what it lacks goes to the best false text, or is shared by equally good ones.
        at: index of the true text.
    """
    best = leads == leads.min(axis=1, keepdims=True)
    shares = np.insert((1 - right)[:, None] * best / best.sum(axis=1, keepdims=True), at, 0.0, axis=1)
    return {f"mistake.{place}": worth for place, worth in enumerate(shares.T, start=1)}


def brittle(worth: Mapping[str, Any]) -> Any:
    """Return the probability that exactly one of two true texts is above every false one, from each and from both."""
    return worth["text_ok.1"] + worth["text_ok.2"] - 2 * worth["text_ok"]


def _compare_texts(items: Sequence[PairItem], gold: Gold, embeddings: EmbeddedItems, rule: TieRule) -> _Worths:
    index = _text_index(items, embeddings)
    similarities = pair_similarities(embeddings.texts, embeddings.texts, index, index)
    ok, ties, margin = score_texts(
        similarities, np.broadcast_to(gold[0], index.shape), tie=rule, ids=[item.id for item in items]
    )
    # Two equivalent texts have one similarity, which must be larger than the two with each other text.
    chance = {"text_only_ok": 1 / (1 + 2 * (len(gold[0]) - 2))} if sum(gold[0]) == 2 else {}
    return _Worths({"text_only_ok": ok}, {"text_only_ok": ties}, margin, chance)


def _text_index(items: Sequence[PairItem], embeddings: EmbeddedItems) -> NDArray[np.int64]:
    return np.array([[embeddings.text_row[text] for text in item.texts] for item in items])


def _is_degenerate(item: PairItem, embeddings: EmbeddedItems) -> bool:
    """Whether some image has a true and a false text with the same tokens (which share one row of the table)."""
    text_rows = [embeddings.text_row[text] for text in item.texts]
    return any(
        text_rows[true] == text_rows[false]
        for gold in item.gold
        for true in range(len(gold))
        for false in range(len(gold))
        if gold[true] and not gold[false]
    )


def class_embeddings(entry: Classification, embeddings: EmbeddedItems) -> NDArray[np.float32]:
    """Unit rows `[classes, D]` of the classes, of the rows of all their prompts."""
    prompts = embeddings.texts[[embeddings.text_row[text] for text in texts_of(entry)]]
    return class_rows(prompts, len(entry.classes))


def _judge_classification(
    entry: Classification, embeddings: EmbeddedItems, tie: TieRule, repeated: Mapping[str, str], wanted: frozenset[str]
) -> list[Judged]:
    images = embeddings.images[[embeddings.image_row[image] for image in entry.images]]
    paths = [image.path for image in entry.images]
    ids = [f"{entry.benchmark}/{entry.part}/{path}" for path in paths]
    ranks = rank(images, class_embeddings(entry, embeddings), [[label] for label in entry.labels], ids)
    # ImageNet has distinct classes with equal names.
    names = [f"{name} ({label})" if entry.classes.count(name) > 1 else name for label, name in enumerate(entry.classes)]
    groups = [{"class": names[label]} for label in entry.labels]
    tops = {name: k for k in TOP if (name := f"top{k}") in wanted}
    worth = {name: ranks.within(k, tie) for name, k in tops.items()}
    chance = {name: min(1.0, k / len(entry.classes)) for name, k in tops.items()}
    return _judge_ranks(entry, zip(ids, paths, groups, [chance] * len(ids), strict=True), ranks, worth, repeated)


def _judge_retrieval(
    entry: Retrieval, embeddings: EmbeddedItems, tie: TieRule, repeated: Mapping[str, str]
) -> list[Judged]:
    images = embeddings.images[[embeddings.image_row[image] for image in entry.images]]
    texts = embeddings.texts[[embeddings.text_row[text] for text in entry.texts]]
    texts_of_image: list[list[int]] = [[] for _ in entry.images]
    for text, owner in enumerate(entry.owners):
        for image in owner:
            texts_of_image[image].append(text)
    queries = [index for index, true in enumerate(texts_of_image) if true]
    paths = [image.path for image in entry.images]
    rows = []
    for way, rows_of, others, true, names, pictures in (
        ("image_to_text", images[queries], texts, [texts_of_image[index] for index in queries],
         [f"image/{paths[index]}" for index in queries], [paths[index] for index in queries]),
        ("text_to_image", texts, images, [sorted(set(owner)) for owner in entry.owners],
         [f"text/{number}" for number in range(len(texts))], [paths[owner[0]] for owner in entry.owners]),
    ):  # fmt: skip
        ids = [f"{entry.benchmark}/{entry.part}/{name}" for name in names]
        ranks = rank(rows_of, others, true, ids)
        worth = {f"{way}@{k}": ranks.within(k, tie) for k in RECALL}
        chances = [{f"{way}@{k}": _blind_recall(len(others), len(each), k) for k in RECALL} for each in true]
        rows += _judge_ranks(entry, zip(ids, pictures, [{}] * len(ids), chances, strict=True), ranks, worth, repeated)
    return rows


def _judge_ranks(
    entry: Classification | Retrieval,
    queries: Iterable[tuple[str, str, dict[str, str], dict[str, float]]],
    ranks: RankVerdicts,
    worth: Mapping[str, NDArray[np.float64]],
    repeated: Mapping[str, str],
) -> list[Judged]:
    """One verdict per query; `queries` gives its id, image, groups and chance."""
    return [
        Judged(
            ItemVerdict(
                id=name,
                benchmark=entry.benchmark,
                part=entry.part,
                image=image,
                same_as=repeated.get(image, ""),
                group=group,
                ok={key: float(values[index]) for key, values in worth.items()},
                ties=dict.fromkeys(worth, int(ranks.ties[index])),
                margin=margin if math.isfinite(margin := float(ranks.margin[index])) else None,
            ),
            chance,
        )
        for index, (name, image, group, chance) in enumerate(queries)
    ]


def _blind_recall(candidates: int, true: int, k: int) -> float:
    """Probability that k candidates drawn at random include one of the true ones."""
    k = min(k, candidates)
    return 1 - math.comb(candidates - true, k) / math.comb(candidates, k)


@cache
def chance_of(gold: Gold) -> dict[str, float]:
    """Return the expected value of an item for a model with independent random similarities.

    A row with p true and n false texts is right in 1 of C(p + n, p) orders; rows are independent, and so are
    columns. Both together are not: `group_ok` is counted over all orders, and omitted above six similarities.
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
