"""Graphs with words and labels, their adjacency, and smoothing over n hops; from files, WordNet, or a block model.

Files: Planetoid's own pickles, the same as arrays, and ogbn's tables.
"""

from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from degla.errors import InputError
from degla.parse import read_bytes, read_gzip, read_text, unpickle
from degla.systems.arrays import read_arrays, reading, require_disjoint, whole_numbers

Smoothing = Literal["power", "binomial"]
"""How n hops are taken: A~^n, as in the paper, or (I + A~)^n, as in the released script for citation graphs."""
_ARRAYS: Final = ("indptr", "indices", "data", "shape", "label", "edges", "train", "val", "test")
_PARTS: Final = ("x", "y", "tx", "ty", "allx", "ally", "graph")
_PLANETOID: Final = re.compile(r"ind\.(\w+)\.x")
_VALIDATION: Final = 500
EMBEDDED: Final = Path(__file__).with_name("wordnet.tsv.gz")
"""799 nouns of WordNet 3.0: class and definition of each, then pairs of related ones; see its notice."""
_RARE: Final = 3
"""Nouns in whose definitions a word must be to count."""


@dataclass(frozen=True)
class Graph:
    """An undirected graph whose nodes have features and, some of them, a class.

    Attributes:
        name: name for tables and messages.
        features: features of each node.
        edges: pairs of different nodes, each once.
        label: class of each node, -1 where it has none.
        train: nodes that the probe is trained on.
        validation: nodes for choosing settings.
        test: test nodes.

    Raises:
        InputError: an edge or a split refers to a node that does not exist, the numbers of labels and nodes differ, a
            node of a split has no class or is in another split too, or a feature is not finite.
    """

    name: str
    features: Float[Tensor, "nodes features"]
    edges: Int[Tensor, "2 edges"]
    label: Int[Tensor, " nodes"]
    train: Int[Tensor, " train"]
    validation: Int[Tensor, " validation"]
    test: Int[Tensor, " test"]

    def __post_init__(self) -> None:
        nodes = len(self.features)
        if self.label.shape != (nodes,):
            shape = " x ".join(map(str, self.label.shape))
            raise InputError(f"{self.name}: {shape} labels for {nodes} nodes; there must be one per node.")
        if not self.features.isfinite().all():
            node = int((~self.features.isfinite()).any(dim=1).nonzero()[0])
            raise InputError(f"{self.name}: node {node} has a feature that is not finite. Fix or remove it.")
        outside = self.edges[(self.edges < 0) | (self.edges >= nodes)]
        if len(outside):
            raise InputError(f"{self.name}: an edge refers to node {int(outside[0])}; nodes are 0 to {nodes - 1}.")
        for part in ("train", "validation", "test"):
            numbers = getattr(self, part)
            if not len(numbers) or not 0 <= int(numbers.min()) <= int(numbers.max()) < nodes:
                raise InputError(f"{self.name}: the {part} split is empty or has nodes outside 0 to {nodes - 1}.")
            bare = numbers[self.label[numbers] < 0]
            if len(bare):
                raise InputError(f"{self.name}: node {int(bare[0])} of the {part} split has no label. Remove it.")
        parts = {part: getattr(self, part).tolist() for part in ("train", "validation", "test")}
        require_disjoint(self.name, parts, say="node {}".format)
        if len(set(self.label[self.train].tolist())) < 2:
            raise InputError(f"{self.name}: the train split has only one class; a probe needs two or more.")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.label.max()) + 1

    @property
    def isolated(self) -> int:
        """Number of nodes without an edge; they are their own context, whatever the scope."""
        return len(self.features) - len(set(self.edges.flatten().tolist()))


def undirected(pairs: Int[Tensor, "2 pairs"]) -> Int[Tensor, "2 edges"]:
    """Convert pairs in any direction and number to edges: each once, the smaller node first, without self-loops."""
    ordered = torch.stack([pairs.min(dim=0).values, pairs.max(dim=0).values])
    edges: Tensor = torch.unique(ordered[:, ordered[0] != ordered[1]], dim=1)
    return edges


def normalised_adjacency(edges: Int[Tensor, "2 edges"], nodes: int) -> Float[Tensor, "nodes nodes"]:
    """Return the sparse A~ = D^-1/2 (A + I) D^-1/2, with D the row sums of A + I; each node has one self-loop."""
    once = undirected(edges)
    loops = torch.arange(nodes)
    places = torch.cat([once, once.flip(0), torch.stack([loops, loops])], dim=1)
    degree = torch.bincount(places[0], minlength=nodes).to(torch.get_default_dtype())
    values = (degree[places[0]] * degree[places[1]]).rsqrt()
    return torch.sparse_coo_tensor(places, values, (nodes, nodes), check_invariants=True).coalesce()


def propagate(
    adjacency: Float[Tensor, "nodes nodes"], rows: Float[Tensor, "nodes dim"], hops: int, *, form: Smoothing = "power"
) -> Float[Tensor, "nodes dim"]:
    """Return A~^n X, or (I + A~)^n X; n = 0 is X itself. `rows` is not changed.

    Args:
        adjacency: A~, sparse or dense.
        rows: X.
        hops: n, 0 or more.
        form: what is raised to the power.
    """
    for _ in range(hops):
        neighbours = adjacency @ rows
        rows = neighbours if form == "power" else rows + neighbours
    return rows


def read_graph(path: Path) -> Graph:
    """Read a graph.

    Args:
        path: an `.npz` of CSR features (indptr, indices, data, shape), label, edges, train, val and test; the file
            `ind.NAME.x` of Planetoid, next to its other files; or a raw folder of ogbn (`edge.csv.gz`,
            `node-feat.csv.gz`, `node-label.csv.gz`) next to `split/`.

    Raises:
        InputError: there is no such graph, or one of its files is damaged; see also `Graph`.
    """
    if path.is_file():
        planetoid = _PLANETOID.fullmatch(path.name)
        return _from_pickles(path.parent, planetoid[1]) if planetoid else _from_arrays(path)
    if (path / "edge.csv.gz").is_file():
        return _from_ogbn(path)
    wrong = "not a graph" if path.exists() else "no such file or folder"
    raise InputError(f"{path}: {wrong}. Use an .npz, Planetoid's ind.NAME.x, or a folder with edge.csv.gz.")


def files_beside(path: Path) -> list[Path]:
    """Return the files and folders outside the path of a graph that it is also read from."""
    if planetoid := _PLANETOID.fullmatch(path.name):
        ends = [part for part in (*_PARTS, "test.index") if part != "x"]
        return [path.with_name(f"ind.{planetoid[1]}.{end}") for end in ends]
    return [path.parent / "split"] if (path / "edge.csv.gz").is_file() else []


def row_normalised(rows: Tensor) -> Tensor:
    """Scale rows to sum to 1, as for citation graphs; a row of zeros does not change."""
    return rows / rows.sum(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


def _from_arrays(path: Path) -> Graph:
    from scipy.sparse import csr_matrix

    arrays = read_arrays(path, _ARRAYS, what="a graph")
    with reading(path, "cannot be read as arrays", ValueError, TypeError):
        rows = csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"])).toarray()
    splits = {part: whole_numbers(arrays[part], where=f"{path}: {part}") for part in ("train", "val", "test")}
    edges = _edges(whole_numbers(arrays["edges"], where=f"{path}: edges", axes=2), path)
    label = arrays["label"]
    # Labels are never a mask: True and False are two classes.
    label = whole_numbers(label.astype(np.int64) if label.dtype == bool else label, where=f"{path}: label")
    return _graph(path.stem, rows, edges, label, splits)


def _edges(rows: NDArray[np.int64], where: Path) -> NDArray[np.int64]:
    if rows.shape[1] != 2:
        raise InputError(f"{where}: edges must be rows of two nodes, but have shape {rows.shape}.")
    return rows.T


def _from_pickles(folder: Path, name: str) -> Graph:
    parts = {part: _unpickle(folder / f"ind.{name}.{part}") for part in _PARTS}
    index = folder / f"ind.{name}.test.index"
    with reading(index, "cannot be read as node numbers", ValueError, OverflowError):
        order = np.array([int(word) for word in read_text(index).split()], dtype=np.int64)
        first, last = int(order.min()), int(order.max())
    kinds = (AttributeError, TypeError, ValueError, IndexError)
    with reading(folder / f"ind.{name}.x", "not a graph together with the files next to it", *kinds):
        for part in ("allx", "tx"):
            parts[part].check_format()  # Otherwise a column beyond the shape is written outside the array.
        count = parts["allx"].shape[0]
        if first != count or len(order) != parts["tx"].shape[0]:
            raise InputError(f"{folder}: ind.{name}.test.index does not continue after the {count} rows of allx.")
        # Test nodes are in the file's own order, and those missing in the index have neither words nor a class.
        rows = np.zeros((last + 1, parts["allx"].shape[1]), dtype=np.float32)
        label = np.full(last + 1, -1)
        rows[:count], rows[order] = parts["allx"].toarray(), parts["tx"].toarray()
        for places, one_hot in ((np.arange(count), parts["ally"]), (order, parts["ty"])):
            label[places] = np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1)
        pairs = [(one, other) for one, others in parts["graph"].items() for other in others]
        train_count = parts["y"].shape[0]
        splits = {
            "train": np.arange(train_count),
            "val": np.arange(train_count, min(train_count + _VALIDATION, count)),
            "test": np.sort(order),
        }
        return _graph(name, rows, np.array(pairs, dtype=np.int64).reshape(-1, 2).T, label, splits)


def _from_ogbn(folder: Path) -> Graph:
    split = next(iter(sorted(folder.parent.glob("split/*"))), None)
    if split is None:
        raise InputError(f"{folder.parent}: no split/ folder with train.csv.gz, valid.csv.gz and test.csv.gz.")
    files = {"train": "train", "val": "valid", "test": "test"}
    splits = {part: _numbers(split / f"{name}.csv.gz").ravel() for part, name in files.items()}
    label = _table(folder / "node-label.csv.gz").ravel()
    edges = _edges(_numbers(folder / "edge.csv.gz"), folder / "edge.csv.gz")
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
    return whole_numbers(_table(path), where=str(path), axes=2)


def _table(path: Path) -> NDArray[np.float64]:
    content = io.BytesIO(read_gzip(path))
    with (
        reading(path, "cannot be read as a table of numbers", ValueError),
        io.TextIOWrapper(content, encoding="utf-8") as stream,  # Of bytes, numpy would not end a line at "\r".
    ):
        return np.genfromtxt(stream, delimiter=",", ndmin=2)


def _unpickle(path: Path) -> Any:
    content = read_bytes(path, remedy=f"Planetoid has a file for each of {', '.join(_PARTS)}.")
    with reading(path, "not a Planetoid file", Exception):  # A damaged pickle may raise anything.
        return unpickle(content, encoding="latin1")


def block_model(*, seed: int, members: int = 160, words: int = 600, spoken: int = 14, labelled: int = 10) -> Graph:
    """Make a graph like a citation graph: more edges within a class, and a few words per node, more of its class.

    Two nodes of the same class have an edge with probability 0.02, of different classes with 0.0025; there are five
    classes. A word of a node's class is 2.2 times as likely as any other.

    Args:
        seed: seed of everything.
        members: nodes per class.
        words: number of words; each class has an equal, consecutive share of its own.
        spoken: words per node, all different.
        labelled: nodes per class for training the probe; as many choose settings, the rest are test nodes.
    """
    chance, classes = torch.Generator().manual_seed(seed), 5
    nodes, share = classes * members, words // classes
    label = torch.arange(classes).repeat_interleave(members)
    first, second = torch.triu_indices(nodes, nodes, offset=1)
    odds = torch.where(label[first] == label[second], 0.02, 0.0025)
    linked = torch.rand(len(odds), generator=chance) < odds
    topic = (torch.arange(words) // share).clamp(max=classes - 1)
    weights = torch.where(label[:, None] == topic[None, :], 2.2, 1.0)
    node_words = torch.multinomial(weights, spoken, generator=chance)
    order = torch.stack([torch.randperm(members, generator=chance) + block * members for block in range(classes)])
    return Graph(
        name="block model",
        features=row_normalised(torch.zeros(nodes, words).scatter_(1, node_words, 1.0)),
        edges=torch.stack([first[linked], second[linked]]),
        label=label,
        train=order[:, :labelled].flatten(),
        validation=order[:, labelled : 2 * labelled].flatten(),
        test=order[:, 2 * labelled :].flatten(),
    )


def wordnet(*, seed: int, labelled: int = 10) -> Graph:
    """Return nouns of WordNet with the words of their definitions, their relations, and eight classes.

    The classes (animal, artifact, body, communication, food, location, person, plant) are those of WordNet's
    lexicographers.

    Args:
        seed: of the split.
        labelled: nodes per class for training the probe; as many choose settings, the rest are test nodes.
    """
    with gzip.open(EMBEDDED, "rt", encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t") for line in stream]
    nouns = [(name, set(re.findall("[a-z]+", text.lower()))) for name, text in rows if not name.isdigit()]
    counts = Counter(word for _, words in nouns for word in words)
    place = {word: at for at, word in enumerate(sorted(word for word, count in counts.items() if count >= _RARE))}
    names = sorted({name for name, _ in nouns})
    label = torch.tensor([names.index(name) for name, _ in nouns])
    chance = torch.Generator().manual_seed(seed)
    members = [(label == each).nonzero()[:, 0] for each in range(len(names))]
    order = [own[torch.randperm(len(own), generator=chance)] for own in members]
    return Graph(
        name="WordNet",
        features=row_normalised(torch.tensor([[float(word in words) for word in place] for _, words in nouns])),
        edges=torch.tensor([(int(one), int(other)) for one, other in rows[len(nouns) :]]).T,
        label=label,
        train=torch.cat([own[:labelled] for own in order]),
        validation=torch.cat([own[labelled : 2 * labelled] for own in order]),
        test=torch.cat([own[2 * labelled :] for own in order]),
    )
