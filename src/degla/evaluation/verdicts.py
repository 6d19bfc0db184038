"""Judge each item of a benchmark from embeddings: one verdict row per item."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark, BenchmarkPart, Classification, Entry, Retrieval, TieRule
from degla.evaluation.scoring import (
    EmbeddingRows,
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
    wanted = _wanted(benchmark.parts)

    @cache
    def judged(gold: Gold, words: tuple[int, ...], rule: TieRule, *, pictured: bool) -> _Worths:
        true, numbers = np.array(gold, dtype=bool), np.array(words)
        # As true of an image as any text with the same words is.
        best = (true[:, None, :] & (numbers[:, None] == numbers)).any(axis=2).astype(np.float32)
        if not pictured:
            ok, ties, margin = score_texts(best[:, :, None] * best[:, None, :], true, tie=rule)
            return _Worths({"text_only_ok": (ok, ties)}, margin)
        worths = _compare_images(best[None], gold, rule, wanted)
        # A single text can always have the right image.
        alone = {key: (np.ones(1), ties) for key, (_, ties) in worths.by_key.items() if key.startswith("image_ok.")}
        return _Worths(worths.by_key | alone, worths.margin)

    rows = []
    for item in items:
        by_words: dict[tuple[str, ...], int] = {}
        words = tuple(
            by_words.setdefault(tuple(sorted(_WORD.findall(text.lower()))), len(by_words)) for text in item.texts
        )
        rule = tie or benchmark.part(item.part).tie
        worths = judged(item.gold, words, rule, pictured=bool(item.images))
        rows.append(Judged(worths.verdict(0, item, id=item.id, image=item.id, group=item.group, margin=None), {}))
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
    regions: RegionTable | None = None, logits: Mapping[str, EmbeddingRows] | None = None,
) -> list[Judged]:  # fmt: skip
    """Score every entry, in the order of the entries.

    Args:
        benchmark: defines the tie rule of each part.
        entries: items to score, without those whose `keep` is False.
        embeddings: rows of all their images and texts.
        tie: overrides the benchmark's tie rules.
        regions: compares images and texts of pairs part by part, instead of by cosine.
        logits: of classifications, by part: `[N, C]`, instead of cosines with the classes' prompts.

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
            if logits is None:
                images = embeddings.images[[embeddings.image_row[image] for image in entry.images]]
                classes = embeddings.for_images(class_embeddings(entry, embeddings))
            else:
                images, classes = logits[entry.part], np.eye(len(entry.classes), dtype=np.float32)
            judged[id(entry)] = _judge_classification(entry, images, classes, rule, repeated, _wanted([part]))
        elif isinstance(entry, Retrieval):
            judged[id(entry)] = _judge_retrieval(entry, embeddings, rule, repeated)
    return [verdict for entry in entries for verdict in judged[id(entry)]]


def _wanted(parts: Iterable[BenchmarkPart]) -> frozenset[str]:
    """Names of the verdicts that the metrics of these parts average; others need not be computed."""
    return frozenset(metric.verdict for part in parts for metric in part.metrics)


def _judge_pairs(
    benchmark: Benchmark, items: Sequence[PairItem], embeddings: EmbeddedItems, tie: TieRule | None,
    regions: RegionTable | None, repeated: Mapping[str, str],
) -> list[Judged]:  # fmt: skip
    wanted = _wanted(benchmark.parts)
    alike: dict[tuple[int, Gold, TieRule], list[int]] = {}
    for index, item in enumerate(items):
        rule = tie or benchmark.part(item.part).tie
        alike.setdefault((len(item.images), item.gold, rule), []).append(index)
    result: dict[int, Judged] = {}
    for (K, gold, rule), members in alike.items():
        chosen = [items[index] for index in members]
        worths = (
            _compare_images(
                _similarities(chosen, embeddings, regions), gold, rule, wanted, [item.id for item in chosen]
            )
            if K
            else _compare_texts(chosen, gold, embeddings, rule)
        )
        chance = {key: value for key, value in chances_of(gold).items() if key in worths.by_key}
        for row, (index, item) in enumerate(zip(members, chosen, strict=True)):
            if not math.isfinite(worths.margin[row]):
                raise InputError(f"item {item.id!r}: gold has no false text or image, so there is nothing to compare.")
            image = item.images[0].path if K else item.group.get("image", item.id)
            drawn_with = item.group.get("image", image)
            drawn_with = repeated.get(drawn_with, drawn_with)
            verdict = worths.verdict(
                row, item, id=item.id, image=image, same_as="" if drawn_with == image else drawn_with, group=item.group,
                margin=float(worths.margin[row]), degenerate=_is_degenerate(item, embeddings),
            )  # fmt: skip
            result[index] = Judged(verdict, chance)
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


Outcome = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Worth and ties `[N]`."""


@dataclass(frozen=True)
class _Worths:
    """Outcomes by key and margins `[N]` of N items with the same gold, or of N queries."""

    by_key: dict[str, Outcome]
    margin: NDArray[np.float32]

    def verdict(self, row: int, entry: Entry, **fields: Any) -> ItemVerdict:
        """The verdict on one of the N; `fields` are those of `ItemVerdict` that are not known here."""
        return ItemVerdict(
            benchmark=entry.benchmark,
            part=entry.part,
            ok={key: float(worth[row]) for key, (worth, _) in self.by_key.items()},
            ties={key: int(ties[row]) for key, (_, ties) in self.by_key.items()},
            **fields,
        )


def _similarities(
    items: Sequence[PairItem], embeddings: EmbeddedItems, regions: RegionTable | None
) -> NDArray[np.float32]:
    if regions is not None:
        return regions.similarities(items, embeddings)
    images = np.array([[embeddings.image_row[image] for image in item.images] for item in items])
    texts, index = embeddings.texts, _text_index(items, embeddings)
    if embeddings.covariance is not None:
        used, places = np.unique(index, return_inverse=True)
        texts, index = embeddings.for_images(texts[used]), places.reshape(index.shape)
    return pair_similarities(embeddings.images, texts, images, index)


def _compare_images(
    similarities: NDArray[np.float32], gold: Gold, rule: TieRule, wanted: frozenset[str], ids: Sequence[str] = ()
) -> _Worths:
    """Outcomes of N items with images that have the same gold; `ids` name them in an error."""
    if "average_precision" in wanted and len(gold[0]) == 1:
        precision, equal, margin = score_ranking(similarities[:, :, 0], np.array(gold)[:, 0], ids=ids)
        return _Worths({"average_precision": (precision, equal)}, margin)
    truth = np.broadcast_to(np.array(gold), similarities.shape)
    verdicts = score_pairs(similarities, truth, tie=rule, ids=ids)
    by_key: dict[str, Outcome] = {"text_ok": (verdicts.text_ok, verdicts.text_ties)}
    cells_of: dict[str, tuple[Any, ...]] = {}  # Index of the similarities of verdicts that need only some.
    if len(gold) > 1:  # several images: also each image with all texts, and each text with all images
        by_key["image_ok"] = verdicts.image_ok, verdicts.image_ties
        by_key["group_ok"] = verdicts.group_ok, verdicts.text_ties + verdicts.image_ties
        if len(gold[0]) == 1:  # one text: only the image direction is scored
            by_key = {"image_ok": by_key["image_ok"]}
        # Not in the order of a set, which differs between processes: equal results must give equal files.
        each: dict[str, tuple[Any, ...]] = {f"text_ok.{at + 1}": (_ALL, [at]) for at in range(len(gold))}
        each |= {f"image_ok.{at + 1}": (_ALL, _ALL, [at]) for at in range(len(gold[0]))}
        cells_of = {name: cells for name, cells in each.items() if name in wanted}
    elif sum(gold[0]) > 1:  # one image, several true texts: also each true text with all false ones
        true, false = ([at for at, is_true in enumerate(gold[0]) if is_true == kind] for kind in (1, 0))
        cells_of = {f"text_ok.{number}": (_ALL, _ALL, [at, *false]) for number, at in enumerate(true, start=1)}
    elif len(gold[0]) > 1:  # one image, one true text: also how near to the first it is, and what is answered instead
        right = gold[0].index(1)
        lead = similarities[:, 0, [right]] - np.delete(similarities[:, 0], right, axis=1)
        for k in (k for k in NEAR if f"text_ok@{k}" in wanted):
            by_key[f"text_ok@{k}"] = near(lead, k, rule), verdicts.text_ties
        answered = mistakes(lead, verdicts.text_ok, at=right)
        by_key |= {name: (worth, verdicts.text_ties) for name, worth in answered.items() if name in wanted}
    for name, cells in cells_of.items():
        side = name.partition("_")[0]
        outcome = score_pairs(similarities[cells], truth[cells], tie=rule, ids=ids)
        by_key[name] = getattr(outcome, f"{side}_ok"), getattr(outcome, f"{side}_ties")
    if len(gold) == 1 and sum(gold[0]) == 2 and "brittle" in wanted:
        by_key["brittle"] = brittle({key: worth for key, (worth, _) in by_key.items()}), verdicts.text_ties
    return _Worths(by_key, verdicts.margin)


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
    same, ids = np.broadcast_to(gold[0], index.shape), [item.id for item in items]
    ok, ties, margin = score_texts(similarities, same, tie=rule, ids=ids)
    return _Worths({"text_only_ok": (ok, ties)}, margin)


def _text_index(items: Sequence[PairItem], embeddings: EmbeddedItems) -> NDArray[np.int64]:
    return np.array([[embeddings.text_row[text] for text in item.texts] for item in items])


def _is_degenerate(item: PairItem, embeddings: EmbeddedItems) -> bool:
    """Whether some image has a true and a false text with the same tokens (which share one row of the table)."""
    text_rows = [embeddings.text_row[text] for text in item.texts]
    for gold in item.gold:
        true, false = (
            {row for row, is_true in zip(text_rows, gold, strict=True) if is_true == kind} for kind in (1, 0)
        )
        if true & false:
            return True
    return False


def class_embeddings(entry: Classification, embeddings: EmbeddedItems) -> NDArray[np.float32]:
    """Unit rows `[classes, D]` of the classes, of the rows of all their prompts."""
    prompts = embeddings.texts[[embeddings.text_row[text] for text in texts_of(entry)]]
    return class_rows(prompts, len(entry.classes))


def _judge_classification(
    entry: Classification, images: EmbeddingRows, classes: EmbeddingRows, tie: TieRule, repeated: Mapping[str, str],
    wanted: frozenset[str],
) -> list[Judged]:  # fmt: skip
    """Judge by the products of `images` `[N, D]` and `classes` `[C, D]`."""
    paths = [image.path for image in entry.images]
    ids = [f"{entry.benchmark}/{entry.part}/{path}" for path in paths]
    ranks = rank(images, classes, [[label] for label in entry.labels], ids)
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
    texts = embeddings.for_images(embeddings.texts[[embeddings.text_row[text] for text in entry.texts]])
    texts_of_image: list[list[int]] = [[] for _ in entry.images]
    for text, owner in enumerate(entry.owners):
        for image in set(owner):
            texts_of_image[image].append(text)
    queries = [index for index, true in enumerate(texts_of_image) if true]
    paths = [image.path for image in entry.images]

    def judged(
        way: str, own: EmbeddingRows, others: EmbeddingRows, true: list[list[int]], names: list[str], drawn: list[str]
    ) -> list[Judged]:
        """One direction: `own` are the queries, `others` the candidates, `drawn` the images of the queries."""
        ids = [f"{entry.benchmark}/{entry.part}/{name}" for name in names]
        ranks = rank(own, others, true, ids)
        worth = {f"{way}@{k}": ranks.within(k, tie) for k in RECALL}
        chances = [{f"{way}@{k}": _blind_recall(len(others), len(each), k) for k in RECALL} for each in true]
        return _judge_ranks(entry, zip(ids, drawn, [{}] * len(ids), chances, strict=True), ranks, worth, repeated)

    drawn, owners = [paths[index] for index in queries], [sorted(set(owner)) for owner in entry.owners]
    true, names = [texts_of_image[index] for index in queries], [f"image/{path}" for path in drawn]
    to_text = judged("image_to_text", images[queries], texts, true, names, drawn)
    names, drawn = [f"text/{number}" for number in range(len(texts))], [paths[owner[0]] for owner in entry.owners]
    return to_text + judged("text_to_image", texts, images, owners, names, drawn)


def _judge_ranks(
    entry: Classification | Retrieval,
    queries: Iterable[tuple[str, str, dict[str, str], dict[str, float]]],
    ranks: RankVerdicts,
    worth: Mapping[str, NDArray[np.float64]],
    repeated: Mapping[str, str],
) -> list[Judged]:
    """One verdict per query; `queries` gives its id, image, groups and chance."""
    worths = _Worths({key: (values, ranks.ties) for key, values in worth.items()}, ranks.margin)
    judged = []
    for row, (name, image, group, chance) in enumerate(queries):
        margin = float(ranks.margin[row]) if np.isfinite(ranks.margin[row]) else None
        same = repeated.get(image, "")
        verdict = worths.verdict(row, entry, id=name, image=image, same_as=same, group=group, margin=margin)
        judged.append(Judged(verdict, chance))
    return judged


def _blind_recall(candidates: int, true: int, k: int) -> float:
    """Probability that k candidates drawn at random include one of the true ones."""
    k = min(k, candidates)
    return 1 - math.comb(candidates - true, k) / math.comb(candidates, k)


@cache
def pair_chances(gold: Gold) -> dict[str, float]:
    """Return the expected `text_ok`, `image_ok` and `group_ok` of a model with independent random similarities.

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


@cache
def chances_of(gold: Gold) -> dict[str, float]:
    """Return `pair_chances`, and the chance of every other verdict that an item with this gold may have."""
    first, columns = gold[0], list(zip(*gold, strict=True))
    chance = dict(pair_chances(gold))
    if len(columns) == 1:
        chance["average_precision"] = ranking_chance(columns[0])
    if len(gold) > 1:
        chance |= {f"text_ok.{at}": pair_chances((row,))["text_ok"] for at, row in enumerate(gold, start=1)}
        return chance | {f"image_ok.{at}": pair_chances((row,))["text_ok"] for at, row in enumerate(columns, start=1)}
    true, count = sum(first), len(first)
    chance |= {f"text_ok.{at}": 1 / (1 + count - true) for at in range(1, true + 1)}
    if true == 1:
        chance |= {f"text_ok@{k}": min(1.0, k / count) for k in NEAR}
        chance |= {f"mistake.{at}": (1 - is_true) / count for at, is_true in enumerate(first, start=1)}
    if true == 2:
        # Without an image the two true texts have one similarity: it must exceed the two with each other text.
        return chance | {"brittle": brittle(chance), "text_only_ok": 1 / (1 + 2 * (count - 2))}
    return chance
