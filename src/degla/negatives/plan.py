"""Plan a run before anything is sent: its requests, tokens, cost and time, estimated from a sample of the captions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from rich.console import Group

from degla.allowance import usable_cores
from degla.negatives.checks import check_caption
from degla.negatives.generate import ModelSource, NegativesSettings, manifest, prepare_model, process_count
from degla.negatives.grammar.phrases import parse
from degla.negatives.llm import Form, LanguageModel, Request
from degla.negatives.llm.dialect import messages
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.run.dialogue import Maker
from degla.negatives.run.output import count_finished, count_replies
from degla.negatives.run.pipeline import Pipeline, TaggedTask, make_rows, tag
from degla.negatives.run.stream import BATCH, CaptionBatch, Captions, CaptionStream
from degla.pages.table import Table
from degla.pages.words import counted, duration
from degla.remote import address_of
from degla.stopping import Interruption, StoppedError

_BATCHES: Final = 4
"""Batches in the sample, at equal distances."""
_MEASURED: Final = 4
"""Captions for which a model in this process is really asked, to measure its time."""
_CHARACTERS: Final = 4
"""Characters per token of English text, roughly the same for all tokenizers of language models in use."""
_TURN_TOKENS: Final = 4
"""Tokens of a chat template around a turn."""
_RATES: Final = (10, 100, 1000)
"""Answers per second for which a server's time is given."""


@dataclass(frozen=True)
class Volume:
    """Requests and tokens of a run.

    Attributes:
        requests: by rule.
        prompt_tokens: read by the model, repeated prefixes included.
        answer_tokens: written by the model, without thinking.
    """

    requests: Mapping[str, int]
    prompt_tokens: int
    answer_tokens: int

    @property
    def total(self) -> int:
        """Requests of all rules."""
        return sum(self.requests.values())

    def cost(self, prices: tuple[float, float]) -> float:
        """Cost at prices per million tokens, read and written."""
        return (self.prompt_tokens * prices[0] + self.answer_tokens * prices[1]) / 1e6


@dataclass(frozen=True)
class NegativesPlan:
    """What a run over captions would take; retries and thinking are not included.

    Attributes:
        captions: total number of captions.
        finished: leading captions that an earlier run has finished; all other numbers are about the rest.
        replies: an earlier run's replies about the rest, whose requests are not repeated and not counted.
        sampled: captions from which the rest was estimated.
        skipped: those of the sampled captions that no rule can use, by reason.
        least: if every written answer is accepted; None without a language model.
        most: if none is, so that the model chooses among candidates too; None without a language model.
        grammar_seconds: processor time of tagging, candidates and checks for all captions, on this machine.
        processes: number of processes that share this time at once; with a model only on a Ray cluster.
        model_seconds: time of a model that runs in each process, for the requests of `most`; None for a server's.
        measured: captions on which that was measured.
        prices: per million tokens read and written; None if unknown.
    """

    captions: int
    finished: int
    replies: int
    sampled: int
    skipped: Mapping[str, int]
    least: Volume | None
    most: Volume | None
    grammar_seconds: float
    processes: int = 1
    model_seconds: float | None = None
    measured: int = 0
    prices: tuple[float, float] | None = None

    def plain(self) -> dict[str, object]:
        """Return the estimates as JSON values."""
        bounds = {name: each for name, each in (("least", self.least), ("most", self.most)) if each is not None}
        return {
            "captions": self.captions,
            "finished": self.finished,
            "replies": self.replies,
            "sampled": self.sampled,
            "skipped": dict(self.skipped),
            **{
                name: {
                    "requests": each.total,
                    "requests_by_rule": dict(each.requests),
                    "prompt_tokens": each.prompt_tokens,
                    "answer_tokens": each.answer_tokens,
                    "cost": None if self.prices is None else each.cost(self.prices),
                }
                for name, each in bounds.items()
            },
            "grammar_seconds": self.grammar_seconds,
            "processes": self.processes,
            "model_seconds": self.model_seconds,
        }

    def render(self) -> Group:
        """Return a table for a terminal with one line per rule, then tokens, cost and time."""
        rest = f" ({self.finished:,} are finished; the estimates are for the others)" if self.finished else ""
        if self.finished == self.captions:
            rest = ", all of them finished"
        if self.replies:
            rest += f", {counted(self.replies, 'reply is', 'replies are')} there and not requested again"
        lines = [
            f"{counted(self.captions, 'caption')}{rest}; estimated from {self.sampled:,} of them, nothing was sent or "
            "written"
        ]
        if self.skipped:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.skipped.items()))
            lines.append(f"skipped, of these {self.sampled:,}: {reasons}")
        shared = f"in {counted(self.processes, 'process', 'processes')} (--workers)"
        grammar = f"grammar and checks: {duration(self.grammar_seconds)} of processor time"
        if self.processes > 1 or self.least is None:
            grammar += f", {duration(self.grammar_seconds / self.processes)} {shared}"
        if self.least is None or self.most is None:
            return Group(*lines, grammar)
        bounds = [self.least] if self.least == self.most else [self.least, self.most]
        rows = [[rule, *(f"{each.requests[rule]:,}" for each in bounds)] for rule in self.most.requests]
        rows.append(["all", *(f"{each.total:,}" for each in bounds)])
        columns = ["rule", *(("at least", "at most") if len(bounds) > 1 else ("requests",))]
        table = Table(columns, rows).terminal(title="Requests to the language model")
        if len(bounds) > 1:
            lines.append("at least: every written answer is accepted; at most: none is, and the model chooses, too")
        prompts, answers = [each.prompt_tokens for each in bounds], [each.answer_tokens for each in bounds]
        lines.append(
            f"tokens, at {_CHARACTERS} characters each: {_range(prompts, _millions)} million read (repeated prefixes "
            f"included), {_range(answers, _millions)} million written (without thinking)"
        )
        if self.prices is not None:
            cost = _range([each.cost(self.prices) for each in bounds], "{:,.2f}".format)
            lines.append(f"cost: {cost} at {self.prices[0]:g} and {self.prices[1]:g} per million tokens")
        if self.model_seconds is None:
            times = (
                f"{_range([each.total / rate for each in bounds], duration)} at {rate:,} requests/s" for rate in _RATES
            )
            lines.append(f"time: {', '.join(times)}; retries come on top")
        else:
            captions = counted(self.measured, "caption")
            spread = f" {shared}" if self.processes > 1 else ""
            lines.append(f"time of the model: {duration(self.model_seconds)}{spread}, measured on {captions}")
        return Group(table, *lines, grammar)


def plan_negatives(
    captions: Captions,
    settings: NegativesSettings,
    *,
    model: ModelSource | None = None,
    in_process: bool = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = 1,
    prices: tuple[float, float] | None = None,
    out: Path | None = None,
) -> NegativesPlan:
    """Estimate what `generate` with these arguments would take, from a sample of the captions.

    Nothing is written, and nothing is sent to a server.

    Args:
        captions: as in `generate`; all are read, and checked for repeated ids.
        settings: as in `generate`.
        model: as in `generate`.
        in_process: the model runs in this process: it is asked about a few captions, to measure its time.
        engine: as in `generate`; on this machine a model is asked from one process.
        workers: as in `generate`; as many as cores count, if they are on this machine.
        prices: per million tokens read and written.
        out: as in `generate`: the run would continue there. Not looked at if it is an address.

    Raises:
        InputError: as `generate`.
    """
    stream = CaptionStream(captions, count_usage=settings.words == "captions", progress=True)
    rules = tuple(settings.rules)
    processes = process_count(workers, len(stream), grammar_only=model is None)
    if engine == "local":
        processes = min(processes, usable_cores()) if model is None and len(stream) > BATCH else 1
    with ExitStack() as stack:
        llm, prompts, description = prepare_model(model, settings, stack)
        finished, replies = 0, Counter[tuple[str, Form]]()
        if out is not None and address_of(out) is None:
            entries = manifest(stream, settings, description)
            finished = count_finished(out, entries, stream, rules)
            replies = count_replies(out, stream.ids[finished:])
        maker = Maker(rules, settings.seed, settings.per_rule, prompts, stream.usage)
        batches = list(_sample(stream))
        size = sum(len(batch.tasks) for batch in batches)
        scale = (len(stream) - finished) / size if size else 0.0
        skipped = Counter(filter(None, (check_caption(task.text).reason for batch in batches for task in batch.tasks)))
        parse(["A dog runs."])  # Loading the tagger is no part of a caption's time.
        started = time.process_time()
        if llm is None:
            for batch in batches:
                make_rows(batch, maker)
            grammar = scale * (time.process_time() - started)
            return NegativesPlan(len(stream), finished, 0, size, skipped, None, None, grammar, processes)
        tagged = [tag(batch) for batch in batches]
        requests = _requests(maker, tagged)
        grammar = scale * (time.process_time() - started)
        by_rule = Counter[str]()
        for (rule, _), count in replies.items():
            by_rule[rule] += count
        most = least = _volume(requests, rules, scale, by_rule)
        if prompts is not None and prompts.forms[0] == "write":
            written = Counter({rule: count for (rule, form), count in replies.items() if form == "write"})
            least = _volume([each for each in requests if each.draw == 0], rules, scale * settings.per_rule, written)
        seconds, few = None, list[TaggedTask]()
        if in_process and tagged:
            few = [task for task in tagged[0] if task.caption is not None][:_MEASURED]
            measured = len(_requests(maker, [few]))
            start = time.monotonic()
            _run(llm, maker, [few])
            seconds = (time.monotonic() - start) * most.total / max(measured, 1) / processes
        return NegativesPlan(
            len(stream), finished, replies.total(), size, skipped, least, most, grammar, processes, seconds, len(few),
            prices,
        )  # fmt: skip


def _sample(stream: CaptionStream) -> Iterator[CaptionBatch]:
    """Yield a few whole batches at equal distances."""
    count = -(-len(stream) // BATCH)
    numbers = {(2 * place + 1) * count // (2 * _BATCHES) for place in range(_BATCHES)}
    for number, batch in enumerate(stream.batches()):
        if number in numbers:
            yield batch


def _run(model: LanguageModel, maker: Maker, tagged: list[list[TaggedTask]]) -> None:
    """Conduct the dialogues about some captions, and keep nothing."""
    with Interruption(model.wait_no_longer) as stop:
        for _ in Pipeline(model, maker, lambda _: None, lambda _: None, stop).run(iter(tagged)):
            pass
    if stop.name is not None:
        raise StoppedError(stop.name, ".")


class _RequestSize(NamedTuple):
    """A request: its rule, its number for the caption and rule, and about how many tokens are read and written."""

    rule: str
    draw: int
    prompt_tokens: int
    answer_tokens: int


def _requests(maker: Maker, tagged: list[list[TaggedTask]]) -> list[_RequestSize]:
    """Return the requests to a model that writes nothing and takes the first choice, which needs the most requests."""
    sizes: list[_RequestSize] = []

    def note(request: Request) -> None:
        turns = messages(request, mode="plain")
        prompt_tokens = sum(_tokens(turn["content"]) for turn in turns)
        answer = request.choices[0] if request.choices else request.caption
        sizes.append(_RequestSize(request.key.rule, request.key.draw, prompt_tokens, _tokens(answer)))

    _run(ScriptedModel(note, capacity=BATCH), maker, tagged)
    return sizes


def _tokens(turn: str) -> int:
    return len(turn) // _CHARACTERS + _TURN_TOKENS


def _volume(
    requests: Sequence[_RequestSize], rules: tuple[str, ...], scale: float, replies: Mapping[str, int]
) -> Volume:
    """Return the requests and their tokens, times `scale`, without those that have replies already."""
    by_rule = Counter(each.rule for each in requests)
    left = {rule: max(scale * count - replies.get(rule, 0), 0.0) / count for rule, count in by_rule.items()}
    return Volume(
        {rule: round(left.get(rule, 0) * by_rule[rule]) for rule in rules},
        round(sum(left[each.rule] * each.prompt_tokens for each in requests)),
        round(sum(left[each.rule] * each.answer_tokens for each in requests)),
    )


def _range(values: Sequence[float], show: Callable[[float], str]) -> str:
    return " to ".join(dict.fromkeys(map(show, values)))


def _millions(tokens: float) -> str:
    if tokens >= 1e6:
        return f"{tokens / 1e6:,.1f}"
    return np.format_float_positional(tokens / 1e6, precision=2, fractional=False, trim="-")
