"""Makes negatives of captions and appends them, accepted or refused, to a file that can be continued.

Every (caption, rule) has at least one row. Rows depend on the seed, the captions, the rules and the language model's
replies: not on the number of processes, the order of replies, nor on how often the run was stopped and continued.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from degla.allowance import usable_cores
from degla.errors import DeglaError, InputError
from degla.negatives.examples import examples_digest
from degla.negatives.llm import LanguageModel
from degla.negatives.rule import load_rule
from degla.negatives.run.dialogue import FormChoice, Maker, Prompts, load_all_examples, prompt_digests, usable_forms
from degla.negatives.run.output import Journal, Output, continue_output, journal_path, manifest
from degla.negatives.run.pipeline import FinishedRows, Pipeline, make_rows, spread, tag
from degla.negatives.run.stream import BATCH, Captions, CaptionStream
from degla.negatives.run.summary import Summary
from degla.pages.words import counted
from degla.progress import TaskProgress
from degla.ray import Engine
from degla.records import POSITIVE
from degla.stopping import Interruption, leave_signals

LOG = logging.getLogger(__name__)

WordSource = Literal["captions", "lexicon"]
_SPREAD = 8 * BATCH
"""Captions from which further processes are worth the seconds in which each starts."""
ModelSource = LanguageModel | Callable[[], LanguageModel]
"""A language model, or a function that opens one: the Ray engine calls it once in every worker."""


@dataclass(frozen=True)
class NegativesSettings:
    """What decides the rows of a file, with the captions and the language model.

    Attributes:
        rules: names of members of the shelf `negatives/rules`, in the order of the rows.
        seed: any whole number; with the caption's id and the rule's name it decides every draw.
        per_rule: accepted negatives of one rule for one caption, at most.
        form: whether the model may write freely, only choose among what the grammar finds, or both: then what it
            writes is judged, and where it is refused the model chooses.
        examples: examples a request.
        example_sets: fixed draws of examples a rule, of which the caption's id picks one; 0: drawn anew for every
            request, as the paper does.
        examples_folder: the user's own examples instead of the package's.
        words: what decides how often the grammar puts in each word of its lists: "captions", how these captions use
            them; "lexicon", all of a list alike.

    Raises:
        InputError: a value is out of range, no rule is named, one is named twice or is unknown.
    """

    rules: Sequence[str]
    seed: int
    per_rule: int = 1
    form: FormChoice = "both"
    examples: int = 5
    example_sets: int = 0
    examples_folder: Path | None = None
    words: WordSource = "lexicon"

    def __post_init__(self) -> None:
        if self.per_rule < 1:
            raise InputError(f"per_rule ({self.per_rule}) must be 1 or more.")
        if self.examples < 0 or self.example_sets < 0:
            raise InputError(f"examples ({self.examples}) and example_sets ({self.example_sets}) must be 0 or more.")
        if not self.rules or len(set(self.rules)) != len(self.rules):
            raise InputError(f"rules must be named, each once; got {', '.join(self.rules) or 'none'}.")
        if len({load_rule(name).kind == POSITIVE for name in self.rules}) > 1:
            raise InputError(
                "rules for negatives and rules for positives do not go into one file: "
                f"{', '.join(name for name in self.rules if load_rule(name).kind == POSITIVE)} make true texts."
            )


def generate(
    captions: Captions,
    settings: NegativesSettings,
    *,
    out: Path,
    model: ModelSource | None = None,
    engine: Engine = "local",
    workers: int | None = 1,
    progress: bool = True,
) -> Summary:
    """Make negatives of captions and append them to a JSONL file of `NegativeRecord`.

    Args:
        captions: the captions; ids must be unique. A function that begins to read them anew, or a sequence, is read
            twice and never held in memory; 24 bytes a caption are. An iterator is read into memory.
        settings: what decides the rows.
        out: the file; ``<out>.manifest.json`` beside it says what it was made with, ``<out>.replies.jsonl`` holds
            the replies of the language model. If they exist the run goes on where it stopped.
        model: a language model, closed at the end; None for the grammar alone.
        engine: "local", or "ray" for a cluster; `model` must be a function then.
        workers: processes (with a model: that tag captions; with Ray: that each open a model); the rows are the same
            for any number. None: one a processor where there is no model, and there are captions enough.
        progress: whether to show a progress bar (on a terminal) or log lines.

    Returns:
        The counts of the whole file. `Summary.stopped` names the signal (Ctrl-C, SIGTERM) that ended the run early.

    Raises:
        InputError: a caption id that comes twice, a file made with other settings or captions, or the tagger is not
            installed.
        DeglaError: the model cannot be reached, or the disk is full; the same call goes on later.
    """
    if engine == "ray" and isinstance(model, LanguageModel):
        raise InputError("engine 'ray' opens a model in every worker: give a function that opens one.")
    started = time.monotonic()
    stream = CaptionStream(captions, count_usage=settings.words == "captions")
    workers = _processes(workers, many=model is None and len(stream) >= _SPREAD)
    rules = tuple(settings.rules)
    summary = Summary(rules=rules, captions=len(stream))
    with ExitStack() as held:
        opened, questions, described = None, None, None
        if model is not None:
            opened = model if isinstance(model, LanguageModel) else model()
            held.callback(opened.close)
            questions, described = _prepare_questions(opened, settings)
        if stream.usage is not None:
            described = {**(described or {}), "words": settings.words}
        expected = manifest(stream, rules=rules, seed=settings.seed, per_rule=settings.per_rule, described=described)
        output = held.enter_context(continue_output(out, expected, stream, rules, summary))
        journal = held.enter_context(Journal(journal_path(out), summary)) if opened else None
        if journal is not None:
            journal.index()
        maker = Maker(rules, settings.seed, settings.per_rule, questions, stream.usage)
        stop = held.enter_context(Interruption(opened.wait_no_longer) if opened else Interruption())
        batches = stream.batches(output.captions_done, output.done)
        rows: FinishedRows
        if engine == "ray":
            from degla.negatives.run.ray_engine import run_on_ray

            assert not isinstance(model, LanguageModel)
            rows = _until(stop, run_on_ray(batches, maker, open_model=model, workers=workers, journal=journal))
        else:
            pool = _open_processes(held, workers) if len(stream) - output.captions_done > BATCH else None
            if opened is None or journal is None:
                rows = _until(stop, spread(partial(make_rows, maker=maker), batches, pool=pool, workers=workers))
            else:
                tagged = spread(tag, batches, pool=pool, workers=workers)
                rows = Pipeline(opened, maker, journal.find, journal.keep, stop).run(tagged)
        # A model is asked rule by rule within a batch, so that the first captions end together, and late.
        shown = TaskProgress(progress).task(
            "true texts" if summary.true else "negatives", len(stream), done=output.captions_done,
            warm_up=BATCH if model else 0, note=summary.describe,
        )  # fmt: skip
        advance = held.enter_context(shown)
        _write_all(rows, output, summary, advance, stop)
    summary.seconds = time.monotonic() - started
    return summary


def _prepare_questions(model: LanguageModel, settings: NegativesSettings) -> tuple[Prompts, dict[str, object]]:
    """What a model is asked, and what the manifest says of the model and of that."""
    folder = settings.examples_folder
    questions = Prompts(
        source=model.name,
        forms=usable_forms(model.forms, settings.form, name=model.name),
        writes="write" in model.forms,
        seed=settings.seed,
        count=settings.examples,
        sets=settings.example_sets,
        examples=load_all_examples(settings.rules, count=settings.examples, folder=folder),
    )
    described: dict[str, object] = {
        "source": model.name,
        "model": model.describe(),
        "form": settings.form,
        "prompts_sha256": prompt_digests(settings.rules),
        "examples": settings.examples,
        "example_sets": settings.example_sets,
    }
    if settings.examples:
        described["examples_sha256"] = examples_digest(settings.rules, folder=folder)
    return questions, described


def _processes(workers: int | None, *, many: bool) -> int:
    """How many processes work, where nothing is said as many as there are processors for many captions."""
    if workers is None:
        return usable_cores() if many else 1
    if workers < 1:
        raise InputError(f"workers ({workers}) must be 1 or more.")
    return workers


def _open_processes(held: ExitStack, workers: int) -> ProcessPoolExecutor | None:
    if workers == 1:
        return None
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=leave_signals)
    held.callback(pool.shutdown, cancel_futures=True)
    return pool


def _until(stop: Interruption, rows: FinishedRows) -> FinishedRows:
    for each in rows:
        yield each
        if stop.name is not None:
            return


def _write_all(
    rows: FinishedRows, output: Output, summary: Summary, advance: Callable[[int], None], stop: Interruption
) -> None:
    written = output.captions_done
    try:
        for made, captions in rows:
            if captions:
                output.write(made)
                summary.add(made)
                written += captions
            advance(captions)
    except DeglaError:
        LOG.warning("%s; run the same command again to resume.", _how_far(written, summary))
        raise
    if stop.name is not None and written < summary.captions:
        summary.stopped = stop.name
        LOG.warning("stopped by %s: %s; run the same command again to resume.", stop.name, _how_far(written, summary))


def _how_far(written: int, summary: Summary) -> str:
    replies = f", {summary.replies.requests:,} replies kept" if summary.replies.requests else ""
    return f"{written:,} of {counted(summary.captions, 'caption')} finished{replies}"
