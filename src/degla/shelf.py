"""Shelves: registries in which each file (or folder) of a folder is a member, named after the file.

A shelf is listed from the file system, so nothing is imported to list its members, and adding a file is enough to add a
member. Users add members of their own in folders that `DEGLA_PARTS` names, each with subfolders such as `losses`.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import keyword
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

from degla.errors import LOST_PEER, DeglaError, InputError, error_of_memory

_PACKAGE = Path(__file__).parent
PARTS = "DEGLA_PARTS"
"""Environment variable that names folders of a user's own parts, separated as in PATH."""
IF_OWN = f"If it is your own, set {PARTS} to its folder."
"""Remedy for an unknown name."""


def part_folders() -> list[Path]:
    """Return the folders that `DEGLA_PARTS` names.

    Raises:
        InputError: one does not exist or has no subfolder for parts.
    """
    named = os.environ.get(PARTS, "").split(os.pathsep)
    try:
        folders = list(dict.fromkeys(Path(each).expanduser().resolve() for each in named if each))
    except RuntimeError as error:  # ~name of no user, or links in a circle
        raise InputError(f"{PARTS}: {os.environ[PARTS]}: {error}") from None
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{PARTS}: {folder}: no such folder.")
        names = [shelf.folder.name for shelf in SHELVES.values() if shelf.extensible]
        if not any((folder / name).is_dir() for name in names):
            raise InputError(f"{PARTS}: {folder}: has no folder {', '.join(names[:-1])} or {names[-1]} with parts.")
    return folders


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name nearest to `name`, or an empty string.

    Dotted names that end in `name` take precedence if there are one or two: `optim.lr` for `lr`.
    """
    names = sorted(candidates)
    near = [name] if name in names else [each for each in names if each.endswith(f".{name}")]
    if not 1 <= len(near) <= 2:
        near = [each for each in names if each.lower() == name.lower()]
        # difflib counts two exchanged letters as much as two wrong ones.
        near = near or [each for each in names if sorted(each) == sorted(name)]
        near = near or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
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
        extensible: whether users can add members of their own, see `own`.
        holds: full names of the classes of which a member is a whole subclass, or an instance; none for a function.
        reserved: names that members of the user's own must not have, and what has them.
    """

    package: str
    noun: str
    folders: bool = False
    extensible: bool = False
    holds: tuple[str, ...] = ()
    reserved: tuple[frozenset[str], str] = (frozenset(), "")

    @property
    def folder(self) -> Path:
        """Folder of the members' files."""
        return _PACKAGE.joinpath(*self.package.split(".")[1:])

    def own(self) -> dict[str, Path]:
        """Return the files of the user's own members by name, without importing anything.

        Raises:
            InputError: see `part_folders`; or a name is not allowed, or exists twice.
        """
        files: dict[str, Path] = {}
        for folder in part_folders() if self.extensible else ():
            place = folder / self.folder.name
            # `glob` would pass over a folder that it may not read.
            for file in sorted(place.iterdir()) if place.is_dir() else ():
                name = file.stem
                if file.suffix != ".py" or name.startswith(".") or name == "__init__":
                    continue
                if not name.startswith("_") and (wrong := _wrong(name)):
                    raise InputError(f"{file}: a {self.noun}'s name must be {wrong}. Rename the file.")
                if name in self.reserved[0]:
                    raise InputError(f"{file}: the name {name!r} is taken by {self.reserved[1]}. Rename the file.")
                taken = [each for each in (files.get(name), self.folder / name, self._packaged(name)) if each]
                if other := next((each for each in taken if each.exists()), None):
                    raise InputError(f"{file}: the name {name!r} is taken by {other}. Rename the file.")
                files[name] = file
        return {name: file for name, file in files.items() if not name.startswith("_")}

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Return the first 32 digits of the sha256 of those named members' files that are the user's own.

        The digest includes the files beside it whose names begin with `_`, which it may import. Own members, of any
        shelf, that these files import have a digest of their own.

        Returns:
            Digests by file, for example ``losses/my_margin.py``.
        """
        digests: dict[str, str] = {}
        waiting = [(self, name) for name in names]
        while waiting:
            shelf, name = waiting.pop()
            file, place = shelf.own().get(name), f"{shelf.folder.name}/{name}.py"
            if file is not None and place not in digests:
                sources = [each.read_bytes() for each in (file, *sorted(file.parent.glob("_*.py")))]
                digests[place] = hashlib.sha256(b"".join(sources)).hexdigest()[:32]
                waiting += _imported(sources, shelf.package)
        return dict(sorted(digests.items()))

    def names(self) -> list[str]:
        """Return the sorted names of all members, without importing anything; raises as `own`."""
        names = [entry.name for entry in os.scandir(self.folder)]  # Called often, and `Path` is slow.
        if self.folders:
            return sorted(name for name in names if (self.folder / name / "__init__.py").is_file())
        files = (name[:-3] for name in names if name.endswith(".py") and not name.startswith("_"))
        return sorted([*files, *self.own()])

    def file(self, name: str) -> Path:
        """Return the file of a member."""
        return self.own().get(name) or self._packaged(name)

    def _packaged(self, name: str) -> Path:
        return self.folder / name / "__init__.py" if self.folders else self.folder / f"{name}.py"

    def source(self, name: str) -> str:
        """Return the source code of a member."""
        return self.file(name).read_text(encoding="utf-8")

    def _parsed(self, name: str) -> ast.Module:
        """Raises InputError if a member of the user's own is not valid Python."""
        file = self.file(name)
        try:
            return ast.parse(file.read_bytes(), filename=str(file))
        except (SyntaxError, ValueError) as error:
            raise InputError(_described(error, file)) from None

    def docstrings(self, name: str) -> list[str]:
        """Return the docstrings of a member's module and of the function or class with its name, without importing."""
        module = self._parsed(name)
        called = (name, class_name(name))
        owners = [
            node for node in module.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in called
        ]
        return [text for text in map(ast.get_docstring, [module, *owners]) if text]

    def summary(self, name: str) -> str:
        """Return the first line of a member's module docstring."""
        lines = (ast.get_docstring(self._parsed(name)) or "").splitlines()
        return lines[0] if lines else ""

    def load(self, name: str) -> ModuleType:
        """Import the member called `name`.

        Raises:
            InputError: see `require`; or it is the user's own and fails when it is imported.
        """
        self.require(name)
        try:
            return importlib.import_module(f"{self.package}.{name}")
        except (Exception, SystemExit) as error:  # A script that ends itself would end the command, with its status.
            if (file := self.own().get(name)) is None:
                raise
            raise InputError(_described(error, file)) from error

    def member(self, name: str, attribute: str) -> Any:
        """Return the object with a given name from a member's module.

        Raises:
            InputError: see `require`; or the module does not define that name, or as something else, or a class that
                lacks methods.
        """
        module = self.load(name)
        if not hasattr(module, attribute):
            raise InputError(
                f"{module.__file__}: must define {attribute} for the {self.noun} {name!r}."
                f"{did_you_mean(attribute, vars(module))} Rename it to {attribute}, or name the file after it."
            )
        value = getattr(module, attribute)
        kind, fits = value if isinstance(value, type) else type(value), callable(value)
        if self.holds:
            is_one = issubclass(kind, tuple(map(pkgutil.resolve_name, self.holds)))
            fits = is_one and (kind is value) == (attribute == class_name(name))
        if not fits:
            wanted = " or ".join(self.holds) or "function"
            raise InputError(f"{module.__file__}: {attribute} must be a {wanted}; it is {value!r:.80}.")
        if missing := sorted(getattr(kind, "__abstractmethods__", ())):
            raise InputError(f"{module.__file__}: {attribute} must define {', '.join(missing)}.")
        return value

    def require(self, name: str) -> None:
        """Check that a member exists, without importing anything.

        Raises:
            InputError: there is no such member; the message lists the known ones and suggests the nearest.
        """
        names = self.names()
        if name not in names:
            hint = " Separate names with spaces." if "," in name else did_you_mean(name, names)
            own = f" {IF_OWN}" if self.extensible else ""
            raise InputError(f"unknown {self.noun} {name!r}.{hint} Known: {', '.join(names)}.{own}")


def _imported(sources: Iterable[bytes], package: str) -> list[tuple[Shelf, str]]:
    """Return the users' own members that source files of a package import or name, as `losses.MyMargin`, with their
    shelves."""
    paths: set[str] = set()
    for source in sources:
        names: list[tuple[str, str]] = []
        try:
            nodes = list(ast.walk(ast.parse(source)))
            for node in nodes:
                if isinstance(node, ast.Import):
                    names += [(each.asname or each.name, each.name) for each in node.names]
                elif isinstance(node, ast.ImportFrom):
                    place = "." * node.level + (node.module or "")
                    place = resolve_name(place, package) if node.level else place
                    names += [(each.asname or each.name, f"{place}.{each.name}") for each in node.names]
                    paths.add(place)
        except (SyntaxError, ValueError, ImportError):  # Reported by whoever imports it.
            continue
        path_of = dict(names)
        paths |= {path for _, path in names}
        for node in nodes:
            if isinstance(node, ast.Attribute):
                first, _, rest = ast.unparse(node).partition(".")
                paths.add(f"{path_of.get(first, first)}.{rest}")
    # The last two words of a path: `from degla import losses` leaves no more.
    ends = {tuple(path.split(".")[-2:]) for path in paths}
    named = [each for each in SHELVES.values() if any(each.folder.name in end[:1] for end in ends)]
    return [(shelf, name) for shelf in named for name in shelf.own()
            if not ends.isdisjoint((shelf.folder.name, word) for word in (name, class_name(name)))]  # fmt: skip


def _wrong(name: str) -> str:
    """Return what a name of a user's own member must be, if it is not."""
    if not name.isidentifier() or keyword.iskeyword(name):
        return "a Python identifier"
    # Another spelling of one class, `Contrastive` or `contrastive_`, would take the place of the package's.
    return "" if name == name.lower() and "" not in name.split("_") else "in lower case, with one _ between words"


@contextmanager
def own_errors() -> Iterator[None]:
    """Name the place in the user's own code at which an exception was raised, instead of a traceback.

    Other exceptions pass, and so do those that have a line of their own: errors of this package, of memory, and of a
    connection to another process.

    Raises:
        InputError: code of a user's own part, or what it called, raised an exception.
    """
    try:
        yield
    except Exception as error:
        has_a_line = isinstance(error, DeglaError | BrokenPipeError) or bool(LOST_PEER.search(str(error)))
        of_memory = isinstance(error, MemoryError | RuntimeError) and error_of_memory(error) is not None
        if has_a_line or of_memory or (place := _place(error)) is None:
            raise
        raise InputError(_described(error, Path(place[0]))) from error


def _place(error: BaseException) -> tuple[str, int | None] | None:
    """Return the innermost file and line of users' own parts at which an error was raised; None if there is none."""
    import traceback

    # Not all files below `DEGLA_PARTS`: this package and others may be installed there.
    folders = {folder / each.folder.name for folder in part_folders() for each in SHELVES.values() if each.extensible}
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((str(error.filename), error.lineno))
    return next((place for place in reversed(places) if Path(place[0]).parent in folders), None)


def _described(error: BaseException, file: Path) -> str:
    """Return one line about an error in a user's own file, with the place in the user's code."""
    from degla.parse import in_one_line

    path, line = _place(error) or (str(file), None)
    where = path if line is None else f"{path} line {line}"
    return f"{where}: {type(error).__name__}: {in_one_line(getattr(error, 'msg', error))}"


class _OwnParts(MetaPathFinder):
    """Finds a user's own members where the package has none: `import degla.losses.my_margin`."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, _ = fullname.rpartition(".")
        shelf = next((each for each in SHELVES.values() if each.extensible and each.package == package), None)
        if shelf is None:
            return None
        return PathFinder.find_spec(fullname, [str(folder / shelf.folder.name) for folder in part_folders()])


sys.meta_path.append(_OwnParts())

_METRICS = ("step", "epoch", "loss", "lr", "scale", "bias", "l2_sp", "pairs_per_second", "ended")
LOSSES = Shelf(
    "degla.losses", "loss", extensible=True, holds=("degla.losses.Loss", "degla.losses.StatefulLoss"),
    reserved=(frozenset(_METRICS), "another column of metrics.jsonl"),
)  # fmt: skip
_RULE = ("degla.negatives.rule.NegativeRule",)
RULES = Shelf("degla.negatives.rules", "rule", extensible=True, holds=_RULE)
POSITIVES = Shelf("degla.negatives.positives", "rule for positives", extensible=True, holds=_RULE)
BENCHMARKS = Shelf(
    "degla.evaluation.benchmarks", "benchmark", extensible=True, holds=("degla.evaluation.benchmark.Benchmark",)
)
RECIPES = Shelf("degla.recipes", "recipe", extensible=True)
DRAWS = Shelf("degla.data.draws", "draw of negatives", extensible=True)
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

TEXT_SOLVABLE_RULES = ("add_attribute", "add_object", "negation")
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
