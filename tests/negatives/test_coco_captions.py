"""Coverage and cleanliness on real captions, if `../shared/data` is available."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.grammar import words
from degla.records import CaptionRecord, NegativeRecord, read_jsonl
from degla.shelf import PUBLISHED_RULES

ANNOTATIONS = Path(__file__).parents[3] / "shared/data/coco/annotations/captions_val2017.json"
FURTHER = ("replace_relation", "swap_phrases", "add_object", "add_attribute", "negation", "change_number")


@pytest.mark.skipif(not ANNOTATIONS.is_file(), reason="no captions in ../shared/data")
def test_coverage_and_cleanliness(tmp_path: Path) -> None:
    captions = [
        CaptionRecord(
            id=str(row["id"]), image=f"{row['image_id']:012}.jpg", text=row["caption"], image_id=str(row["image_id"])
        )
        for row in json.loads(ANNOTATIONS.read_text(encoding="utf-8"))["annotations"]
    ]
    out = tmp_path / "negatives.jsonl"
    summary = generate(captions, NegativesSettings((*PUBLISHED_RULES, *FURTHER), 0), out=out, progress=False)
    assert len(captions) == 425
    assert not summary.skipped
    assert summary.share_covered >= 0.99
    assert summary.mean >= 5.9
    covered = {rule: summary.covered[rule] / len(captions) for rule in (*PUBLISHED_RULES, *FURTHER)}
    assert covered["reshuffle_order"] >= 0.31
    assert covered["swap_nouns"] >= 0.21
    assert covered["swap_adjectives"] >= 0.01
    assert covered["replace_adjectives"] >= 0.3
    assert covered["replace_nouns"] >= 0.94
    assert sum(covered[rule] for rule in PUBLISHED_RULES) >= 1.83
    assert covered["replace_relation"] >= 0.6
    assert covered["swap_phrases"] >= 0.03
    assert covered["add_object"] >= 0.7
    assert covered["add_attribute"] >= 0.9
    assert covered["negation"] >= 0.85
    assert covered["change_number"] >= 0.75
    texts = {caption.id: caption.text for caption in captions}
    for row in read_jsonl(NegativeRecord, out):
        if row.accepted:
            assert row.text
            assert words.articles_fit(row.text)
            assert words.content(row.text) != words.content(texts[row.caption_id])
            assert row.text[0].isupper() == texts[row.caption_id].strip()[0].isupper()
