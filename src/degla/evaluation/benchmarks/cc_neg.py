"""CC-Neg: a CC3M caption against the same caption with one part negated.

False captions are longer, contain words such as "not" and "no", and have no commas, so a model that dislikes such
words is right without the image. Compare the score with its floors.

Use when: you compare with CoN-CLIP. For whether a model understands negation use `negbench`, whose wrong options are
negated too.

Title:    CC-Neg
Paper:    arXiv 2403.20312
Licence:  annotations MIT; images of CC3M, which may not be redistributed
Source:   https://github.com/jaisidhsingh/CoN-CLIP (ccneg_preprocessed.pt: a pickle, which degla does not open; convert
          the last 40,000 rows of image_paths and annotations to JSON lines)
Layout:   cc_neg/cc_neg.jsonl   {"image": "1.jpg", "caption": "...", "negative_caption": "..."}
          cc_neg/images/*
Citation: @inproceedings{singh2025learning, title={Learning the Power of ``No'': Foundation Models with Negations},
          author={Singh, Jaisidh and Shrivastava, Ishaan and Vatsa, Mayank and Singh, Richa and Bharati, Aparna},
          booktitle={WACV}, year={2025}}
"""

from __future__ import annotations

from pathlib import Path

from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Benchmark, BenchmarkPart, Entries, described, image_question
from degla.records import Record


class _Row(Record):
    """One caption and its negation."""

    image: Text
    caption: Text
    negative_caption: Text


def items(root: Path) -> Entries:
    """Read the rows; commas are removed from false captions, as in the released code, and kept in true ones."""
    folder = root / "cc_neg"
    pickled = next(iter(sorted(folder.glob("*.pt"))), None)
    file = folder / "cc_neg.jsonl"
    for number, (_, row) in enumerate(
        read_records(_Row, pickled if pickled and not file.exists() else file, BENCHMARK)
    ):
        false = row.negative_caption.replace(",", "")
        yield image_question(("cc_neg", "test", number), f"cc_neg/images/{row.image}", [row.caption], [false])


BENCHMARK = Benchmark(
    **described("cc_neg"),
    # In the released code the true caption comes first, and the first of the best wins.
    parts=(BenchmarkPart(name="test", family="negation", n=40000, tie="lenient"),),
    headline={"composition": "test"},
    items=items,
    floors=("longer text",),
    annotations=("cc_neg/cc_neg.jsonl",),
)
