"""Score a benchmark's items with solvers that see only the texts, not the image.

"shorter text" picks the shorter of two texts. "words only" is a bag-of-words classifier that learns, from the items of
other images, which words occur in true and in false texts. Both choose at random between texts that look the same to
them. The third floor, a random answer, is the score's chance.

"options compared" finds the true one of NegBench's four options by comparing them with each other. A question has a
true option, "N but not B", "N" and "not A", where A and B are present and N is not. So the one option that affirms a
single object names the absent one, and the true option either denies that object or affirms two others. The objects
are the classes of COCO and VOC, which are all that NegBench asks about; a few words show what is denied.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degla.evaluation.benchmark import FURTHER_FLOORS
from degla.evaluation.cache import Cache
from degla.evaluation.verdicts import NEAR, Gold, Judged, brittle, chances_of, mistakes, near
from degla.records import PairItem
from degla.results import ItemVerdict

SHORTER, WORDS = "shorter text", "words only"
LONGER, COMPARED = FURTHER_FLOORS
"""Floors of the benchmarks that name them. The last compares a question's options with each other, which a model that
scores one text at a time cannot do: it is shown beside the score but excludes no part."""
MEANINGS: Final = {
    SHORTER: "the text with fewer characters",
    WORDS: "a bag-of-words classifier trained on the items of other images",
    LONGER: "the text with more characters",
    COMPARED: "the option that is left after comparing the options' words",
}
"""What each floor answers, as shown on pages; none sees the image."""
TEXT_SOLVABLE = "solvable from text alone"
"""Column of the report's first table for the mean of the parts that a floor answers."""
_KEY = "textfloors:words leads"
"""Prefix of the keys of cached verdicts; change it when the way to make them changes."""
Leads = NDArray[np.float64]
"""`[true, false]`: above 0 where a solver prefers the true text of one row of gold, 0 where it cannot choose."""


def floor_verdicts(
    items: Iterable[PairItem], cache: Cache | None = None, *, further: Sequence[str] = ()
) -> dict[str, list[Judged]]:
    """Return the verdicts of each floor by its name, with chance, in the order of the items.

    Items without an image or with only one text have no floor. "words only" skips parts with fewer than 40 comparisons
    or 10 images, which are too few to learn from.

    Args:
        items: of one benchmark.
        cache: keeps results that take long to compute.
        further: additional floors that the benchmark chose, `LONGER` or `COMPARED`.
    """
    parts: dict[str, list[PairItem]] = {}
    for item in items:
        if item.images and len(item.texts) > 1:
            parts.setdefault(item.part, []).append(item)
    verdicts: dict[str, list[Judged]] = {name: [] for name in (SHORTER, WORDS, *further)}
    for members in parts.values():
        for name in (SHORTER, *further):
            verdicts[name] += [_judge(item, _SOLVERS[name](item)) for item in members]
        learnt = _words_only(members, {} if cache is None else cache)
        if learnt is not None:
            verdicts[WORDS] += [_judge(item, lead) for item, lead in zip(members, learnt, strict=True)]
    return verdicts


def _shorter(item: PairItem) -> list[Leads]:
    lengths = np.array([len(text) for text in item.texts], dtype=np.float64)
    return [lengths[None, ~true] - lengths[true, None] for true in _true_texts(item)]


def _longer(item: PairItem) -> list[Leads]:
    return [-lead for lead in _shorter(item)]


def _compared(item: PairItem) -> list[Leads]:
    chosen = compare_options(item.texts)
    picked = np.arange(len(item.texts)) == (-1 if chosen is None else chosen)
    return [picked[true, None].astype(float) - picked[None, ~true] for true in _true_texts(item)]


_SOLVERS: Final[dict[str, Callable[[PairItem], list[Leads]]]] = {
    SHORTER: _shorter, LONGER: _longer, COMPARED: _compared
}  # fmt: skip


def _words_only(items: Sequence[PairItem], cache: Cache) -> list[list[Leads]] | None:
    from degla.negatives.report.blind import CaptionNegative, bag_of_words, blind_leads

    shapes = [[(int(true.sum()), int((~true).sum())) for true in _true_texts(item)] for item in items]
    pairs = [
        CaptionNegative(one, other, item.images[0].path)
        for item in items
        for true in _true_texts(item)
        for one in _chosen(item, true)
        for other in _chosen(item, ~true)
    ]
    digest = hashlib.sha256(repr([(pair.image_id, pair.caption, pair.negative) for pair in pairs]).encode()).hexdigest()
    key = f"{_KEY}:{digest}"
    row = cache.get(key)
    if row is None:
        leads = blind_leads(pairs, features=bag_of_words)
        if leads is None:
            return None
        row = cache[key] = leads.astype(np.float32)
    ends = np.cumsum([true * false for rows in shapes for true, false in rows])
    blocks = iter(np.split(row.astype(np.float64), ends[:-1]))
    return [[next(blocks).reshape(shape) for shape in rows] for rows in shapes]


def _true_texts(item: PairItem) -> list[NDArray[np.bool_]]:
    """A mask of the texts for each row of gold."""
    return [np.array(row, dtype=bool) for row in item.gold]


def _chosen(item: PairItem, which: NDArray[np.bool_]) -> list[str]:
    return [text for text, wanted in zip(item.texts, which, strict=True) if wanted]


def _judge(item: PairItem, leads: Sequence[Leads]) -> Judged:
    chance = chances_of(item.gold)
    # A solver that sees no image orders the texts once: the order must be right for every image.
    text = 0.0 if _contradict(item.gold) else math.prod(map(_worth, leads))
    ok = {"text_ok": text, "image_ok": chance["image_ok"], "group_ok": text * chance["image_ok"]}
    if len(item.gold) == 1:
        ok |= {f"text_ok.{number}": _worth(row[None]) for number, row in enumerate(leads[0], start=1)}
        if len(leads[0]) == 2:
            ok["brittle"] = brittle(ok)
        if len(leads[0]) == 1:
            ok |= {f"text_ok@{k}": float(near(leads[0], k, "half")[0]) for k in NEAR}
            answered = mistakes(leads[0], np.array([text]), at=item.gold[0].index(1))
            ok |= {name: float(worth[0]) for name, worth in answered.items()}
    else:
        ok |= {f"text_ok.{number}": _worth(row) for number, row in enumerate(leads, start=1)}
        ok |= {name: worth for name, worth in chance.items() if name.startswith("image_ok.")}
    verdict = ItemVerdict(
        id=item.id, benchmark=item.benchmark, part=item.part, image=item.images[0].path, group=item.group, ok=ok,
        ties=dict.fromkeys(ok, 0), margin=None,
    )  # fmt: skip
    return Judged(verdict, chance)


def _worth(leads: Leads) -> float:
    """Probability that every true text ranks above every false one, with ties in random order."""
    if leads.size == 0:
        return 1.0
    if (leads < 0).any():
        return 0.0
    equal = leads == 0
    # The tied texts are in random order: all true ones must be first.
    true, false = int(equal.any(axis=1).sum()), int(equal.any(axis=0).sum())
    return 1 / math.comb(true + false, true)


def _contradict(gold: Gold) -> bool:
    """Whether one image needs a text above another and a second image the other way round."""
    orders: set[tuple[int, int]] = {
        (true, false)
        for row in gold
        for true, is_true in enumerate(row)
        for false, is_false in enumerate(row)
        if is_true and not is_false
    }
    return any((false, true) in orders for true, false in orders)


_THINGS: Final = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
_OTHER: Final = {
    "people": "person", "knives": "knife", "mice": "mouse", "aeroplane": "airplane", "motorbike": "motorcycle",
    "sofa": "couch", "tvmonitor": "tv", "tv monitor": "tv", "diningtable": "dining table",
    "pottedplant": "potted plant", "hair dryer": "hair drier",
}  # fmt: skip
"""Irregular plurals, and VOC's names."""
_NAMES: Final = {
    f"{name}{ending}": thing
    for name, thing in ({name: name for name in _THINGS.split(", ")} | _OTHER).items()
    for ending in ("", "s", "es")
}
_THING: Final = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _NAMES), key=len, reverse=True)) + r")\b")
_BEFORE: Final = re.compile(
    r"(?:\b(?:not|never)|n['’]t) (?:\w+ )?(?:present|included|visible|shown|seen|featured|depicted|found|there|part"
    r"|pictured|evident|here|anywhere|in|on|captured|displayed|observed|appear)\b|\b(?:not|isn['’]t|aren['’]t)\W*$"
    r"|\b(?:not|isn['’]t)(?=[.,;])|\b(?:absent|missing|nowhere|out of sight|excluded)\b|-free\b"
)
"""Denies the object before it."""
_BEHIND: Final = re.compile(
    r"\b(?:no|not|never|without|lacks?|lacking|devoid|free of|excludes?|excluding|absence|nor|neither|none|minus"
    r"|omits?)\b|n['’]t\b|\b(?:absent|missing)\b(?=[^.,;]{0,30} (?:is|are)\b)"
)
"""Denies the object after it; the last alternative: "absent from this image is a cat"."""


def compare_options(options: Sequence[str]) -> int | None:
    """Return the index of the option that must be true, judged from the options only; None if undecided."""
    claims = [_claims(text) for text in options]
    single = [next(iter(affirmed)) for affirmed, denied in claims if len(affirmed) == 1 and not denied]
    if len(single) != 1:
        return None
    (absent,) = single
    fitting = [
        number
        for number, (affirmed, denied) in enumerate(claims)
        if absent not in affirmed and (absent in denied or (len(affirmed) > 1 and not denied))
    ]
    return fitting[0] if len(fitting) == 1 else None


def _claims(text: str) -> tuple[set[str], set[str]]:
    """Objects that a text affirms, and objects that it denies."""
    lowercase = text.lower()
    things = [(match.start(), _NAMES[match[1]]) for match in _THING.finditer(lowercase)]
    denied: set[str] = set()
    for match in _BEFORE.finditer(lowercase):
        denied |= {name for _, name in [thing for thing in things if thing[0] < match.start()][-1:]}
    # A phrase that denied the object before it denies none after it; at the start of a text there is none before.
    first = things[0][0] if things else 0
    rest = _BEFORE.sub(lambda match: match[0] if match.start() < first else " " * len(match[0]), lowercase)
    for match in _BEHIND.finditer(rest):
        denied |= {name for _, name in [thing for thing in things if thing[0] >= match.end()][:1]}
    return {name for _, name in things} - denied, denied
