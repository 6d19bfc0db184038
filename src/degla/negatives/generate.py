"""Makes negatives of captions and appends them, accepted or refused, to a file that can be continued.

Every (caption, rule) has at least one row. Rows depend on the seed, the captions, the rules and the language model's
replies: not on the number of processes, the order of replies, nor on how often the run was stopped and continued.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from degla.errors import DeglaError, InputError
from degla.interruption import Interruption, Stopped
from degla.negatives.llm import LanguageModel
from degla.negatives.rule import load_rule
from degla.negatives.run.dialogue import Maker
from degla.negatives.run.journal import Journal
from degla.negatives.run.output import Output, continue_output, journal_path, manifest
from degla.negatives.run.pipeline import FinishedRows, Pipeline, make_rows, spread, tag
from degla.negatives.run.progress import NegativesProgress
from degla.negatives.run.questions import FormChoice, Prompts, load_all_examples, prompt_digests, usable_forms
from degla.negatives.run.stream import BATCH, CaptionBatch, Captions, CaptionStream
from degla.negatives.run.summary import Summary
from degla.parent import end_with_parent
from degla.records import NegativeRecord

LOG = logging.getLogger(__name__)

Engine = Literal["local", "ray"]
ModelSource = LanguageModel | Callable[[], LanguageModel]
"""A language model, or a function that opens one: the Ray engine calls it once in every worker."""


def generate(
    captions: Captions,
    *,
    rules: Sequence[str],
    out: Path,
    seed: int,
    per_rule: int = 1,
    workers: int = 1,
    progress: bool = True,
    model: ModelSource | None = None,
    form: FormChoice = "both",
    examples: int = 5,
    example_sets: int = 0,
    examples_folder: Path | None = None,
    engine: Engine = "local",
) -> Summary:
    """Make negatives of captions and append them to a JSONL file of `NegativeRecord`.

    Args:
        captions: the captions; ids must be unique. A function that begins to read them anew, or a sequence, is read
            twice and never held in memory; 24 bytes a caption are. An iterator is read into memory.
        rules: names of members of the shelf `negatives/rules`, in the order of the rows.
        out: the file; ``<out>.manifest.json`` beside it says what it was made with, ``<out>.replies.jsonl`` holds
            the replies of the language model. If they exist the run goes on where it stopped.
        seed: any whole number; with the caption's id and the rule's name it decides every draw.
        per_rule: accepted negatives of one rule for one caption, at most.
        workers: processes (with a model: that tag captions; with Ray: that each open a model); the rows are the same
            for any number.
        progress: whether to show a progress bar (on a terminal) or log lines.
        model: a language model, closed at the end; None for the grammar alone.
        form: whether the model may write freely, only choose among what the grammar finds, or both: then what it
            writes is judged, and where it is refused the model chooses.
        examples: examples a request.
        example_sets: fixed draws of examples a rule, of which the caption's id picks one; 0: drawn anew for every
            request, as the paper does.
        examples_folder: the user's own examples instead of the package's.
        engine: "local", or "ray" for a cluster; `model` must be a function then.

    Returns:
        The counts of the whole file. `Summary.stopped` names the signal (Ctrl-C, SIGTERM) that ended the run early.

    Raises:
        InputError: an unknown rule, a caption id that comes twice, a file made with other settings or captions, or
            the tagger is not installed.
        DeglaError: the model cannot be reached, or the disk is full; the same call goes on later.
    """
    if per_rule < 1 or workers < 1:
        raise InputError(f"per_rule ({per_rule}) and workers ({workers}) must be 1 or more.")
    if examples < 0 or example_sets < 0:
        raise InputError(f"examples ({examples}) and example_sets ({example_sets}) must be 0 or more.")
    if not rules or len(set(rules)) != len(rules):
        raise InputError(f"rules must be named, each once; got {', '.join(rules) or 'none'}.")
    for name in rules:
        load_rule(name)
    started = time.monotonic()
    stream = CaptionStream(captions)
    summary = Summary(rules=tuple(rules), captions=len(stream))
    with ExitStack() as held:
        opened, questions, described = None, None, None
        if model is not None:
            opened = model if isinstance(model, LanguageModel) else model()
            held.callback(opened.close)
            questions = _prepare_questions(opened, form, rules, seed, examples, example_sets, examples_folder)
            described = _describe(opened, questions, form, rules, examples_folder)
        settings = manifest(stream, rules=rules, seed=seed, per_rule=per_rule, model=described)
        output = held.enter_context(continue_output(out, settings, stream, rules, summary))
        journal = held.enter_context(Journal(journal_path(out), summary)) if opened else None
        maker = Maker(tuple(rules), seed, per_rule, questions)
        stop = held.enter_context(Interruption())
        batches = stream.batches(output.captions_done, output.partly)
        rows: FinishedRows
        if engine == "ray":
            from degla.negatives.run.ray_engine import run_on_ray

            if isinstance(model, LanguageModel):
                raise InputError("engine 'ray' opens a model in every worker: give a function that opens one.")
            finished = stream.ids[: output.captions_done]
            rows = run_on_ray(
                batches, maker, out=out, open_model=model, workers=workers, journal=journal, finished=finished
            )
        else:
            pool = _open_processes(held, workers) if len(stream) - output.captions_done > BATCH else None
            if opened is None or journal is None:
                rows = _make_all(batches, maker, pool, workers)
            else:
                journal.index(stream.ids[: output.captions_done])
                rows = Pipeline(opened, maker, journal, stop).run(spread(tag, batches, pool=pool, workers=workers))
        bar = held.enter_context(NegativesProgress(len(stream), output.captions_done, summary)) if progress else None
        _write_all(rows, output, summary, bar, stop)
    summary.seconds = time.monotonic() - started
    return summary


def _prepare_questions(
    model: LanguageModel,
    form: FormChoice,
    rules: Sequence[str],
    seed: int,
    examples: int,
    example_sets: int,
    examples_folder: Path | None,
) -> Prompts:
    return Prompts(
        source=model.name,
        forms=usable_forms(model.forms, form, name=model.name),
        writes="write" in model.forms,
        seed=seed,
        count=examples,
        sets=example_sets,
        examples=load_all_examples(rules, count=examples, folder=examples_folder),
    )


def _describe(
    model: LanguageModel, questions: Prompts, form: FormChoice, rules: Sequence[str], examples_folder: Path | None
) -> dict[str, object]:
    """What the manifest says of a model and of what it is asked."""
    described: dict[str, object] = {
        "source": model.name,
        "model": model.describe(),
        "form": form,
        "prompts_sha256": prompt_digests(rules),
        "examples": questions.count,
        "example_sets": questions.sets,
    }
    if questions.count:
        from degla.negatives.examples import examples_digest

        described["examples_sha256"] = examples_digest(rules, folder=examples_folder)
    return described


def _open_processes(held: ExitStack, workers: int) -> ProcessPoolExecutor | None:
    if workers == 1:
        return None
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_signals)
    held.callback(pool.shutdown, cancel_futures=True)
    return pool


def _leave_signals() -> None:
    """Ctrl-C goes to all processes of a terminal; the main one alone decides what it means. Its end ends this one."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make_all(
    batches: Iterable[CaptionBatch], maker: Maker, pool: ProcessPoolExecutor | None, workers: int
) -> Iterator[tuple[list[NegativeRecord], int]]:
    """All rows without a language model."""
    yield from spread(partial(make_rows, maker=maker), batches, pool=pool, workers=workers)


def _write_all(
    rows: FinishedRows, output: Output, summary: Summary, bar: NegativesProgress | None, stop: Interruption
) -> None:
    written = output.captions_done
    try:
        for made, captions in rows:
            if captions:
                output.write(made)
                summary.add(made)
                written += captions
            if bar is not None:
                bar.advance(captions)
            if stop.name is not None:
                break
    except Stopped:
        pass
    except DeglaError:
        LOG.warning("%s; the same command goes on.", _how_far(written, summary))
        raise
    if stop.name is not None and written < summary.captions:
        summary.stopped = stop.name
        LOG.warning("stopped by %s: %s; the same command goes on.", stop.name, _how_far(written, summary))


def _how_far(written: int, summary: Summary) -> str:
    replies = f", {summary.outcomes.total():,} replies kept" if summary.outcomes else ""
    return f"{written:,} of {summary.captions:,} captions finished{replies}"
