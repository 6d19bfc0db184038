"""How well can negatives be told from captions by text only, before and after balancing, and on SugarCrepe?

Within a captions file, classifiers are trained on one half of the images and tested on the other, both ways. With
--other, they are trained on the first files and tested on files of other captions, which balancing has not seen: each
file on its own counterpart, and all files on the last one, to show what a model could learn from each.

    python bench/text_accuracy.py --captions train.json plain_train.jsonl balanced_train.jsonl \
        --other dev.json plain_dev.jsonl balanced_dev.jsonl
    python bench/text_accuracy.py --sugarcrepe DATA/sugarcrepe
    python bench/text_accuracy.py --world world    # by `degla world draw --out world`; likelihoods by its captions
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from random import Random

from degla.cli import exit_status_of
from degla.data.sources import read_captions, read_negatives
from degla.negatives.balance.outcome import TextAccuracy, accuracy_by_all, measure_text_accuracy
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.report.blind import CaptionNegative, Likelihoods, NgramLikelihood, half_of, ngram_likelihoods
from degla.negatives.report.counts import Reservoir

TOGETHER = "together"
MOST = 1_500
"""Pairs per rule and half."""
MOST_TOGETHER = 3_000
"""Pairs per half for all rules together, sampled from those."""

Drawn = dict[str, tuple[list[CaptionNegative], list[CaptionNegative]]]
"""Pairs of each rule, in two halves of the images."""


def draw(rows: Iterable[tuple[str, str, str, str]], likelihoods: Sequence[Likelihoods]) -> Drawn:
    """Return the pairs per rule and half, from (rule, image, caption, negative)."""
    kept: dict[str, tuple[Reservoir[tuple[str, str]], Reservoir[tuple[str, str]]]] = {}
    for rule, image, caption, negative in rows:
        if rule not in kept:
            kept[rule] = (Reservoir(MOST, seed=f"{rule} 0"), Reservoir(MOST, seed=f"{rule} 1"))
        kept[rule][half_of(image)].show((caption, negative))
    return {
        rule: (_pairs(halves[0].items, likelihoods[0]), _pairs(halves[1].items, likelihoods[1]))
        for rule, halves in kept.items()
    }


def _pairs(texts: Sequence[tuple[str, str]], likelihood: Likelihoods) -> list[CaptionNegative]:
    return [CaptionNegative(caption, other, "", *likelihood([caption, other])) for caption, other in texts]


def rows_of(path: Path, captions: CaptionIndex) -> Iterator[tuple[str, str, str, str]]:
    """Return the first accepted negative of each caption and rule."""
    last = ("", "")
    for row in read_negatives(path):
        caption = captions.find(row.caption_id)
        if row.accepted and row.text and caption is not None and (row.caption_id, row.rule) != last:
            last = (row.caption_id, row.rule)
            yield row.rule, caption.image_id, caption.text, row.text


def sugarcrepe_rows(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Return SugarCrepe's pairs by file."""
    for path in sorted(folder.glob("*.json")):
        for item in json.loads(path.read_text()).values():
            yield path.stem, item["filename"], item["caption"], item["negative_caption"]


def world_rows(folder: Path, start: str) -> Iterator[tuple[str, str, str, str]]:
    """Return the pairs of the world's parts whose names start so, by part."""
    with (folder / "benchmark" / "items.jsonl").open(encoding="utf-8") as lines:
        for item in map(json.loads, lines):
            if item["part"].startswith(start):
                yield item["part"], item["images"][0]["path"], *item["texts"]


def whole(drawn: Drawn) -> tuple[list[CaptionNegative], list[CaptionNegative]]:
    """Return the pairs of all rules together, in two halves, as many per rule as it has captions."""
    halves = ([pair for own in drawn.values() for pair in own[half]] for half in (0, 1))
    first, second = (Random(0).sample(pairs, min(len(pairs), MOST_TOGETHER)) for pairs in halves)
    return first, second


def show(title: str, accuracies: Mapping[str, TextAccuracy | None]) -> None:
    """Print one table."""
    print(f"\n{title}\n\n| rule | pairs | words | length | likelihood | all |\n|---|---:|---:|---:|---:|---:|")
    for rule, known in accuracies.items():
        if known is None:
            print(f"| {rule} | too few | | | | |")
            continue
        shares = (known.words, known.length, known.likelihood, known.all)
        print(f"| {rule} | {known.n} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |", flush=True)


def within(title: str, drawn: Drawn) -> None:
    """Train on one half and test on the other, both ways."""
    parts = {**drawn, TOGETHER: whole(drawn)}
    show(title, {rule: measure_text_accuracy(halves) for rule, halves in parts.items()})


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="negatives files")
    parser.add_argument("--captions", type=Path, help="captions that they were made from")
    parser.add_argument("--other", nargs="+", type=Path, help="other captions, and their negatives files")
    parser.add_argument("--sugarcrepe", type=Path, help="folder with SugarCrepe's files")
    parser.add_argument("--world", type=Path, help="folder of `degla world draw`")
    given = parser.parse_args()
    if given.sugarcrepe:
        rows = list(sugarcrepe_rows(given.sugarcrepe))
        halves = [NgramLikelihood(row[2] for row in rows if half_of(row[1]) != half) for half in (0, 1)]
        within("SugarCrepe", draw(rows, halves))
    if given.world:
        learned = NgramLikelihood(caption.text for caption in read_captions(given.world / "pairs" / "captions.jsonl"))
        for place, kinds in product(("id", "ood"), (("replace", "swap"), ("add",), ("order",))):
            rows = [row for kind in kinds for row in world_rows(given.world, f"{place}/{kind}")]
            within(f"{place}: {', '.join(kinds)}", draw(rows, (learned, learned)))
    if not given.files:
        return
    with CaptionIndex(read_captions(given.captions)) as captions:
        likelihoods = ngram_likelihoods(captions)
        drawn = {path.stem: draw(rows_of(path, captions), likelihoods) for path in given.files}
        learned = NgramLikelihood(caption.text for _, caption in captions)
    for name, own in drawn.items():
        within(f"{name}: trained on one half of the images, tested on the other", own)
    if not given.other:
        return
    asked_captions, *asked_files = given.other
    with CaptionIndex(read_captions(asked_captions)) as captions:
        asked = {path.stem: draw(rows_of(path, captions), (learned, learned)) for path in asked_files}
    print("\n| trained on | tested on | pairs | text-only accuracy, % |\n|---|---|---:|---:|")
    for name, own in drawn.items():
        for other, pairs in asked.items():
            one, two = list(chain(*whole(own))), list(chain(*whole(pairs)))
            print(f"| {name} | {other} | {len(two)} | {100 * accuracy_by_all(one, two):.1f} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
