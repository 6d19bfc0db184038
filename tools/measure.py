"""Measure the code base: size of the package, repeated names and import cycles, and the length of one pair's path.

Usage: python tools/measure.py [--json FILE] [--against COMMIT or FILE] [--run]. The package is not imported,
except with `--run`, which needs PyTorch. `docs/house.json` has the figures to compare with.

Definitions:

* Code line: a line that is not blank, not only a comment and not in a docstring. Every statement that is only a string
  is a docstring, including those below fields and constants. A blank line within any other string is blank.
* Room: a sub-package directly below the package; top-level modules are in "(top)".
* Long function: more than 80 lines of any kind from `def` to the end. Methods and nested functions count as functions,
  lambdas do not.
* Public function: a function of a module or method of a class of a module, where no part of its dotted name (folders,
  module, class, function) starts with "_", which excludes special methods. Overloads do not count.
* Parameter: every parameter, including `*args` and `**kwargs`, except a method's `self` or `cls`.
* Type name: a top-level class whose name does not start with "_", or a top-level alias: `Name = ...` with a name in
  mixed case and a subscript or union on the right; `Name: TypeAlias = ...`; a NewType or namedtuple. Type variables do
  not count. It is listed if more than one module defines it. "same" means that the definitions of an alias are
  identical.
* Function name in several modules: of public functions outside classes. The modules of one shelf folder (each
  `Shelf("package", ...)` in the source) count as one, since a common name is the convention there.
* Import cycle of files: a strongly connected component of more than one module, where a module points to each one that
  it imports (`from package import name` is the module of that name, if there is one; that Python also runs the parent
  packages does not count). There are three kinds of imports: at module level, within a function, and below
  `if TYPE_CHECKING`. Imports by a computed name, as in shelves, are not detected.
* Import cycle of rooms: the same between the sub-packages and modules within one package, each with all its contents,
  if at least one is a sub-package. The package's own `__init__` is excluded. Below a cycle, the pairs in it that import
  each other are listed, with the number of importing files on each side.
* Path of a pair: the distinct `def` functions of the package that run in this process while `degla train` goes from the
  first opening of the caption file to the first batch from PyTorch's data loader, and from there to the call of
  `backward` on the loss; functions active at the start of a part are included. What runs between the first opening of
  the model's files and the start of the first batch (loading the model, building optimiser and run) is listed
  separately. Path of a negative: the same from the opening of a file with one caption to the end of `degla negatives`
  with one rule. Module imports, comprehensions, lambdas and generated methods do not count.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "degla"
LONG = 80
MANY = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef
STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
ImportKind = Literal["module", "function", "typing"]
Imports = Mapping[str, set[tuple[ImportKind, str]]]
Graph = Mapping[str, set[str]]
Figures = dict[str, Any]

KINDS: dict[str, tuple[ImportKind, ...]] = {
    "at module level": ("module",),
    "with those within functions": ("module", "function"),
    "with those for type checking": ("module", "typing"),
    "with all": ("module", "function", "typing"),
}
"""The kinds of imports behind each list of file cycles."""
ROOM_KINDS = ("at module level", "with all")
"""The same for rooms."""

CAPTION = "a red square above a blue circle"
TRAIN = (
    "train degla --model local-dir:{model} --data.captions {captions} --data.images {images} "
    "--data.negatives {negatives} --data.negatives-per-caption 2 --data.workers 0 --train.steps 1 --train.batch-size 4 "
    "--train.precision fp32 --out {out}"
)
NEGATIVES = "negatives {caption} --out {out} --rules swap_nouns"


@dataclass(frozen=True)
class Module:
    """One file of the package.

    Attributes:
        name: dotted name without the package's own; "" is the package's `__init__`.
        is_package: whether it is an `__init__`.
        tree: syntax tree.
        text: source text.
        code_lines: number of code lines.
    """

    name: str
    is_package: bool
    tree: ast.Module
    text: str
    code_lines: int

    @property
    def room(self) -> str:
        """The sub-package that contains it."""
        first, _, rest = self.name.partition(".")
        return first if rest or (self.is_package and first) else "(top)"

    @property
    def file(self) -> str:
        """Its path below the package."""
        path = Path(*self.name.split("."))
        return (path / "__init__.py" if self.is_package else path.with_suffix(".py")).as_posix()


def read_modules(folder: Path) -> list[Module]:
    """Read all files of a package, sorted by name.

    Args:
        folder: folder of the package.
    """
    modules = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, is_package, tree, text, count_code_lines(text, tree)))
    return modules


def count_code_lines(text: str, tree: ast.Module) -> int:
    """Return the number of code lines of a file."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            numbers.update(range(token.start[0], token.end[0] + 1))
    for node in statements_of(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            numbers.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = text.splitlines()
    return sum(bool(lines[number - 1].strip()) for number in numbers)


def statements_of(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements, and the parts of statements that contain some; expressions contain none."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, STATEMENTS):
            yield node
            yield from statements_of(node)


def functions_of(tree: ast.AST, prefix: str = "", *, in_class: bool = False) -> Iterator[tuple[str, Function, bool]]:
    """Yield all functions in text order, with dotted name and whether each is a method."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield f"{prefix}{node.name}", node, in_class
            yield from functions_of(node, f"{prefix}{node.name}.<locals>.")
        elif isinstance(node, ast.ClassDef):
            yield from functions_of(node, f"{prefix}{node.name}.", in_class=True)
        elif isinstance(node, STATEMENTS):
            yield from functions_of(node, prefix, in_class=in_class)


def public_functions(modules: Iterable[Module]) -> Iterator[tuple[Module, str, Function]]:
    """Yield all public functions and methods with their names within the module."""
    for module in modules:
        for name, function, _ in functions_of(module.tree):
            dotted = f"{module.name}.{name}".split(".")
            is_overload = any(ast.unparse(each).endswith("overload") for each in function.decorator_list)
            if "<locals>" not in dotted and not any(part.startswith("_") for part in dotted) and not is_overload:
                yield module, name, function


def count_parameters(function: Function, *, is_method: bool) -> int:
    """Return the number of parameters that a caller can give."""
    given = function.args
    count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    is_static = any(ast.unparse(each) == "staticmethod" for each in function.decorator_list)
    return count + bool(given.vararg) + bool(given.kwarg) - (is_method and not is_static)


def type_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Return public type names that a module defines, with the text of an alias ("" for a class)."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            name, value = node.name, ""
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and _is_alias(node.targets[0], node.value):
            name, value = ast.unparse(node.targets[0]), ast.unparse(node.value)
        elif isinstance(node, ast.AnnAssign) and node.value and ast.unparse(node.annotation).endswith("TypeAlias"):
            name, value = ast.unparse(node.target), ast.unparse(node.value)
        else:
            continue
        if not name.startswith("_"):
            yield name, value


def _is_alias(target: ast.expr, value: ast.expr) -> bool:
    if not isinstance(target, ast.Name) or not target.id[:1].isupper() or target.id.isupper():
        return False
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in ("NewType", "namedtuple", "NamedTuple", "TypedDict")
    is_union = isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
    return is_union or isinstance(value, ast.Subscript)


def repeated_types(modules: Iterable[Module]) -> dict[str, list[str]]:
    """Return public type names that several modules define, each with those modules."""
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for module in modules:
        for name, value in type_names(module.tree):
            places[name].append((module.name, value))
    return {
        name: [
            module + (" (same)" if value and sum(value == other for _, other in given) > 1 else "")
            for module, value in given
        ]
        for name, given in sorted(places.items())
        if len({module for module, _ in given}) > 1
    }


def repeated_functions(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Return names of public functions outside classes that several modules define; a shelf counts as one."""
    shelves = set(shelf_packages(modules))
    places: dict[str, set[str]] = defaultdict(set)
    for module, name, _ in public_functions(modules):
        if "." not in name:
            parent = module.name.rpartition(".")[0]
            on_shelf = not module.is_package and parent in shelves
            places[name].add(f"{parent}.*" if on_shelf else module.name)
    return {name: sorted(given) for name, given in sorted(places.items()) if len(given) > 1}


def shelf_packages(modules: Iterable[Module]) -> list[str]:
    """Return the folders that the source declares as shelves."""
    trees = [module.tree for module in modules if "Shelf(" in module.text]
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = [call.args[0] for call in calls if call.args and ast.unparse(call.func).rpartition(".")[2] == "Shelf"]
    texts = [each.value for each in named if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return sorted({text.partition(".")[2] for text in texts})


def imports_of(module: Module, package: str, known: set[str]) -> Iterator[tuple[ImportKind, str]]:
    """Yield the modules of its own package that a module imports."""
    for kind, node in _import_statements(module.tree, "module"):
        if isinstance(node, ast.Import):
            targets = [name.name for name in node.names]
        else:
            base = node.module or ""
            if node.level:
                above = [package, *module.name.split(".")] if module.name else [package]
                above = above[: len(above) + module.is_package - node.level]
                base = ".".join([*above, base] if base else above)
            targets = [f"{base}.{name.name}" for name in node.names]
        for target in targets:
            first, _, name = target.partition(".")
            if first == package:
                found = name if name in known else name.rpartition(".")[0]
                if found in known and found != module.name:
                    yield kind, found


def _import_statements(node: ast.AST, kind: ImportKind) -> Iterator[tuple[ImportKind, ast.Import | ast.ImportFrom]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield kind, node
    elif isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
        for each in node.body:
            yield from _import_statements(each, "typing")
        for each in node.orelse:
            yield from _import_statements(each, kind)
    else:
        inside: ImportKind = "function" if isinstance(node, Function) and kind == "module" else kind
        for child in ast.iter_child_nodes(node):
            if isinstance(child, STATEMENTS):
                yield from _import_statements(child, inside)


def import_graph(imports: Imports, kinds: Sequence[ImportKind]) -> dict[str, set[str]]:
    """Return for each module those that it imports with the given kinds of imports."""
    return {module: {target for kind, target in found if kind in kinds} for module, found in imports.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Return strongly connected components of more than one node, sorted."""
    reach = {node: _reachable(graph, node) for node in graph}
    found = {frozenset(other for other in reach[node] if node in reach[other]) for node in graph if node in reach[node]}
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(graph[node])
    return seen


def room_circles(graph: Graph, packages: Iterable[str]) -> list[Figures]:
    """Return cycles between sub-packages and modules of one package, with the pairs that import each other.

    Args:
        graph: import graph of the modules.
        packages: names of all packages, including the whole one ("").
    """
    found: list[Figures] = []
    packages = sorted(packages)
    for package in packages:
        above = f"{package}." if package else ""
        level: dict[str, set[str]] = defaultdict(set)
        importers: dict[tuple[str, str], set[str]] = defaultdict(set)
        for module, targets in graph.items():
            member = _member(module, above)
            for target in targets if member else ():
                other = _member(target, above)
                if other and other != member:
                    level[member].add(other)
                    level.setdefault(other, set())
                    importers[member, other].add(module)
        for circle in circles(level):
            if any(member in packages for member in circle):
                pairs = [(one, two) for one in circle for two in circle if one < two]
                mutual = [pair for pair in pairs if pair in importers and pair[::-1] in importers]
                both = {f"{one} <-> {two}": [len(importers[one, two]), len(importers[two, one])] for one, two in mutual}
                found.append({"members": circle, "importing_files_each_way": both})
    return found


def _member(module: str, above: str) -> str:
    """The sub-package or module directly below a package that contains a module; "" if there is none."""
    if not module or not module.startswith(above) or module == above[:-1]:
        return ""
    return above + module[len(above) :].partition(".")[0]


def measure(folder: Path) -> Figures:
    """Return all figures from the source text of a package.

    Args:
        folder: folder of the package, with the package's name.
    """
    modules = read_modules(folder)
    sizes = [module.code_lines for module in modules]
    rooms: dict[str, list[int]] = defaultdict(list)
    for module in modules:
        rooms[module.room].append(module.code_lines)
    largest = max(modules, key=lambda module: (module.code_lines, module.name))
    long: dict[str, int] = {}
    many: dict[str, int] = {}
    for module in modules:
        for name, function, is_method in functions_of(module.tree):
            place = f"{module.name}.{name}"
            lines = (function.end_lineno or 0) - function.lineno + 1
            parameters = count_parameters(function, is_method=is_method)
            long |= {place: lines} if lines > LONG else {}
            many |= {place: parameters} if parameters > MANY else {}
    public = [ast.get_docstring(function) is not None for _, _, function in public_functions(modules)]
    packages = [module.name for module in modules if module.is_package]
    known = {module.name for module in modules}
    imports = {module.name: set(imports_of(module, folder.name, known)) for module in modules}
    graphs = {label: import_graph(imports, kinds) for label, kinds in KINDS.items()}
    return {
        "files": len(sizes),
        "lines": sum(len(module.text.splitlines()) for module in modules),
        "code_lines": sum(sizes),
        "median_file": statistics.median(sizes),
        "largest_file": {"file": largest.file, "code_lines": largest.code_lines},
        "rooms": {name: {"files": len(each), "code_lines": sum(each)} for name, each in sorted(rooms.items())},
        "long_functions": _by_size(long),
        "public_functions": {"count": len(public), "with_docstring": sum(public)},
        "functions_with_many_parameters": _by_size(many),
        "type_names_in_several_modules": repeated_types(modules),
        "function_names_in_several_modules": repeated_functions(modules),
        "circles_of_files": {label: circles(graph) for label, graph in graphs.items()},
        "circles_of_rooms": {label: room_circles(graphs[label], packages) for label in ROOM_KINDS},
    }


def _by_size(sizes: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0])))


class _Enough(BaseException):
    """Raised once the loss is computed, to stop measuring."""


@dataclass
class Tracer:
    """Record which functions of a package run in each phase of a run.

    Attributes:
        folder: folder of the package.
        phase: current phase; None if nothing is recorded.
        functions: (file, name, line of `def`) by phase.
    """

    folder: Path
    phase: str | None = None
    functions: dict[str, set[tuple[str, str, int]]] = field(default_factory=lambda: defaultdict(set))
    _importing: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def begin(self, phase: str) -> None:
        """Start a phase; active functions are part of it."""
        self.phase = phase
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            self._note(frame.f_code)
            frame = frame.f_back

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace this thread and those that it starts."""
        threading.setprofile(self._hear)
        sys.setprofile(self._hear)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def counts(self, *phases: str) -> Figures:
        """Return the numbers of files and functions that ran in these phases together."""
        ran = set().union(*(self.functions[phase] for phase in phases))
        return {"files": len({file for file, _, _ in ran}), "functions": len(ran)}

    def _hear(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if code.co_name == "<module>" and event in ("call", "return"):
            self._importing[threading.get_ident()] += 1 if event == "call" else -1
        elif event == "call" and self.phase is not None and not self._importing[threading.get_ident()]:
            self._note(code)

    def _note(self, code: CodeType) -> None:
        if self.phase is None or not code.co_filename.startswith(f"{self.folder}{os.sep}"):
            return
        # No modules, class bodies or nameless code.
        if code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<"):
            self.functions[self.phase].add((code.co_filename, code.co_qualname, code.co_firstlineno))


def trace_training(folder: Path) -> Figures:
    """Count functions that run from a caption file to the loss of one step of `degla train`, in this process.

    Args:
        folder: folder for the tiny model, the pairs and the run.
    """
    import torch
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    sys.path.insert(0, str(ROOT))
    from tests.tiny import write_model, write_pairs

    pairs = write_pairs(folder / "pairs")
    model = write_model(folder / "model")
    tracer = _package_tracer()
    parts = ("reading", "setting up", "batch", "loss")

    def hear_open(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | os.PathLike):
            return
        path = Path(arguments[0])
        if tracer.phase is None and not tracer.functions and path == pairs["captions"]:
            tracer.begin("reading")
        elif tracer.phase == "reading" and path.is_relative_to(model):
            tracer.begin("setting up")

    give_batch = _BaseDataLoaderIter.__next__

    def watch_batch(loader: Any) -> Any:
        if tracer.phase not in ("reading", "setting up"):
            return give_batch(loader)
        tracer.begin("batch")
        batch = give_batch(loader)
        tracer.begin("loss")
        return batch

    def watch_backward(*_: Any, **__: Any) -> None:
        tracer.phase = None  # closing the run is not on a pair's path
        raise _Enough

    sys.addaudithook(hear_open)
    for owner, name, watch in (
        (_BaseDataLoaderIter, "__next__", watch_batch),
        (torch.Tensor, "backward", watch_backward),
    ):
        setattr(owner, name, watch)
    words = TRAIN.format(**pairs, model=model, out=folder / "run")
    with contextlib.suppress(_Enough), tracer.tracing():
        _run_command(words)
    if missing := [part for part in parts if not tracer.functions[part]]:
        raise SystemExit(f"degla {words}: nothing ran in {', '.join(missing)}")
    return {
        "captions to batch": tracer.counts("reading", "batch"),
        "batch to loss": tracer.counts("loss"),
        "captions to loss": tracer.counts("reading", "batch", "loss"),
        "setting up the run": tracer.counts("setting up"),
        "captions to loss and setting up": tracer.counts(*parts),
    }


def trace_negatives(folder: Path) -> Figures:
    """Count functions that run from one caption to its negative by one rule, in this process.

    Args:
        folder: folder for the caption file and the negatives.
    """
    caption, out = folder / "caption.jsonl", folder / "made.jsonl"
    caption.write_text(json.dumps({"id": "1", "image": "1.png", "text": CAPTION}) + "\n")
    tracer = _package_tracer()

    def hear_open(event: str, arguments: tuple[Any, ...]) -> None:
        is_path = event == "open" and isinstance(arguments[0], str | os.PathLike)
        if is_path and not tracer.functions and Path(arguments[0]) == caption:
            tracer.begin("negative")

    sys.addaudithook(hear_open)
    # A slow machine would print more timed progress, and so run more functions than a fast one.
    started = time.monotonic()
    time.monotonic = lambda: started
    with tracer.tracing():
        _run_command(NEGATIVES.format(caption=caption, out=out))
    tracer.phase = None
    if '"accepted":true' not in out.read_text().replace(" ", ""):
        raise SystemExit(f"no negative was made for {CAPTION!r}")
    return {"caption to negative": tracer.counts("negative")}


TRACES: dict[str, Callable[[Path], Figures]] = {"training": trace_training, "negatives": trace_negatives}


def _package_tracer() -> Tracer:
    import degla

    return Tracer(Path(degla.__file__).parent)


def _run_command(words: str) -> None:
    from degla.cli import main

    with contextlib.redirect_stdout(sys.stderr):
        status = main(words.split())
    if status:
        raise SystemExit(f"degla {words}: ended with {status}")


def trace(source: Path) -> Figures:
    """Run all traces of the package below `source`, each in a separate process.

    A trace that the tree's command line no longer accepts is reported and skipped.
    """
    figures: Figures = {}
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for name in TRACES:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--trace", name, folder]
            # An empty cache: what an earlier run left there would not be made again.
            cold = environment | {"DEGLA_CACHE": f"{folder}/cache"}
            done = subprocess.run(command, env=cold, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(f"{name} cannot be traced: {done.stderr.strip()[-1000:]}\n")
        else:
            figures |= json.loads(done.stdout)
    return figures


def measure_tree(root: Path, *, run: bool) -> Figures:
    """Return the figures of a tree, including those of real runs if `run` is set."""
    figures = measure(root / "src" / PACKAGE)
    return figures | ({"ways": trace(root / "src")} if run else {})


def measure_commit(commit: str, *, run: bool) -> Figures:
    """Return the figures of a commit of this repository."""
    name = _git("rev-parse", "--short=12", f"{commit}^{{commit}}").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", name, "src"))) as packed:
            packed.extractall(folder, filter="data")
        return {"commit": name} | measure_tree(Path(folder), run=run)


def commit_here() -> str:
    """Return the commit of this tree, with a "+" if the source differs from it."""
    name = _git("rev-parse", "--short=12", "HEAD").decode().strip()
    return name + ("+" if _git("status", "--porcelain", "src") else "")


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


def rows_of(figures: Figures) -> dict[str, str]:
    """Return the figures as labels and cells, in table order."""
    largest, public = figures["largest_file"], figures["public_functions"]
    share = public["with_docstring"] / public["count"] if public["count"] else 1.0
    rows = {
        "commit": figures.get("commit", ""),
        "files": f"{figures['files']}",
        "lines of any kind": f"{figures['lines']:,}",
        "code lines": f"{figures['code_lines']:,}",
        "code lines of the median file": f"{figures['median_file']:g}",
        "code lines of the largest file": f"{largest['code_lines']} {largest['file']}",
        f"functions of more than {LONG} lines": f"{len(figures['long_functions'])}",
        "public functions": f"{public['count']:,}",
        "  with a docstring": f"{share:.1%}",
        f"functions of more than {MANY} parameters": f"{len(figures['functions_with_many_parameters'])}",
        "type names in several modules": f"{len(figures['type_names_in_several_modules'])}",
        "function names in several modules": f"{len(figures['function_names_in_several_modules'])}",
    }
    for kind in ("files", "rooms"):
        for label, found in figures[f"circles_of_{kind}"].items():
            rows[f"import cycles of {kind}, {label}"] = f"{len(found)}"
    for label, way in figures.get("ways", {}).items():
        rows[label] = f"{way['files']} files, {way['functions']} functions"
    for name, room in figures["rooms"].items():
        rows[f"room {name}"] = f"{room['code_lines']:,} code lines in {room['files']} files"
    return rows


def lists_of(figures: Figures) -> dict[str, list[str]]:
    """Return the lists behind the figures, by title."""
    lists = {
        f"functions of more than {LONG} lines": [
            f"{count:3} {name}" for name, count in figures["long_functions"].items()
        ],
        f"functions of more than {MANY} parameters": [
            f"{count:3} {name}" for name, count in figures["functions_with_many_parameters"].items()
        ],
    }
    for kind in ("type", "function"):
        repeated = figures[f"{kind}_names_in_several_modules"]
        lists[f"{kind} names in several modules"] = [f"{name}: {', '.join(at)}" for name, at in repeated.items()]
    for label, found in figures["circles_of_files"].items():
        lists[f"import cycles of files, {label}"] = [" - ".join(circle) for circle in found]
    for label, found in figures["circles_of_rooms"].items():
        lists[f"import cycles of rooms, {label}"] = [
            f"{' - '.join(circle['members'])}"
            + "".join(
                f"\n      {pair} ({a} and {b} files)" for pair, (a, b) in circle["importing_files_each_way"].items()
            )
            for circle in found
        ]
    return lists


def render(now: Figures, before: Figures | None = None) -> str:
    """Render the table, with before and after if given, and the lists; "-" marks removed and "+" added entries."""
    new, old = rows_of(now), rows_of(before) if before else {}
    labels = [*new, *(label for label in old if label not in new)]
    width = max(map(len, labels))
    middle = max((len(cell) for cell in old.values()), default=0)
    lines = [
        f"{label:<{width}}  " + (f"{old.get(label, '-'):<{middle}}  " if before else "") + new.get(label, "-")
        for label in labels
    ]
    gone = lists_of(before) if before else {}
    for title, entries in lists_of(now).items():
        lines += ["", f"{title}:"]
        earlier = gone.get(title, [])
        for entry in sorted({*entries, *earlier}, key=[*entries, *earlier].index):
            mark = "" if not before or (entry in entries and entry in earlier) else "+ " if entry in entries else "- "
            lines.append(f"  {mark}{entry}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure this tree, and another if requested; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of this tree to a file")
    parser.add_argument("--against", metavar="COMMIT", help="compare with a commit, or with a file written by --json")
    parser.add_argument("--run", action="store_true", help="also count functions on a pair's and a negative's path")
    parser.add_argument("--trace", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.trace:
        name, folder = given.trace
        sys.stdout.write(json.dumps(TRACES[name](Path(folder))))
        return 0
    now = {"commit": commit_here()} | measure_tree(ROOT, run=given.run)
    before = None
    try:
        if given.against and Path(given.against).is_file():
            before = json.loads(Path(given.against).read_text(encoding="utf-8"))
        elif given.against:
            before = measure_commit(given.against, run=given.run)
        text = render(now, before)
    except (ValueError, KeyError, TypeError, AttributeError, subprocess.CalledProcessError):
        parser.error(f"--against {given.against}: neither a commit of this repository nor a file written by --json")
    sys.stdout.write(text)
    if given.json:
        given.json.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
