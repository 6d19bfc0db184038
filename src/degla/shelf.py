"""Shelves: registries in which each file (or folder) of a folder is a member, named after the file.

A shelf is listed from the file system, so nothing is imported to list its members, and adding a file is enough to add a
member.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from degla.errors import InputError

_PACKAGE = Path(__file__).parent


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name nearest to `name`, or an empty string.

    Dotted names that end in `name` take precedence if there are one or two: `optim.lr` for `lr`.
    """
    names = sorted(candidates)
    near = [each for each in names if each.endswith(f".{name}")]
    if not 1 <= len(near) <= 2:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def class_name(member: str) -> str:
    """Return a member's name in CamelCase, the name of the class in its file."""
    return "".join(word.capitalize() for word in member.split("_"))


@dataclass(frozen=True)
class Shelf:
    """A folder of members, each a module of that name.

    Attributes:
        package: dotted name of the folder, for example ``degla.losses``.
        noun: word for a member in messages, for example ``loss``.
        folders: whether a member is a folder with an ``__init__.py``; plain files are then shared by the members.
    """

    package: str
    noun: str
    folders: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the members' files."""
        return _PACKAGE.joinpath(*self.package.split(".")[1:])

    def names(self) -> list[str]:
        """Return the sorted names of all members, without importing anything."""
        names = [entry.name for entry in os.scandir(self.folder)]  # Called often, and `Path` is slow.
        if self.folders:
            return sorted(name for name in names if (self.folder / name / "__init__.py").is_file())
        return sorted(name[:-3] for name in names if name.endswith(".py") and not name.startswith("_"))

    def source(self, name: str) -> str:
        """Return the source code of a member."""
        file = self.folder / name / "__init__.py" if self.folders else self.folder / f"{name}.py"
        return file.read_text(encoding="utf-8")

    def docstrings(self, name: str) -> list[str]:
        """Return the docstrings of a member's module and of the function or class with its name, without importing."""
        module = ast.parse(self.source(name))
        called = (name, class_name(name))
        owners = [
            node for node in module.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in called
        ]
        return [text for text in map(ast.get_docstring, [module, *owners]) if text]

    def summary(self, name: str) -> str:
        """Return the first line of a member's module docstring."""
        lines = (ast.get_docstring(ast.parse(self.source(name))) or "").splitlines()
        return lines[0] if lines else ""

    def load(self, name: str) -> ModuleType:
        """Import the member called `name`.

        Raises:
            InputError: see `require`.
        """
        self.require(name)
        return importlib.import_module(f"{self.package}.{name}")

    def member(self, name: str, attribute: str) -> Any:
        """Return the object with a given name from a member's module.

        Raises:
            InputError: see `require`; or the module does not define that name.
        """
        module = self.load(name)
        if not hasattr(module, attribute):
            raise InputError(
                f"{module.__file__}: must define {attribute} for the {self.noun} {name!r}."
                f"{did_you_mean(attribute, vars(module))} Rename it to {attribute}, or name the file after it."
            )
        return getattr(module, attribute)

    def require(self, name: str) -> None:
        """Check that a member exists, without importing anything.

        Raises:
            InputError: there is no such member; the message lists the known ones and suggests the nearest.
        """
        names = self.names()
        if name not in names:
            hint = " Separate names with spaces." if "," in name else did_you_mean(name, names)
            raise InputError(f"unknown {self.noun} {name!r}.{hint} Known: {', '.join(names)}.")


LOSSES = Shelf("degla.losses", "loss")
RULES = Shelf("degla.negatives.rules", "rule")
POSITIVES = Shelf("degla.negatives.positives", "rule for positives")
BENCHMARKS = Shelf("degla.evaluation.benchmarks", "benchmark")
RECIPES = Shelf("degla.recipes", "recipe")
DRAWS = Shelf("degla.data.draws", "draw of negatives")
SYSTEMS = Shelf("degla.systems", "system", folders=True)
VERBS = Shelf("degla.verbs", "command")

PUBLISHED_RULES = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives", "replace_nouns")
"""The five rules of arXiv 2504.16801, in its order; the other rules are this package's own."""

BALANCED_RULES = (
    "replace_adjectives", "replace_nouns", "replace_relation", "change_number", "swap_adjectives", "swap_nouns",
    "swap_phrases", "reshuffle_order",
)  # fmt: skip
"""The rules whose negatives `degla negatives balance` can make indistinguishable by text only; the default of
`degla negatives`. The swaps precede `reshuffle_order`, which could make the same texts."""

TOLD_RULES = ("add_attribute", "add_object", "negation")
"""The rules whose negatives are always longer than their captions, so that they cannot be balanced."""

SHELVES: dict[str, Shelf] = {
    "recipes": RECIPES,
    "losses": LOSSES,
    "rules": RULES,
    "positives": POSITIVES,
    "draws": DRAWS,
    "benchmarks": BENCHMARKS,
    "systems": SYSTEMS,
}
"""The shelves that `degla ls` lists."""
