"""Generate negatives from captions and append them, accepted or refused, to a resumable file.

Every (caption, rule) has at least one row. Rows depend on the seed, the captions, the rules and the language model's
replies, but not on the number of processes, the order of replies, or how often the run was interrupted and resumed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from degla.allowance import usable_cores
from degla.errors import DeglaError, InputError
from degla.negatives.examples import examples_digest
from degla.negatives.grammar import lexicon
from degla.negatives.llm import LanguageModel
from degla.negatives.rule import load_rule
from degla.negatives.run.dialogue import FormChoice, Maker, Prompts, load_all_examples, prompt_digests, usable_forms
from degla.negatives.run.output import Journal, Output, continue_output, journal_path
from degla.negatives.run.pipeline import FinishedRows, Pipeline, make_rows, map_in_order, tag
from degla.negatives.run.stream import BATCH, Captions, CaptionStream
from degla.negatives.run.summary import Summary
from degla.pages.words import counted
from degla.progress import TaskProgress
from degla.ray import Engine
from degla.records import POSITIVE
from degla.shelf import POSITIVES, RULES
from degla.stopping import WORKERS, Interruption, leave_signals
from degla.tagger import tagger_version
from degla.version import __version__

log = logging.getLogger(__name__)

WordSource = Literal["captions", "lexicon"]
_MANY: Final = 8 * BATCH
"""Number of captions from which additional processes are worth their start-up time of seconds."""
ModelSource = LanguageModel | Callable[[], LanguageModel]
"""A language model, or a function that opens one; the Ray engine calls it once in every worker."""


@dataclass(frozen=True)
class NegativesSettings:
    """Settings that, with the captions and the language model, determine the rows of a file.

    Attributes:
        rules: names of rules on the shelf `negatives/rules`, in the order of the rows.
        seed: any integer; with the caption's id and the rule's name it determines every draw.
        per_rule: maximum accepted negatives per rule and caption.
        form: "write" lets the model write freely, "choose" only among the grammar's candidates; with "both" the model
            writes first, and chooses if the checks refuse what it wrote.
        examples: examples per request.
        example_sets: number of fixed sets of examples per rule, one of which is picked by the caption's id; 0 draws
            new examples for every request, as in the paper.
        examples_folder: folder of your own examples instead of the package's.
        words: how often the grammar inserts each word of its lists: "captions" follows the words' frequencies in
            these captions, "lexicon" uses all words of a list equally often.

    Raises:
        InputError: a value is out of range, or `rules` is empty or has repeated or unknown names.
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
            raise InputError(f"name at least one rule, and each only once (got {', '.join(self.rules) or 'none'}).")
        if len({load_rule(name).kind == POSITIVE for name in self.rules}) > 1:
            raise InputError(
                "rules for negatives and for positives cannot be mixed in one file; rules that make true texts: "
                f"{', '.join(name for name in self.rules if load_rule(name).kind == POSITIVE)}."
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
    """Generate negatives from captions and append them to a JSONL file of `NegativeRecord`.

    Args:
        captions: the captions, with unique ids. A function that returns a new iterator, or a sequence, is read twice
            and only 24 bytes per caption are kept in memory; an iterator is read into memory.
        settings: the settings that determine the rows.
        out: the file; next to it, ``<out>.manifest.json`` records its settings and ``<out>.replies.jsonl`` holds the
            replies of the language model. If they exist, the run resumes where it stopped.
        model: a language model, closed at the end; None to use only the grammar.
        engine: "local", or "ray" for a cluster; with "ray", `model` must be a function.
        workers: number of processes (with a model they tag captions, with Ray each opens a model); the rows do not
            depend on it. None uses one per core if there is no model and there are enough captions.
        progress: whether to show a progress bar (on a terminal) or log lines.

    Returns:
        The counts for the whole file. `Summary.stopped` names the signal (Ctrl-C, SIGTERM) that ended the run early.

    Raises:
        InputError: a caption id occurs twice, the file was made with other settings or captions, or the tagger is not
            installed.
        DeglaError: the model cannot be reached, or the disk is full; the same call resumes later.
    """
    if engine == "ray" and isinstance(model, LanguageModel):
        raise InputError("engine 'ray' opens a model in every worker: pass a function that opens one.")
    started = time.monotonic()
    stream = CaptionStream(captions, count_usage=settings.words == "captions", progress=progress)
    workers = process_count(workers, len(stream), grammar_only=model is None)
    rules = tuple(settings.rules)
    summary = Summary(rules=rules, captions=len(stream))
    with ExitStack() as stack:
        llm, prompts, description = prepare_model(model, settings, stack)
        entries = manifest(stream, settings, description)
        output = stack.enter_context(continue_output(out, entries, stream, rules, summary))
        journal = stack.enter_context(Journal(journal_path(out), summary)) if llm else None
        if journal is not None:
            journal.index()
        maker = Maker(rules, settings.seed, settings.per_rule, prompts, stream.usage)
        stop = stack.enter_context(Interruption(llm.wait_no_longer) if llm else Interruption())
        batches = stream.batches(output.captions_done, output.done)
        rows: FinishedRows
        if engine == "ray":
            from degla.negatives.run.ray_engine import run_on_ray

            assert not isinstance(model, LanguageModel)
            rows = _until(stop, run_on_ray(batches, maker, open_model=model, workers=workers, journal=journal))
        else:
            pool = _open_processes(stack, workers) if len(stream) - output.captions_done > BATCH else None
            if llm is None or journal is None:
                make = partial(make_rows, maker=maker)
                rows = _until(stop, map_in_order(make, batches, pool=pool, workers=workers, stop=stop))
            else:
                tagged = map_in_order(tag, batches, pool=pool, workers=workers, stop=stop)
                rows = Pipeline(llm, maker, journal.find, journal.keep, stop).run(tagged)
        # Requests go rule by rule within a batch, so the first captions finish together, and late.
        task = TaskProgress(progress).task(
            "true texts" if summary.makes_true_texts else "negatives", len(stream), done=output.captions_done,
            warm_up=BATCH if model else 0, note=summary.describe,
        )  # fmt: skip
        advance = stack.enter_context(task)
        _write_all(rows, output, summary, advance, stop)
    summary.seconds = time.monotonic() - started
    return summary


def prepare_model(
    source: ModelSource | None, settings: NegativesSettings, stack: ExitStack
) -> tuple[LanguageModel | None, Prompts | None, dict[str, object]]:
    """Open a language model until the stack ends; return it, its prompts, and the manifest's description of both."""
    if source is None:
        return None, None, {}
    if load_rule(settings.rules[0]).kind == POSITIVE:
        raise InputError("positives are made by the grammar alone: omit the language model (--llm).")
    model = source if isinstance(source, LanguageModel) else source()
    stack.callback(model.close)
    folder = settings.examples_folder
    prompts = Prompts(
        source=model.name,
        forms=usable_forms(model.forms, settings.form, name=model.name),
        writes="write" in model.forms,
        seed=settings.seed,
        count=settings.examples,
        sets=settings.example_sets,
        examples=load_all_examples(settings.rules, count=settings.examples, folder=folder),
    )
    description: dict[str, object] = {
        "source": model.name,
        "model": model.describe(),
        "form": settings.form,
        "prompts_sha256": prompt_digests(settings.rules),
        "examples": settings.examples,
        "example_sets": settings.example_sets,
    }
    if settings.examples:
        description["examples_sha256"] = examples_digest(settings.rules, folder=folder)
    return model, prompts, description


def manifest(stream: CaptionStream, settings: NegativesSettings, description: Mapping[str, object]) -> dict[str, Any]:
    """Return everything that determines the content of a run's file, as read back from JSON.

    Args:
        stream: all captions.
        settings: settings of the run.
        description: what `prepare_model` says of the language model, its prompts and examples.
    """
    own = RULES.digests(settings.rules) | POSITIVES.digests(settings.rules)
    entries = {
        "captions": len(stream),
        "captions_sha256": stream.sha256,
        "rules": list(settings.rules),
        "seed": settings.seed,
        "per_rule": settings.per_rule,
        "degla": __version__,
        "lexicon": lexicon.digest(),
        "tagger": tagger_version(),
        **description,
        **({} if stream.usage is None else {"words": settings.words}),
        **({"own": own} if own else {}),
    }
    values: dict[str, Any] = json.loads(json.dumps(entries))
    return values


def process_count(workers: int | None, captions: int, *, grammar_only: bool) -> int:
    """Return the number of processes; by default one per core for many captions without a model, else one."""
    if workers is None:
        return usable_cores() if grammar_only and captions >= _MANY else 1
    if workers < 1:
        raise InputError(f"workers ({workers}) must be 1 or more.")
    return workers


def _open_processes(stack: ExitStack, workers: int) -> ProcessPoolExecutor | None:
    if workers == 1:
        return None
    pool = ProcessPoolExecutor(workers, mp_context=WORKERS, initializer=leave_signals)
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool


def _until(stop: Interruption, rows: FinishedRows) -> FinishedRows:
    for each in rows:
        yield each
        if stop.name is not None:
            return


def _write_all(
    rows: FinishedRows, output: Output, summary: Summary, advance: Callable[[int], None], stop: Interruption
) -> None:
    captions_done = output.captions_done
    try:
        for records, captions in rows:
            if captions:
                output.write(records)
                summary.add(records)
                captions_done += captions
            advance(captions)
    except DeglaError:
        log.warning("%s; run the same command again to resume.", _how_far(captions_done, summary))
        raise
    if stop.name is not None and captions_done < summary.captions:
        summary.stopped = stop.name
        log.warning(
            "stopped by %s: %s; run the same command again to resume.", stop.name, _how_far(captions_done, summary)
        )


def _how_far(captions_done: int, summary: Summary) -> str:
    replies = f", {counted(summary.replies.requests, 'reply', 'replies')} kept" if summary.replies.requests else ""
    return f"{captions_done:,} of {counted(summary.captions, 'caption')} finished{replies}"
