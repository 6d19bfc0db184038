"""fine-tune a model with a recipe, or resume a run; every field of the configuration is a flag"""

from __future__ import annotations

import shlex
import sys
import textwrap
from typing import TYPE_CHECKING

from degla.errors import InputError
from degla.processes import first_process
from degla.remote import address_of, display_path
from degla.shelf import RECIPES
from degla.verbs._terminal import tell
from degla.verbs._training import PRINT, configure, help_topic, resumes

if TYPE_CHECKING:
    from degla.config.run import TrainConfig

_USAGE = """usage: degla train RECIPE [FLAGS]
       degla train [RECIPE] --config FILE [FLAGS]
       degla train --resume RUN [FLAGS]

Fine-tune a model with a recipe. Every field of the configuration is a flag; the most common are:

  --data.captions FILE        captions: COCO json, JSONL, Parquet, CSV, TSV
  --data.images FOLDER        folder that image paths are relative to
  --data.negatives FILE       from degla negatives; not for recipes without negatives
  --out FOLDER                output folder: metrics and checkpoints, which open_clip can load
  --model NAME                an open_clip model, a folder or a run; by default the recipe's
  --optim.lr RATE             peak learning rate
  --train.batch-size PAIRS    global batch size, over all processes
  --train.epochs N, --train.steps N
  --validation.benchmarks NAME ... --validation.root FOLDER

  --config FILE               YAML, TOML or JSON file of fields, or the config.json of a run; flags override it
  --print-config              print the whole configuration in the form of --config and exit
  --dry-run                   report data, steps, checkpoints, memory, disk space and time; write nothing

More:  degla train RECIPE --help       usual flags and losses of the recipe, with their values
       degla train RECIPE --help WHAT  one field (optim.lr), a section (optim) or every flag (all); omit RECIPE for the
                                       defaults: degla train --help WHAT
       degla explain RECIPE            what a recipe does and when to use it; degla explain LOSS: its formula
       docs/training.md, docs/papers.md

recipes:
"""


def _usage() -> str:
    summaries = {name: textwrap.shorten(RECIPES.summary(name), 98, placeholder=" ...") for name in RECIPES.names()}
    return _USAGE + "".join(f"  {name:<19}  {summary}\n" for name, summary in summaries.items())


def run_words(words: list[str]) -> int:
    """`degla train RECIPE [flags]` or `degla train --resume RUN [flags]`: every field of TrainConfig is a flag."""
    if not words or words[0] in ("-h", "--help"):
        help_topic(words[1:])
        if len(words) == 2:
            from degla.verbs.explain import explain_fields

            sys.stdout.write(explain_fields(words[1]))
            return 0
        sys.stdout.write(_usage())
        return 0 if words else 2
    dry = "--dry-run" in words
    if dry and PRINT in words:
        raise InputError(f"{PRINT} prints the configuration and exits. Omit --dry-run.")
    words = [word for word in words if word != "--dry-run"]
    resume = resumes(words)
    config = configure(words, verb="train", may_resume=not dry)
    if dry:
        return _dry_run(config, resume=resume)

    from degla.stopping import status_of_signal
    from degla.training.loop import train

    outcome = train(config, resume=resume)
    if not first_process():
        return 0  # A failure makes torchrun end the first process, which may still be copying the checkpoint.
    address = address_of(config.out or "")
    where = outcome.folder if address is None else f"{address}/{outcome.folder.name}"
    tell(f"{'finished' if outcome.finished else 'stopped'} at step {outcome.step}: {where}")
    if outcome.stopped or outcome.ended:
        command = shlex.join(["degla", "train", "--resume", display_path(config.out or "")])
        tell(f"to continue: {command}{' [flags]' if outcome.ended else ''}")
    return status_of_signal(outcome.stopped)


def _dry_run(config: TrainConfig, *, resume: bool) -> int:
    """Check the run as training would, then report what `degla doctor` finds."""
    from degla.files import require_writable
    from degla.model.address import check_new_at, folder_of_run
    from degla.training.loop import check_new
    from degla.verbs.doctor import tell_findings

    if resume:
        raise InputError("--dry-run checks a run before it starts. Omit --resume.")
    config.check()
    assert config.out is not None
    check_new(config.out)
    check_new_at(config.out)
    remedy = "Set DEGLA_CACHE to another folder." if address_of(config.out) else "Choose another --out."
    require_writable(folder_of_run(config.out) / "config.json", remedy=remedy)
    return tell_findings(config, as_json=False)
