"""SVO-Probes: which of two images matches a sentence; subject, verb or object differs in the wrong one.

Many of its 14,102 image URLs are dead, so no two labs have the same items. Score the images you have with
--allow-missing; the report compares only results on the same items. The paper's own score thresholds a classifier's
output and is a different number.

Use when: verbs matter, and you need no number that others can repeat: each lab has the images that it could still
download.

Title:    SVO-Probes
Paper:    arXiv 2106.09141
Licence:  annotations CC BY 4.0; images of the web, terms of each
Source:   https://github.com/google-deepmind/svo_probes (svo_probes.csv; images from its image_urls.txt)
Layout:   svo_probes/svo_probes.csv
          svo_probes/images/N.jpg   by pos_image_id and neg_image_id
Citation: @inproceedings{hendricks2021probing, title={Probing Image-Language Transformers for Verb Understanding},
          author={Hendricks, Lisa Anne and Nematzadeh, Aida}, booktitle={Findings of ACL}, year={2021}}
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, described, parts_of
from degla.evaluation.forms import image_choice_question
from degla.records import Record

_PARTS = ("subject", "verb", "object")


class _Row(Record, extra="ignore"):
    """One sentence with two images; its triplets and addresses go to `meta`."""

    sentence: Text
    pos_triplet: str = ""
    neg_triplet: str = ""
    pos_image_id: int = Field(ge=0)
    neg_image_id: int = Field(ge=0)
    subj_neg: bool
    verb_neg: bool
    obj_neg: bool


def items(root: Path) -> Entries:
    """Read the table; rows that do not change exactly one of subject, verb and object are not scored."""
    for number, (_, row) in enumerate(read_records(_Row, root / "svo_probes" / "svo_probes.csv", BENCHMARK)):
        changed = [part for part, flag in zip(_PARTS, (row.subj_neg, row.verb_neg, row.obj_neg), strict=True) if flag]
        keep = len(changed) == 1
        images = [f"svo_probes/images/{name}.jpg" for name in (row.pos_image_id, row.neg_image_id)]
        place = ("svo_probes", changed[0] if changed else _PARTS[0], number)
        reason = "" if keep else f"{len(changed)} of subject, verb and object are changed"
        meta = {"pos_triplet": row.pos_triplet, "neg_triplet": row.neg_triplet}
        yield image_choice_question(place, row.sentence, images, right=0, keep=keep, reason=reason, meta=meta)


BENCHMARK = Benchmark(
    **described("svo_probes"),
    parts=parts_of(dict.fromkeys(_PARTS), metrics=(Metric(verdict="image_ok"),)),
    averages=(Average(name="mean3", of=_PARTS), Average(name="micro", of=_PARTS, how="micro")),
    headline={"composition": "mean3"},
    items=items,
    annotations=("svo_probes/svo_probes.csv",),
)
