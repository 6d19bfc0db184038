"""Graphs from files: Planetoid's own pickles, the same as arrays, ogbn's tables; and the embedded block model."""

from __future__ import annotations

import gzip
import io
import pickle
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degla.errors import InputError
from degla.systems.arrays import read_arrays, whole_numbers
from degla.systems.ugcl.graph import Graph, undirected

_ARRAYS: Final = ("indptr", "indices", "data", "shape", "label", "edges", "train", "val", "test")
_PARTS: Final = ("x", "y", "tx", "ty", "allx", "ally", "graph")
_VALIDATION: Final = 500
_MODULES: Final = {
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "scipy.sparse.csr": ("csr_matrix",),
    "scipy.sparse._csr": ("csr_matrix",),
    "collections": ("defaultdict",),
    "__builtin__": ("list",),
    "builtins": ("list",),
    "_codecs": ("encode",),
}
"""All that Planetoid's pickles name; nothing else is ever loaded from one."""


def read_graph(path: Path) -> Graph:
    """A graph from what lies at `path`.

    Args:
        path: an `.npz` of CSR features (indptr, indices, data, shape), label, edges, train, val and test; the file
            `ind.NAME.x` of Planetoid, with the others beside it; or a raw folder of ogbn (`edge.csv.gz`,
            `node-feat.csv.gz`, `node-label.csv.gz`) with `split/` beside it.

    Raises:
        InputError: there is no such graph, or a file of it is damaged; see also `Graph`.
    """
    if path.is_file():
        planetoid = re.fullmatch(r"ind\.(\w+)\.x", path.name)
        return _from_pickles(path.parent, planetoid[1]) if planetoid else _from_arrays(path)
    if (path / "edge.csv.gz").is_file():
        return _from_ogbn(path)
    raise InputError(f"{path}: no graph: neither an .npz, nor Planetoid's ind.NAME.x, nor a folder with edge.csv.gz.")


def row_normalised(rows: Tensor) -> Tensor:
    """Rows that sum to one, as citation graphs are read; a row of zeros stays."""
    return rows / rows.sum(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


def _from_arrays(path: Path) -> Graph:
    from scipy.sparse import csr_matrix

    held = read_arrays(path, _ARRAYS, what="a graph")
    try:
        rows = csr_matrix((held["data"], held["indices"], held["indptr"]), shape=tuple(held["shape"])).toarray()
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as arrays: {error}") from None
    splits = {part: whole_numbers(held[part], where=f"{path}: {part}") for part in ("train", "val", "test")}
    edges = whole_numbers(held["edges"], where=f"{path}: edges")
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise InputError(f"{path}: edges must be rows of two nodes, and have the shape {edges.shape}.")
    return _graph(path.stem, rows, edges.T, whole_numbers(held["label"], where=f"{path}: label"), splits)


def _from_pickles(folder: Path, name: str) -> Graph:
    held = {part: _unpickle(folder / f"ind.{name}.{part}") for part in _PARTS}
    try:
        order = np.loadtxt(folder / f"ind.{name}.test.index", dtype=np.int64, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: ind.{name}.test.index cannot be read: {error}") from None
    first, last = int(order.min()), int(order.max())
    known = held["allx"].shape[0]
    if first != known or len(order) != held["tx"].shape[0]:
        raise InputError(f"{folder}: ind.{name}.test.index does not go on after the {known} rows of allx.")
    # Test nodes lie in the file's own order, and those that the index leaves out have neither words nor a class.
    rows = np.zeros((last + 1, held["allx"].shape[1]), dtype=np.float32)
    label = np.full(last + 1, -1)
    rows[:known], rows[order] = held["allx"].toarray(), held["tx"].toarray()
    for places, one_hot in ((np.arange(known), held["ally"]), (order, held["ty"])):
        label[places] = np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1)
    pairs = [(one, other) for one, others in held["graph"].items() for other in others]
    trained = held["y"].shape[0]
    splits = {
        "train": np.arange(trained),
        "val": np.arange(trained, min(trained + _VALIDATION, known)),
        "test": np.sort(order),
    }
    return _graph(name, rows, np.array(pairs).T, label, splits)


def _from_ogbn(folder: Path) -> Graph:
    split = next(iter(sorted(folder.parent.glob("split/*"))), None)
    if split is None:
        raise InputError(f"{folder.parent}: has no split/ with train.csv.gz, valid.csv.gz and test.csv.gz.")
    files = {"train": "train", "val": "valid", "test": "test"}
    splits = {part: _numbers(split / f"{name}.csv.gz").ravel() for part, name in files.items()}
    label = _table(folder / "node-label.csv.gz").ravel()
    edges = _numbers(folder / "edge.csv.gz").T
    label = np.where(np.isnan(label), -1, label)
    return _graph(folder.parent.name, _table(folder / "node-feat.csv.gz"), edges, label, splits, words=False)


def _graph(name: str, rows: Any, edges: Any, label: Any, splits: dict[str, Any], *, words: bool = True) -> Graph:
    features = torch.as_tensor(np.asarray(rows, dtype=np.float32))
    return Graph(
        name=name,
        features=row_normalised(features) if words else features,
        edges=undirected(torch.as_tensor(np.ascontiguousarray(edges, dtype=np.int64))),
        label=torch.as_tensor(np.asarray(label, dtype=np.int64)),
        train=torch.as_tensor(splits["train"]),
        validation=torch.as_tensor(splits["val"]),
        test=torch.as_tensor(splits["test"]),
    )


def _numbers(path: Path) -> NDArray[np.int64]:
    return whole_numbers(_table(path), where=str(path))


def _table(path: Path) -> NDArray[np.float64]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return np.genfromtxt(stream, delimiter=",", ndmin=2)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a table of numbers: {error}") from None


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only what a graph is made of: a pickle can name any program."""
        if name not in _MODULES.get(module, ()):
            raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of a graph")
        return super().find_class(
            {"__builtin__": "builtins", "scipy.sparse.csr": "scipy.sparse"}.get(module, module), name
        )


def _unpickle(path: Path) -> Any:
    try:
        return _Reader(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}. Planetoid has a file for each of {', '.join(_PARTS)}."
        ) from None
    except Exception as error:
        raise InputError(f"{path}: is no file of Planetoid: {error}") from None


def block_model(
    *,
    seed: int,
    classes: int = 5,
    members: int = 160,
    within: float = 0.02,
    between: float = 0.0025,
    words: int = 600,
    spoken: int = 14,
    lean: float = 2.2,
    labelled: int = 10,
) -> Graph:
    """A graph like a citation graph: more edges within a class, and a few words a node, those of its class likelier.

    Args:
        seed: of everything.
        classes: number of blocks.
        members: nodes of each.
        within: probability of an edge of two nodes of one class.
        between: of two classes.
        words: number of words; each class has its share of them, one after another, as its own.
        spoken: words of a node, all different.
        lean: how much likelier a node takes a word of its class.
        labelled: nodes of each class that the probe is trained on; as many choose settings, the rest is scored.
    """
    chance = torch.Generator().manual_seed(seed)
    nodes, share = classes * members, words // classes
    label = torch.arange(classes).repeat_interleave(members)
    first, second = torch.triu_indices(nodes, nodes, offset=1)
    odds = torch.where(label[first] == label[second], within, between)
    linked = torch.rand(len(odds), generator=chance) < odds
    topic = (torch.arange(words) // share).clamp(max=classes - 1)
    weights = torch.where(label[:, None] == topic[None, :], lean, 1.0)
    said = torch.multinomial(weights, spoken, generator=chance)
    order = torch.stack([torch.randperm(members, generator=chance) + block * members for block in range(classes)])
    return Graph(
        name="block model",
        features=row_normalised(torch.zeros(nodes, words).scatter_(1, said, 1.0)),
        edges=torch.stack([first[linked], second[linked]]),
        label=label,
        train=order[:, :labelled].flatten(),
        validation=order[:, labelled : 2 * labelled].flatten(),
        test=order[:, 2 * labelled :].flatten(),
    )
