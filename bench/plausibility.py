"""Plausibility and diversity of negatives under a judge model, limits of `implausible`, speed of the embedded model.

    python bench/plausibility.py limits
    python bench/plausibility.py judge CAPTIONS --negatives rules=FILE embedded=FILE --sugarcrepe DIR --judge MODEL
    python bench/plausibility.py temperature CAPTIONS --rules swap_nouns replace_nouns
    python bench/plausibility.py speed CAPTIONS

A perplexity ratio is exp of the mean drop per token: 1 is as likely as the caption, 2 half as likely per token.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

from degla.cli import exit_status_of
from degla.data.sources import read_captions, read_negatives
from degla.negatives.checks import largest_drop
from degla.negatives.examples import load_examples
from degla.negatives.grammar.phrases import parse
from degla.negatives.llm import Reply, Request
from degla.negatives.llm.embedded import EmbeddedModel, Ranked, _draw
from degla.negatives.llm.likelihood import Likelihood, open_likelihood
from degla.negatives.rule import MOST_CANDIDATES, load_rule
from degla.shelf import RULES
from degla.verbs._arguments import at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    limits = actions.add_parser("limits")
    limits.set_defaults(run=show_limits)
    judge = actions.add_parser("judge")
    judge.add_argument("captions", type=Path)
    judge.add_argument("--negatives", nargs="*", default=[], metavar="NAME=FILE")
    judge.add_argument("--sugarcrepe", type=Path, help="folder with its seven files")
    judge.add_argument("--pairs", type=at_least(1), default=200, help="pairs sampled per rule or SugarCrepe file (200)")
    judge.add_argument("--judge", help="GGUF file, folder or hub id (default: the embedded model)")
    judge.set_defaults(run=show_judged)
    for name, run in (("temperature", show_temperature), ("speed", show_speed)):
        action = actions.add_parser(name)
        action.add_argument("captions", type=Path)
        action.add_argument("--rules", nargs="+", default=None)
        action.add_argument("--count", type=at_least(1), default=40, help="captions (40)")
        action.set_defaults(run=run)
    given = parser.parse_args()
    given.run(given)


def show_limits(given: argparse.Namespace) -> None:
    """Print quantiles of the drop of shipped examples, and the share of grammar candidates within the limit."""
    import torch

    torch.set_num_threads(1)
    likelihood, name = open_likelihood()
    print(f"{name}\n{'rule':<20} {'n':>3} {'50 %':>6} {'90 %':>6} {'95 %':>6} {'limit':>6}  candidates that pass")
    for rule in RULES.names():
        examples = load_examples(rule)
        written, grammar = [], []
        for example, caption in zip(examples, parse([one.caption for one in examples]), strict=True):
            candidates = load_rule(rule).propose(caption, Random(0), MOST_CANDIDATES)
            first, *others = likelihood.drops(example.caption, [example.negative, *candidates])
            written.append(first)
            grammar += others
        quantiles = " ".join(f"{np.quantile(written, share):6.2f}" for share in (0.5, 0.9, 0.95))
        limit = largest_drop(rule)
        passed = np.mean(np.array(grammar) <= limit)
        print(f"{rule:<20} {len(written):>3} {quantiles} {limit:6.2f}  {passed:.0%} of {len(grammar)}")


def show_judged(given: argparse.Namespace) -> None:
    """Print coverage, perplexity ratio and diversity of negatives files, and of SugarCrepe's negatives."""
    import torch

    torch.set_num_threads(1)
    likelihood, name = open_likelihood(given.judge)
    captions = {record.id: record.text for record in read_captions(given.captions)}
    print(f"judge {name}\n{'':<32} {'covered':>8} {'accepted':>8} {'ratio':>6} {'median':>6} {'words':>6} {'bits':>5}")
    for entry in given.negatives:
        label, _, file = entry.partition("=")
        rows = list(read_negatives(Path(file)))
        for rule in dict.fromkeys(row.rule for row in rows):
            mine = [row for row in rows if row.rule == rule]
            kept = [
                (captions[row.caption_id], row.text)
                for row in mine
                if row.accepted and row.text and row.caption_id in captions
            ]
            proposed = sum(row.text is not None for row in mine)
            covered = len({row.caption_id for row in mine if row.accepted}) / len(captions)
            accepted = len(kept) / max(proposed, 1)
            judged = _judged(likelihood, kept, given.pairs)
            print(f"{label + ' ' + rule:<32} {covered:8.0%} {accepted:8.0%} {judged}", flush=True)
    if given.sugarcrepe:
        for file in sorted(given.sugarcrepe.glob("*.json")):
            items = list(json.loads(file.read_text(encoding="utf-8")).values())
            pairs = [(item["caption"], item["negative_caption"]) for item in items]
            judged = _judged(likelihood, pairs, given.pairs)
            print(f"{'SugarCrepe ' + file.stem:<32} {'':>8} {'':>8} {judged}", flush=True)


def _judged(likelihood: Likelihood, pairs: Sequence[tuple[str, str]], most: int) -> str:
    if not pairs:
        return "-"
    drawn = Random(0).sample(pairs, min(most, len(pairs)))
    drops = [likelihood.drops(caption, [negative])[0] for caption, negative in drawn]
    words = Counter(word for pair in pairs for word in _new_words(*pair))
    return f"{math.exp(np.mean(drops)):6.2f} {math.exp(np.median(drops)):6.2f} {len(words):>6} {_bits(words):5.2f}"


def _new_words(caption: str, negative: str) -> Iterable[str]:
    """Words of a negative that its caption does not have."""
    return (Counter(negative.lower().strip(".").split()) - Counter(caption.lower().strip(".").split())).elements()


def _bits(words: Counter[str]) -> float:
    shares = np.array(list(words.values())) / max(words.total(), 1)
    return float((shares * np.log2(1 / shares)).sum())


class Recorder(EmbeddedModel):
    """Record every ranked list of choices."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[Request, list[Ranked]] = {}

    def rank(self, request: Request) -> list[Ranked]:
        found = super().rank(request)
        self.lists[replace(request, chat=())] = found
        return found


def show_temperature(given: argparse.Namespace) -> None:
    """Print how the sampling temperature trades likelihood for diversity of words."""
    from degla.negatives.generate import NegativesSettings, generate

    model = Recorder()
    captions = list(read_captions(given.captions))[: given.count]
    with TemporaryDirectory() as folder:
        generate(
            lambda: iter(captions),
            NegativesSettings(given.rules or RULES.names(), 0, example_sets=1),
            out=Path(folder) / "negatives.jsonl",
            progress=False,
            model=lambda: model,
        )
    print(
        f"{'temperature':<12} {'likelihood':>10} {'ratio':>6} {'words':>6} {'bits':>5}  (ratio under the ranker itself)"
    )
    for temperature in (0.0, 0.05, 0.1, 0.2, 0.4, 1e9):
        words: Counter[str] = Counter()
        scores, drops = [], []
        for number, (request, ranked) in enumerate(model.lists.items()):
            plausible = [one for one in ranked if one.drop <= largest_drop(request.key.rule)]
            if not plausible:
                continue
            chosen = _draw(plausible, temperature, Random(number))
            scores.append(chosen.likelihood)
            drops.append(chosen.drop)
            words.update(_new_words(request.caption, chosen.text))
        ratio = math.exp(np.mean(drops))
        print(f"{temperature:<12g} {np.mean(scores):10.3f} {ratio:6.2f} {len(words):>6} {_bits(words):5.2f}")


class Stopwatch(EmbeddedModel):
    """Count processor seconds by rule and form."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[tuple[str, str]] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()

    def _answer(self, request: Request) -> Reply:
        started = time.process_time()
        reply = super()._answer(request)
        self.seconds[request.key.rule, request.form] += time.process_time() - started
        self.requests[request.key.rule, request.form] += 1
        return reply


def show_speed(given: argparse.Namespace) -> None:
    """Print load time, memory, and requests per processor second on one thread."""
    from degla.negatives.generate import NegativesSettings, generate

    started = time.process_time()
    model = Stopwatch()
    print(f"loaded in {time.process_time() - started:.1f} processor seconds, peak {_memory():.2f} GB")
    print(json.dumps(model.describe()))
    captions = list(read_captions(given.captions))[: given.count]
    with TemporaryDirectory() as folder:
        started = time.process_time()
        generate(
            lambda: iter(captions),
            NegativesSettings(given.rules or RULES.names(), 0, example_sets=1),
            out=Path(folder) / "negatives.jsonl",
            progress=False,
            model=lambda: model,
        )
        whole = time.process_time() - started
    for rule, form in sorted(model.requests):
        count, seconds = model.requests[rule, form], model.seconds[rule, form]
        print(f"{rule:<20} {form:<7} {count:>4} requests, {count / seconds:5.1f} per processor second")
    print(f"{len(captions) / whole:.2f} captions per processor second; peak {_memory():.2f} GB")


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
