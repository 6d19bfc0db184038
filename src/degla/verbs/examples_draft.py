"""draft in-context examples of a rule from your captions, by the grammar or a language model"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from degla.errors import DeglaError
from degla.files import require_writable
from degla.pages.words import counted
from degla.remote import in_addresses
from degla.shelf import RULES
from degla.verbs._arguments import (
    captions_of,
    describe_columns,
    describe_model,
    model_source,
    require_jsonl,
    require_least,
)
from degla.verbs._terminal import show


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--rule", required=True, help="rule name, see degla ls rules")
    captions = "captions in any format that degla negatives reads"
    verb.add_argument("--captions", type=Path, required=True, metavar="FILE", help=captions)
    out = "JSONL file of drafts; run the same command again to resume"
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help=out)
    verb.add_argument("--count", type=int, default=60, metavar="N", help="captions to make drafts from (60)")
    verb.add_argument("--seed", type=int, default=0, help="seed for sampling captions and examples (0)")
    describe_columns(verb)
    describe_model(verb)


def run(arguments: argparse.Namespace) -> int:
    from degla.negatives.generate import NegativesSettings
    from degla.negatives.review import draft_examples
    from degla.stopping import status_of_signal

    RULES.require(arguments.rule)  # Positives have no examples.
    require_least(arguments, "count", least=1)
    model = model_source(arguments)
    require_jsonl(arguments.out, arguments.captions)
    require_writable(arguments.out)
    embedded = arguments.llm == "embedded"
    settings = NegativesSettings(
        (arguments.rule,),
        arguments.seed,
        # A small model that writes freely copies the caption; a large one only writes, and never chooses.
        form="both" if embedded else "write",
        examples=arguments.examples,
        example_sets=int(embedded),
        examples_folder=arguments.examples_folder,
    )
    captions = captions_of(arguments)
    drafts, summary = draft_examples(captions, settings, model=model, out=arguments.out, count=arguments.count)
    show(summary.render())
    if not drafts and not summary.stopped:
        raise DeglaError(
            "no drafts were made, for the reasons above. Fix them, then run the same command again to resume."
        )
    if drafts:
        out = in_addresses(str(arguments.out))
        sys.stdout.write(f"{counted(drafts, 'draft')} in {out}. Select from them with degla examples review.\n")
    return status_of_signal(summary.stopped) or int(summary.unanswered > 0)
