"""generate hard negative captions"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from math import inf
from pathlib import Path

from degla.errors import InputError
from degla.pages.words import counted
from degla.shelf import BALANCED_RULES, POSITIVES, RULES, Shelf
from degla.verbs._arguments import (
    captions_of,
    count_or_auto,
    describe_captions,
    describe_columns,
    describe_model,
    model_source,
    require_jsonl,
    require_least,
)
from degla.verbs._terminal import answer, show


def describe(verb: argparse.ArgumentParser) -> None:
    describe_captions(verb)
    out = "JSONL file to write; an existing one is resumed"
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help=out)
    verb.add_argument(
        "--rules",
        nargs="+",
        metavar="RULE",
        help="rule names, see degla ls rules, or all (those that degla negatives balance can keep: "
        f"{' '.join(BALANCED_RULES)})",
    )
    positives = "generate positives (altered but true texts) with the rules of degla ls positives, instead of negatives"
    verb.add_argument("--positives", action="store_true", help=positives)
    verb.add_argument("--per-rule", type=int, default=1, metavar="N", help="negatives per caption and rule (1)")
    words = "sample inserted words by their frequency in these captions, or uniformly from the lists (captions)"
    verb.add_argument("--words", choices=["captions", "lexicon"], default="captions", help=words)
    verb.add_argument("--seed", type=int, default=0, help="seed of all random choices (0)")
    workers = "processes, or auto: one per CPU for many captions without a language model, else 1 (auto)"
    verb.add_argument("--workers", type=count_or_auto, metavar="N", help=workers)
    where = "this machine, or a Ray cluster (local)"
    verb.add_argument("--engine", choices=["local", "ray"], default="local", help=where)
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")
    dry = "estimate requests, tokens, cost and time from a sample of the captions; send and write nothing"
    verb.add_argument("--dry-run", action="store_true", help=dry)
    price = "with --dry-run: prices of a million tokens, read and written"
    verb.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), help=price)
    describe_model(verb)
    form = "what the model may do: write negatives, choose among candidates, or both (both)"
    verb.add_argument("--form", choices=["write", "choose", "both"], help=form)
    sets = "fixed example sets per rule, for prefix caching; 0 samples examples for each request (0; embedded: 1)"
    verb.add_argument("--example-sets", type=int, metavar="N", help=sets)


def _rules(named: Sequence[str] | None, shelf: Shelf) -> Sequence[str]:
    """Return the named rules; by default all for positives, and those that balance can keep for negatives."""
    if named == ["all"] or (named is None and shelf is POSITIVES):
        return shelf.names()
    other, what = (RULES, "negatives: omit") if shelf is POSITIVES else (POSITIVES, "positives: add")
    for name in named or ():
        if name in other.names() and name not in shelf.names():
            raise InputError(f"--rules {name}: makes {what} --positives.")
        shelf.require(name)
    return named or BALANCED_RULES


def run(arguments: argparse.Namespace) -> int:
    from degla.negatives.generate import NegativesSettings, generate
    from degla.stopping import status_of_signal

    require_least(arguments, "workers", "per_rule", least=1)
    require_least(arguments, "example_sets", least=0)
    if arguments.price is not None and (arguments.llm != "openai" or not arguments.dry_run):
        raise InputError("--price requires --llm openai and --dry-run.")
    if arguments.price is not None and not all(0 <= price < inf for price in arguments.price):
        raise InputError(f"--price: prices must be 0 or more, not {arguments.price[0]:g} and {arguments.price[1]:g}.")
    model = model_source(arguments)
    require_jsonl(arguments.out, arguments.captions)
    sets = arguments.example_sets if arguments.example_sets is not None else int(arguments.llm == "embedded")
    settings = NegativesSettings(
        rules=_rules(arguments.rules, POSITIVES if arguments.positives else RULES),
        seed=arguments.seed,
        per_rule=arguments.per_rule,
        form=arguments.form or "both",
        examples=arguments.examples,
        example_sets=sets,
        examples_folder=arguments.examples_folder,
        words=arguments.words,
    )
    captions = partial(captions_of, arguments)
    if arguments.dry_run:
        from degla.negatives.plan import plan_negatives

        prices = None if arguments.price is None else (arguments.price[0], arguments.price[1])
        plan = plan_negatives(
            captions,
            settings,
            model=model,
            in_process=arguments.llm == "embedded",
            engine=arguments.engine,
            workers=arguments.workers,
            prices=prices,
            out=arguments.out,
        )
        answer(arguments, plan.plain, lambda: show(plan.render()))
        return 0
    summary = generate(
        captions, settings, out=arguments.out, model=model, engine=arguments.engine, workers=arguments.workers
    )
    answer(arguments, summary.plain, lambda: show(summary.render()))
    if summary.captions and summary.skipped.total() == summary.captions:
        named = {reason: ", ".join(ids) for reason, ids in summary.skipped_ids.items()}
        reasons = "; ".join(f"{reason} {count}: {named[reason]}" for reason, count in summary.skipped.items())
        raise InputError(
            f"{arguments.captions}: none of its {counted(summary.captions, 'caption')} can be used ({reasons}). "
            "Captions must be English, 1 to 80 words long; --text-column names their field."
        )
    return status_of_signal(summary.stopped) or int(summary.unanswered > 0)
