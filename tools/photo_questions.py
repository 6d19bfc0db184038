"""Prepare photographs for `docs/studies/plans/photographs*.yaml`: `python -m tools.photo_questions SHARED OUT`.

SHARED is a folder with flickr8k, coco, negbench, sugarcrepe, sugarcrepe_pp and zeroshot. Images are linked, not copied.
The dev photographs of Flickr8k are split into two halves by name: OUT/validation asks about the first half, for
choosing settings; OUT/test about the second half, and about photographs of COCO, Caltech101 and CIFAR-10.
OUT/train.jsonl has two captions per training photograph, more than a short run reads, OUT/all.jsonl all of them. For
two captions per photograph, both ask about true against false captions of every rule, true but changed-looking texts
against false ones, half-truths, and retrieval. With balanced negatives of the training and dev captions, OUT/balance
asks about the second half with these, OUT/balance_first_half and OUT/balance_second_half about all captions of a half;
OUT/balance_other_photographs asks the latter of another photograph each, to see what a model knows without the right
one. OUT/train_half.jsonl has the training captions that they cover; OUT/trained_pairs asks about 500 photographs of
those and the captions that a training reads, OUT/trained_photographs about other captions of these 500.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from degla.cli import exit_status_of
from degla.data.sources import read_captions, read_negatives
from degla.negatives.generate import NegativesSettings, generate
from degla.parse import read_json_lines
from degla.records import CaptionRecord, write_jsonl
from degla.shelf import POSITIVES, PUBLISHED_RULES, RULES

CAPTIONS_A_PHOTOGRAPH: Final = 2
ASKED_OF_TRAINED: Final = 500
"""Training photographs that are asked about, as many as the second half of dev has."""
LINKED: Final = ("coco", "sugarcrepe", "sugarcrepe_pp", "zeroshot")


def halves(captions: Sequence[CaptionRecord]) -> tuple[list[CaptionRecord], list[CaptionRecord]]:
    """Return captions of the first half of the photographs by name, and of the second."""
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
    """Write own/, retrieval/ and half_truths/ under a root."""
    own = root / "own"
    for name in ("own", "retrieval", "half_truths"):
        (root / name).mkdir(parents=True, exist_ok=True)
    _link(own / "images", images)
    placed = [row.model_copy(update={"image": f"own/images/{row.image}"}) for row in captions]
    write_jsonl(root / "retrieval" / "dev.jsonl", placed)
    write_jsonl(root / "half_truths" / "captions.jsonl", placed)
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
    # With the paper's rules: a negative that only adds words could be told by them.
    false = {row.caption_id: row.text for row in made["negatives"] if row.rule in PUBLISHED_RULES}
    image = {row.id: row.image for row in captions}
    rows = [
        {"part": "hard_positives", "id": f"{row.caption_id}-{row.rule}", "image": image[row.caption_id],
         "caption": row.text, "negative": false[row.caption_id]}
        for row in made["positives"] if row.caption_id in false and row.text != false[row.caption_id]
    ]  # fmt: skip
    _write(own / "hard_positives.jsonl", rows)


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def lay_out_balance(out: Path, trained: Path, asked: Path, parts: Sequence[Sequence[CaptionRecord]]) -> None:
    """Write balance*/ and train_half.jsonl, after the rest.

    Args:
        out: folder that the rest was written to.
        trained: balanced negatives of all training captions or the first ones.
        asked: balanced negatives of the dev captions.
        parts: all captions of each half of the dev photographs.
    """
    covered = {row.caption_id for row in read_negatives(trained)}
    write_jsonl(out / "train_half.jsonl", [row for row in read_captions(out / "train.jsonl") if row.id in covered])
    made = [row for row in read_negatives(asked) if row.accepted]
    first_half, second_half = parts
    photographs = sorted({row.image for row in second_half})
    middle = len(photographs) // 2
    other = dict(zip(photographs, photographs[middle:] + photographs[:middle], strict=True))
    for source, root, captions, shown in (
        (out / "test", out / "balance", list(read_captions(out / "test" / "own" / "captions.jsonl")), {}),
        (out / "validation", out / "balance_first_half", first_half, {}),
        (out / "test", out / "balance_second_half", second_half, {}),
        (out / "test", out / "balance_other_photographs", second_half, other),
    ):
        for name in ("own", "retrieval"):
            (root / name).mkdir(parents=True, exist_ok=True)
        images = {row.image: shown.get(row.image, row.image) for row in captions}
        write_jsonl(
            root / "own" / "captions.jsonl", [row.model_copy(update={"image": images[row.image]}) for row in captions]
        )
        shutil.copy(source / "retrieval" / "dev.jsonl", root / "retrieval" / "dev.jsonl")
        # A part in a separate family, which has its own interval.
        rows = [
            {**row, "part": f"changed/{row['part']}", "image": images[row["image"]]}
            for _, row in read_json_lines(source / "own" / "hard_positives.jsonl")
        ]
        _write(root / "own" / "hard_positives.jsonl", rows)
        _link(root / "own" / "images", source / "own" / "images")
        own = {row.id for row in captions}
        write_jsonl(root / "own" / "negatives.jsonl", [row for row in made if row.caption_id in own])
    for name in ("coco", "sugarcrepe"):
        _link(out / "balance" / name, out / "test" / name)


def lay_out_trained(out: Path, captions: Sequence[CaptionRecord], images: Path, negatives: Path) -> None:
    """Write trained_pairs/ and trained_photographs/, after the rest.

    Args:
        out: folder that the rest was written to.
        captions: all training captions.
        images: folder of the photographs.
        negatives: balanced negatives of all training captions or the first ones.
    """
    trained = {row.id for row in read_captions(out / "train_half.jsonl")}
    photographs = sorted({row.image for row in captions if row.id in trained})
    chosen = set(photographs[:: max(1, len(photographs) // ASKED_OF_TRAINED)])
    asked = [row for row in captions if row.image in chosen]
    made = [row for row in read_negatives(negatives) if row.accepted]
    for name, rows in (
        ("trained_pairs", [row for row in asked if row.id in trained]),
        ("trained_photographs", _some([row for row in asked if row.id not in trained])),
    ):
        root, own = out / name, {row.id for row in rows}
        for benchmark in ("own", "retrieval"):
            (root / benchmark).mkdir(parents=True, exist_ok=True)
        _link(root / "own" / "images", images)
        placed = [row.model_copy(update={"image": f"own/images/{row.image}"}) for row in rows]
        write_jsonl(root / "own" / "captions.jsonl", rows)
        write_jsonl(root / "retrieval" / "captions.jsonl", placed)
        write_jsonl(root / "own" / "negatives.jsonl", [row for row in made if row.caption_id in own])


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.resolve(), target_is_directory=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with the data")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--balanced",
        type=Path,
        nargs=2,
        metavar="FILE",
        help="output of degla negatives balance for training and dev captions",
    )
    given = parser.parse_args()
    flickr = given.shared / "flickr8k"
    parts = halves(list(read_captions(flickr / "captions_dev.json")))
    for name, captions in zip(("validation", "test"), parts, strict=True):
        lay_out(given.out / name, captions, flickr / "images", workers=given.workers)
    for name in LINKED:
        _link(given.out / "test" / name, given.shared / name)
    (given.out / "test" / "negbench").mkdir(exist_ok=True)
    _link(given.out / "test" / "negbench" / "images", given.shared / "negbench")
    train = list(read_captions(flickr / "captions_train.json"))
    write_jsonl(given.out / "train.jsonl", _some(train))
    write_jsonl(given.out / "all.jsonl", train)
    _link(given.out / "images", flickr / "images")
    if given.balanced:
        lay_out_balance(given.out, *given.balanced, parts=parts)
        lay_out_trained(given.out, train, flickr / "images", given.balanced[0])


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
