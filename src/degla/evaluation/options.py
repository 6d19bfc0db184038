"""Which of NegBench's four options is true, by comparing them with each other: a solver that sees no image.

A question has a true option, "N but not B", "N" and "not A", where A and B are there and N is not. So the one option
that affirms a single thing names what is absent, and the true one either denies that thing or affirms two others. The
things are the classes of COCO and VOC, which are all that NegBench asks of; what is denied is read off a few words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

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
"""What denies the thing before it."""
_BEHIND: Final = re.compile(
    r"\b(?:no|not|never|without|lacks?|lacking|devoid|free of|excludes?|excluding|absence|nor|neither|none|minus"
    r"|omits?)\b|n['’]t\b|\b(?:absent|missing)\b(?=[^.,;]{0,30} (?:is|are)\b)"
)
"""What denies the thing behind it; the last, "absent from this image is a cat"."""


def compare_options(options: Sequence[str]) -> int | None:
    """Number of the option that must be true if one is, of the options alone; None where they do not tell."""
    told = [_claims(text) for text in options]
    single = [next(iter(affirmed)) for affirmed, denied in told if len(affirmed) == 1 and not denied]
    if len(single) != 1:
        return None
    (absent,) = single
    fitting = [
        number
        for number, (affirmed, denied) in enumerate(told)
        if absent not in affirmed and (absent in denied or (len(affirmed) > 1 and not denied))
    ]
    return fitting[0] if len(fitting) == 1 else None


def _claims(text: str) -> tuple[set[str], set[str]]:
    """Things that a text affirms, and those that it denies."""
    said = text.lower()
    things = [(found.start(), _NAMES[found[1]]) for found in _THING.finditer(said)]
    denied: set[str] = set()
    for found in _BEFORE.finditer(said):
        denied |= {name for _, name in [thing for thing in things if thing[0] < found.start()][-1:]}
    # What denied a thing before it denies none behind it; at the beginning of a text there is none before.
    first = things[0][0] if things else 0
    rest = _BEFORE.sub(lambda found: found[0] if found.start() < first else " " * len(found[0]), said)
    for found in _BEHIND.finditer(rest):
        denied |= {name for _, name in [thing for thing in things if thing[0] >= found.end()][:1]}
    return {name for _, name in things} - denied, denied
