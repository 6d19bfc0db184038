"""explain a name of degla ls or a field of the configuration, and when to use it"""

from __future__ import annotations

import re
import sys
from textwrap import fill
from typing import TYPE_CHECKING

from degla.errors import InputError
from degla.shelf import BENCHMARKS, DRAWS, LOSSES, POSITIVES, RECIPES, RULES, SYSTEMS, Shelf, class_name, did_you_mean

if TYPE_CHECKING:
    from degla.config.run import TrainConfig

KINDS: dict[str, Shelf] = {
    "loss": LOSSES, "recipe": RECIPES, "rule": RULES, "positive": POSITIVES, "benchmark": BENCHMARKS, "draw": DRAWS,
    "system": SYSTEMS,
}  # fmt: skip


ALL = "all"
"""The word after --help that requests every flag."""

_USAGE = (
    "usage: degla explain [KIND] NAME | degla explain FIELD\n\n"
    "Explains a name of degla ls or a field of the configuration, and when to use it.\n\n"
    f"NAME is one of degla ls; if it is ambiguous, write its kind before it: {', '.join(KINDS)}.\n"
    "FIELD is a field or section of the training configuration: optim.lr, --optim.lr, optim, objective.contrastive.\n"
)


def run_words(words: list[str]) -> int:
    """`degla explain [KIND] NAME`; a field may be written as its flag, which argparse would refuse."""
    if not words or set(words) & {"-h", "--help"}:
        sys.stdout.write(_USAGE)
        return 0 if words else 2
    sys.stdout.write(explain([word.removeprefix("--") for word in words]))
    return 0


def explain(words: list[str]) -> str:
    """Return the text about NAME, KIND NAME or FIELD.

    Raises:
        InputError: the name is unknown or ambiguous.
    """
    if len(words) > 2 or (len(words) == 2 and words[0] not in KINDS):
        raise InputError(f"degla explain takes a name, or one of {', '.join(KINDS)} and a name.")
    if len(words) == 2:
        KINDS[words[0]].require(words[1])
        return _member(words[0], words[1])
    name = words[0]
    kinds = [kind for kind, shelf in KINDS.items() if name in shelf.names()]
    if len(kinds) > 1:
        raise InputError(f"{name!r} is ambiguous. Use {' or '.join(f'degla explain {k} {name}' for k in kinds)}.")
    return _member(kinds[0], name) if kinds else explain_fields(name)


def explain_fields(name: str, *, config: TrainConfig | None = None) -> str:
    """Return the meaning, range and value of a field, or of all fields of a section.

    Args:
        name: of a field or section, dotted or as a flag; "all" for every field.
        config: whose values are shown; the defaults if None.

    Raises:
        InputError: there is no such field or section.
    """
    from degla.config.fields import explain_field, known_fields

    prefix = name.removeprefix("--").replace("-", "_")
    fields = sorted(field for field in known_fields() if prefix in (ALL, field) or field.startswith(f"{prefix}."))
    if not fields:
        names = {*known_fields(), *(member for shelf in KINDS.values() for member in shelf.names())}
        raise InputError(
            f"unknown name {name!r}.{did_you_mean(prefix, names)} See degla ls for names, and degla train RECIPE "
            "--help all for fields."
        )
    return "\n".join(explain_field(field, config) for field in fields)


def _member(kind: str, name: str) -> str:
    texts = KINDS[kind].docstrings(name)
    if kind == "benchmark" and texts:
        texts[0] = texts[0].partition("\n\nTitle:")[0]  # The sections follow below, in one form for all benchmarks.
    if kind in ("rule", "positive") and name not in KINDS[kind].own():
        # The first line of the class says less than that of the module above it; the user's own may say more.
        texts[1:] = filter(None, (text.partition("\n\n")[2] for text in texts[1:]))
    paragraphs = [f"{kind} {name}", *texts]
    if kind == "loss":
        users = [recipe for recipe in RECIPES.names() if _uses(recipe, name)]
        text = f"{', '.join(users)}; see degla explain RECIPE for when to use one"
        text = text if users else f"none; it is added by --objective.{name.replace('_', '-')}.weight"
        recipes = fill(f"Recipes:  {text}.", 110, subsequent_indent=" " * 10)
        paragraphs.append(f"{recipes}\nSettings: degla explain objective.{name}")
    if kind == "recipe":
        paragraphs.append(
            f"Losses, with their weights: degla train {name} --help\n"
            "Formula and cost of a loss: degla explain LOSS\n"
            f"Time and memory of a run:   degla train {name} FLAGS --dry-run\n"
            f"Whole configuration:        degla train {name} --print-config"
        )
    if kind == "benchmark":
        paragraphs.append(_benchmark(name))
    if kind == "rule" and name not in RULES.own():
        from degla.negatives.examples import SHIPPED, load_examples

        paragraphs.append(f"Examples: {len(load_examples(name))} in {SHIPPED / name}.yaml")
    if kind == "system":
        paragraphs.append(f"Settings: degla system {name} --help")
    return "\n\n".join(paragraphs) + "\n"


def _uses(recipe: str, loss: str) -> bool:
    """Return whether a recipe has a loss: named in its source, or in that of the recipe whose losses it takes over.

    Nothing is imported, as torch would take seconds.
    """
    source = RECIPES.source(recipe)
    if re.search(rf"\b{class_name(loss)}\b", source):
        return True
    base = re.search(r"^from degla\.recipes\.(\w+) import", source, re.MULTILINE)
    if base is None or base[1] not in {*RECIPES.names()} - {recipe}:
        return False
    replaced = "objective=" in source and ".objective" not in source
    return not replaced and _uses(base[1], loss)


def _benchmark(name: str) -> str:
    data = BENCHMARKS.member(name, "BENCHMARK")
    parts = [part.name + (f" ({part.n:,})" if part.n is not None else "") for part in data.parts]
    facts = (
        f"Parts:    {', '.join(parts)}",
        f"Source:   {data.paper}; {data.source}",
        f"Licence:  {data.licence}",
        f"Files:    {data.layout}",
        *([f"Citation: {data.citation}"] if data.citation else []),
    )
    return "\n".join(fact.replace("\n", "\n          ") for fact in facts)
