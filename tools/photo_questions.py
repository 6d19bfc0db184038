"""Lays out photographs for `docs/studies/plans/photographs*.yaml`: `python -m tools.photo_questions SHARED OUT`.

SHARED is a folder with flickr8k, coco, sugarcrepe, sugarcrepe_pp and zeroshot. Pictures are linked, not copied. The dev
photographs of Flickr8k are cut into two halves by their names: OUT/validation asks about the one, to choose settings
by; OUT/test about the other, and about photographs of COCO, Caltech101 and CIFAR-10. OUT/train.jsonl has two captions
of each training photograph: more than a short run reads. Both ask, of two captions a photograph, true against false
ones of every rule, and true texts that look changed against false ones; and retrieval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from degla.data.sources import read_captions, read_negatives
from degla.negatives.generate import NegativesSettings, generate
from degla.records import CaptionRecord, write_jsonl
from degla.shelf import POSITIVES, PUBLISHED_RULES, RULES

CAPTIONS_A_PHOTOGRAPH: Final = 2
LINKED: Final = ("coco", "sugarcrepe", "sugarcrepe_pp", "zeroshot")


def halves(captions: Sequence[CaptionRecord]) -> tuple[list[CaptionRecord], list[CaptionRecord]]:
    """Captions of the first half of the photographs by name, and of the others."""
    names = sorted({row.image for row in captions})
    first = set(names[: len(names) // 2])
    return [row for row in captions if row.image in first], [row for row in captions if row.image not in first]


def _some(captions: Sequence[CaptionRecord]) -> list[CaptionRecord]:
    """The first captions of each photograph."""
    seen: dict[str, int] = {}
    kept = []
    for row in captions:
        seen[row.image] = seen.get(row.image, 0) + 1
        if seen[row.image] <= CAPTIONS_A_PHOTOGRAPH:
            kept.append(row)
    return kept


def lay_out(root: Path, captions: Sequence[CaptionRecord], images: Path, *, workers: int) -> None:
    """Write own/ and retrieval/ below a root."""
    own = root / "own"
    own.mkdir(parents=True, exist_ok=True)
    (root / "retrieval").mkdir(exist_ok=True)
    _link(own / "images", images)
    write_jsonl(
        root / "retrieval" / "dev.jsonl",
        [row.model_copy(update={"image": f"own/images/{row.image}"}) for row in captions],
    )
    write_jsonl(own / "captions.jsonl", _some(captions))
    made = {}
    for name, shelf in (("negatives", RULES), ("positives", POSITIVES)):
        path = (own if shelf is RULES else root) / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        generate(
            read_captions(own / "captions.jsonl"), NegativesSettings(tuple(shelf.names()), 0, words="captions"),
            out=path, workers=workers,
        )  # fmt: skip
        made[name] = [row for row in read_negatives(path) if row.accepted and row.text]
    # Of the paper's rules: a negative of other words alone would be told by what it adds.
    false = {row.caption_id: row.text for row in made["negatives"] if row.rule in PUBLISHED_RULES}
    image = {row.id: row.image for row in captions}
    rows = [
        {"part": "hard_positives", "id": f"{row.caption_id}-{row.rule}", "image": image[row.caption_id],
         "caption": row.text, "negative": false[row.caption_id]}
        for row in made["positives"] if row.caption_id in false and row.text != false[row.caption_id]
    ]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (own / "hard_positives.jsonl").write_text(lines, encoding="utf-8")


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.resolve(), target_is_directory=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with the data")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    flickr = given.shared / "flickr8k"
    parts = halves(list(read_captions(flickr / "captions_dev.json")))
    for name, captions in zip(("validation", "test"), parts, strict=True):
        lay_out(given.out / name, captions, flickr / "images", workers=given.workers)
    for name in LINKED:
        _link(given.out / "test" / name, given.shared / name)
    train = _some(list(read_captions(flickr / "captions_train.json")))
    write_jsonl(given.out / "train.jsonl", train)
    _link(given.out / "images", flickr / "images")


if __name__ == "__main__":
    main()
