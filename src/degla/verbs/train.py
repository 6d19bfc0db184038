"""fine-tune a model by a recipe, or go on with a run: every field of the configuration is a flag"""

from __future__ import annotations

import sys

from degla.shelf import RECIPES
from degla.verbs._training import configure


def run_words(words: list[str]) -> int:
    """`degla train RECIPE [flags]` or `degla train --resume RUN [flags]`: every field of TrainConfig is a flag."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(
            "usage: degla train RECIPE [FLAGS] | degla train --resume RUN [FLAGS]\n\n"
            "Every field of the configuration is a flag. degla train RECIPE --help lists those that do something in\n"
            "the recipe, with its values; --help-all lists all.\n\nrecipes:\n"
        )
        for name in RECIPES.names():
            sys.stdout.write(f"  {name:<16} {RECIPES.summary(name)}\n")
        return 0 if words else 2
    config = configure(words, verb="train")

    from degla.training.loop import train

    outcome = train(config, resume=words[0] == "--resume")
    sys.stderr.write(f"{'finished' if outcome.finished else 'stopped'} at step {outcome.step}: {outcome.folder}\n")
    return 0
