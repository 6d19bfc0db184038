"""Likelihoods in the report equal those of plain passes, and the share counts likelier captions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from degla.cli import main
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.report.blind import CaptionNegative
from degla.negatives.report.examine import Judge
from degla.records import CaptionRecord, NegativeRecord, write_jsonl
from degla.verbs.negatives_balance import _likelihoods
from tests.negatives.tiny_language_model import CAPTIONS, CONTEXT, write_folder

pytest.importorskip("transformers", reason="the extra degla[embedded] is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge(str(folder))


def plain(judge: Judge, text: str) -> float:
    likelihood = judge._likelihood
    tokens = torch.tensor([[likelihood.start, *likelihood.encode(text)]])
    with torch.inference_mode():
        logits = torch.log_softmax(likelihood.model(input_ids=tokens).logits.float(), dim=-1)
    return float(logits[0, :-1].gather(1, tokens[0, 1:, None]).mean())


def test_scores_are_means_of_plain_passes(judge: Judge) -> None:
    texts = [*CAPTIONS, "A man", CAPTIONS[0], "", "horse " * CONTEXT]
    scores = judge.score(texts)
    assert all(map(math.isnan, scores[-2:]))
    for text, score in zip(texts[:-2], scores[:-2], strict=True):
        assert score == pytest.approx(plain(judge, text), abs=0.02)
    assert math.isnan(*judge.score([""]))


def test_share_of_likelier_captions(judge: Judge) -> None:
    scores = {text: plain(judge, text) for text in CAPTIONS}
    ordered = sorted(CAPTIONS, key=scores.__getitem__)
    pairs = [(ordered[-1], ordered[0])] * 3 + [(ordered[0], ordered[-1])] + [(ordered[1], ordered[1])] * 2
    proportion = judge([CaptionNegative(*pair, str(place)) for place, pair in enumerate(pairs)])
    assert (proportion.count, proportion.n) == (4.0, 6)


def test_balance_compares_no_text_that_the_model_cannot_read_to_its_end(folder: Path) -> None:
    with CaptionIndex([]) as captions:
        (score, _), _ = _likelihoods(str(folder), captions)
    short, long = score(["A man", "horse " * CONTEXT])
    assert short < 0 and math.isnan(long)


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = [
        CaptionRecord(id=str(n), image=f"{n}.jpg", text=text, image_id=str(n)) for n, text in enumerate(CAPTIONS)
    ]
    negatives = [
        NegativeRecord(caption_id=str(n), rule="r", kind="k", text="zz qq " * 9, source="rules", accepted=True)
        for n in range(4)
    ]
    write_jsonl(tmp_path / "c.jsonl", captions)
    write_jsonl(tmp_path / "n.jsonl", negatives)
    words = [str(tmp_path / "n.jsonl"), "--captions", str(tmp_path / "c.jsonl"), "--likelihood", str(folder)]
    out = tmp_path / "page.html"
    assert main(["negatives", "report", *words, "--json", "--out", str(out)]) == 0
    (file,) = json.loads(capsys.readouterr().out)
    assert file["judge"] and file["rules"][0]["caption_likelier"]["n"] == 4
    assert file["judge"] in out.read_text() and "caption likelier than negative" in out.read_text()
    assert main(["negatives", "report", *words[:-1], str(tmp_path / "none.gguf")]) == 2
