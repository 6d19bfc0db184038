"""select negatives that cannot be told apart from captions by text only"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import InputError
from degla.files import require_writable, sha256_of
from degla.verbs._arguments import (
    caption_index,
    describe_columns,
    describe_likelihood,
    describe_negatives,
    require_files,
    require_jsonl,
    require_least,
)
from degla.verbs._terminal import answer, show, tell

if TYPE_CHECKING:
    from degla.negatives.files.caption_index import CaptionIndex
    from degla.negatives.report.blind import Likelihoods


def describe(verb: argparse.ArgumentParser) -> None:
    describe_negatives(verb, file="negatives, several per rule and caption (degla negatives --per-rule 6)")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write")
    verb.add_argument("--per-rule", type=int, default=1, metavar="N", help="negatives per caption and rule (1)")
    accuracy = "highest accuracy of text-only classifiers on a rule's pairs when choosing its coverage (0.57)"
    verb.add_argument("--text-only", type=float, default=0.57, metavar="SHARE", help=accuracy)
    of_rule = "accuracy above which a rule is dropped, as is a rule with too few pairs to test; 1 keeps all (0.65)"
    verb.add_argument("--text-only-rule", type=float, default=0.65, metavar="SHARE", help=of_rule)
    describe_likelihood(
        verb,
        "--likelihood",
        "compute likelihoods with the embedded language model, or a GGUF, folder or hub id; without this flag, with "
        "n-grams of the captions, 100 times as fast",
    )
    verb.add_argument("--seed", type=int, default=0, help="seed of all draws (0)")
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(arguments: argparse.Namespace) -> int:
    from degla.data.prepared import fetched
    from degla.data.sources import read_negatives
    from degla.negatives.balance.balance import Balancer
    from degla.negatives.balance.outcome import BalanceSettings, describe, render
    from degla.negatives.files.pack import read_manifest
    from degla.negatives.run.output import write_manifest
    from degla.records import only_negatives

    require_least(arguments, "per_rule", least=1)
    require_jsonl(arguments.out, arguments.file, arguments.captions)
    require_files(arguments.file, arguments.captions)
    require_writable(arguments.out)
    settings = BalanceSettings(arguments.seed, arguments.per_rule, arguments.text_only, arguments.text_only_rule)
    with caption_index(arguments) as captions:
        likelihoods, name = _likelihoods(arguments.likelihood, captions)
        remedy = f"Give a file of negatives, not {arguments.file}."
        balancer = Balancer(
            lambda: only_negatives(read_negatives(arguments.file), remedy=remedy), captions, settings, likelihoods
        )
        if complaint := balancer.report.complaint(settings):
            raise InputError(f"{arguments.file}: {complaint}")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        balancer.write(arguments.out)
    source = {"file": arguments.file.name, "sha256": sha256_of(fetched(arguments.file))}
    entry = {"balanced": describe(settings, source, name, balancer.report)}
    write_manifest(arguments.out, {**(read_manifest(arguments.file) or {}), **entry})
    answer(arguments, balancer.report.plain, lambda: show(render(balancer.report)))
    tell(f"written: {arguments.out}")
    return 0


def _likelihoods(model: str | None, captions: CaptionIndex) -> tuple[Sequence[Likelihoods], str]:
    """Return likelihood functions for the two halves of the images, and the name of what computes them."""
    from degla.negatives.report.blind import ngram_likelihoods
    from degla.negatives.report.examine import Judge

    if model is None:
        return ngram_likelihoods(captions), "n-grams"
    judge = Judge(model)
    return (judge.score, judge.score), judge.name
