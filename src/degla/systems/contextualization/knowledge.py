"""Knowledge graphs with names and definitions: the two published file formats, and a part of WordNet."""

from __future__ import annotations

import gzip
import io
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import torch

from degla.errors import InputError
from degla.parse import read_bytes, read_gzip
from degla.systems.arrays import reading, require_disjoint

EMBEDDED: Final = Path(__file__).with_name("wordnet.tsv.gz")
"""1,200 senses of WordNet 3.0 with their glosses, in breadth-first order; see its notice."""
_PARTS: Final = {"train": ("train",), "validation": ("dev", "valid"), "test": ("test",)}
_TESTED: Final = 0.15


class Triple(NamedTuple):
    """Numbers of head, relation and tail in the lists of a graph."""

    head: int
    relation: int
    tail: int


@dataclass(frozen=True)
class KnowledgeGraph:
    """Entities, their relations, and the training, validation and test triples.

    Attributes:
        name: name for messages.
        entities: entity identifiers in the files.
        names: readable name of each entity.
        definitions: definition of each entity; "" if there is none.
        relations: readable names of relations.
        train: training triples.
        validation: triples for choosing settings; may be empty.
        test: test triples.

    Raises:
        InputError: there are no training or test triples, or a triple is in two of the three.
    """

    name: str
    entities: tuple[str, ...]
    names: tuple[str, ...]
    definitions: tuple[str, ...]
    relations: tuple[str, ...]
    train: tuple[Triple, ...]
    validation: tuple[Triple, ...]
    test: tuple[Triple, ...]

    def __post_init__(self) -> None:
        for part, triples in (("train", self.train), ("test", self.test)):
            if not triples:
                raise InputError(
                    f"{self.name}: there is no {part} triple. Use a larger graph, or more --entities of it."
                )
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        require_disjoint(self.name, parts, say=self.say)

    def say(self, triple: Triple) -> str:
        """Return "head | relation | tail" with names."""
        return f"{self.names[triple.head]} | {self.relations[triple.relation]} | {self.names[triple.tail]}"

    def within(self, numbers: Sequence[int], *, name: str) -> KnowledgeGraph:
        """Return the graph of only these entities, in this order; test triples need entities with training triples."""
        place = {old: new for new, old in enumerate(numbers)}

        def moved(triples: Sequence[Triple]) -> list[Triple]:
            both = (triple for triple in triples if triple.head in place and triple.tail in place)
            return [Triple(place[head], relation, place[tail]) for head, relation, tail in both]

        train = moved(self.train)
        in_training = {entity for triple in train for entity in (triple.head, triple.tail)}
        validation, test = (
            tuple(each for each in moved(triples) if {each.head, each.tail} <= in_training)
            for triples in (self.validation, self.test)
        )
        entities, names, definitions = (
            tuple(texts[old] for old in numbers) for texts in (self.entities, self.names, self.definitions)
        )
        return KnowledgeGraph(name, entities, names, definitions, self.relations, tuple(train), validation, test)


def walk(graph: KnowledgeGraph, size: int) -> list[int]:
    """Return the first entities in breadth-first order from the one with most neighbours, over all triples."""
    beside: list[dict[int, None]] = [{} for _ in graph.entities]
    for triple in (*graph.train, *graph.validation, *graph.test):
        beside[triple.head][triple.tail] = beside[triple.tail][triple.head] = None
    order = sorted(range(len(beside)), key=lambda entity: -len(beside[entity]))
    visited: dict[int, None] = {}
    for start in order:
        queue = deque([start])
        while queue and len(visited) < size:
            entity = queue.popleft()
            if entity not in visited:
                visited[entity] = None
                queue.extend(other for other in beside[entity] if other not in visited)
    return list(visited)


def embedded_graph(size: int, *, seed: int) -> KnowledgeGraph:
    """Return the first senses of the embedded part of WordNet; about 15 % of the triples each for test and validation.

    Args:
        size: number of senses, at most 1,200.
        seed: seed of the split. Each test sense also has a training triple.
    """
    with gzip.open(EMBEDDED, "rt", encoding="utf-8") as stream:
        lines = [line.rstrip("\n").split("\t") for line in stream]
    senses = [line[1:] for line in lines if line[0] == "sense"][:size]
    place = {sense[0]: number for number, sense in enumerate(senses)}
    rows = [line[1:] for line in lines if line[0] == "triple"]
    relations = sorted({relation for _, relation, _ in rows})
    selection = [(head, relation, tail) for head, relation, tail in rows if head in place and tail in place]
    triples = [Triple(place[head], relations.index(relation), place[tail]) for head, relation, tail in selection]
    parts = split(triples, seed=seed)
    columns: list[tuple[str, ...]] = [tuple(column) for column in zip(*senses, strict=True)]
    return KnowledgeGraph("wordnet", columns[0], columns[1], columns[2], tuple(relations), *parts)


def split(triples: Sequence[Triple], *, seed: int) -> tuple[tuple[Triple, ...], ...]:
    """Split triples into training, validation and test; every entity of the latter two is also in a training triple."""
    degrees = [0] * (1 + max(max(triple.head, triple.tail) for triple in triples))
    for triple in triples:
        degrees[triple.head] += 1
        degrees[triple.tail] += 1
    order = torch.randperm(len(triples), generator=torch.Generator().manual_seed(seed)).tolist()
    count = round(_TESTED * len(triples))
    held_out: list[Triple] = []
    for number in order:
        triple = triples[number]
        if len(held_out) < 2 * count and degrees[triple.head] > 1 and degrees[triple.tail] > 1:
            held_out.append(triple)
            degrees[triple.head] -= 1
            degrees[triple.tail] -= 1
    away = set(held_out)
    return tuple(each for each in triples if each not in away), tuple(held_out[count:]), tuple(held_out[:count])


def read_knowledge(folder: Path) -> KnowledgeGraph:
    """Read a graph from a folder in either published format; every file may end in `.gz`.

    * `train.tsv`, `dev.tsv`, `test.tsv` (or `.txt`, `valid.txt`) of tab-separated head, relation, tail, with
      `entity2text.txt` and `relation2text.txt` if identifiers are not readable names (KG-BERT's WN18RR, UMLS,
      FB15k-237N);
    * `train2id.txt`, `valid2id.txt`, `test2id.txt` of head, tail, relation as numbers after a line with their count,
      with `entityid2name.txt`, `entityid2description.txt`, `relationid2name.txt` (KG-S2S's and CSProm-KG's FB15k-237N).

    Raises:
        InputError: a file is missing or damaged, or a triple refers to something unknown.
    """
    if _find(folder, "train2id.txt") is not None:
        return _by_numbers(folder)
    return _by_words(folder)


def _by_words(folder: Path) -> KnowledgeGraph:
    rows_by_part = {part: list(_triples_of_words(folder, stems)) for part, stems in _PARTS.items()}
    everything = [row for rows in rows_by_part.values() for _, row in rows]
    texts = _table(folder, "entity2text.txt")
    longer = _table(folder, "entity2textlong.txt")
    names_of_relations = _table(folder, "relation2text.txt")
    entities = list(texts) or list(dict.fromkeys(word for row in everything for word in (row[0], row[2])))
    relations = list(dict.fromkeys(row[1] for row in everything))
    place, number = ({word: at for at, word in enumerate(words)} for words in (entities, relations))
    for rows in rows_by_part.values():
        for where, row in rows:
            for word in (row[0], row[2]):
                if word not in place:
                    raise InputError(f"{where}: entity {word!r} is not in entity2text.txt; add its name there.")
    triples = {
        part: tuple(Triple(place[head], number[relation], place[tail]) for _, (head, relation, tail) in rows)
        for part, rows in rows_by_part.items()
    }
    names = [texts.get(each) or each for each in entities]
    return KnowledgeGraph(
        name=folder.name,
        entities=tuple(entities),
        # Without a file of longer texts, the name is before the first comma, as in WN18RR.
        names=tuple(_readable_name(name if longer else name.partition(", ")[0]) for name in names),
        definitions=tuple(longer.get(each) or texts.get(each, "").partition(", ")[2] for each in entities),
        relations=tuple(_readable_name(names_of_relations.get(each) or each) for each in relations),
        **triples,
    )


def _by_numbers(folder: Path) -> KnowledgeGraph:
    names, relations = (_table(folder, f"{kind}id2name.txt", counted=True) for kind in ("entity", "relation"))
    descriptions = _table(folder, "entityid2description.txt", counted=True)
    triples: dict[str, tuple[Triple, ...]] = {}
    for part, stems in _PARTS.items():
        where, lines = _lines(folder, [f"{stem}2id.txt" for stem in stems])
        part_triples = []
        for number, line in lines[1:]:
            words = line.split()
            if len(words) != 3 or not all(word.isdecimal() for word in words):
                raise InputError(f"{where} line {number}: must be numbers of head, tail and relation; got {line!r}.")
            head, tail, relation = map(int, words)
            if max(head, tail) >= len(names) or relation >= len(relations):
                raise InputError(f"{where} line {number}: refers to a number without a name: {line!r}.")
            part_triples.append(Triple(head, relation, tail))
        first = lines[0][1]
        if first.strip() != str(len(part_triples)):
            raise InputError(f"{where}: its first line says {first!r} triples, but {len(part_triples)} follow.")
        triples[part] = tuple(part_triples)
    keys = list(names)
    return KnowledgeGraph(
        name=folder.name,
        entities=tuple(keys),
        names=tuple(_readable_name(name or key) for key, name in names.items()),
        definitions=tuple(descriptions.get(key, "") for key in keys),
        relations=tuple(_readable_name(name or key) for key, name in relations.items()),
        **triples,
    )


def _readable_name(word: str) -> str:
    return " ".join(word.replace("_", " ").replace("/", " ").split())


def _triples_of_words(folder: Path, stems: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    where, lines = _lines(folder, [f"{stem}.{end}" for stem in stems for end in ("tsv", "txt")])
    for number, line in lines:
        row = line.split("\t")
        if len(row) != 3 or not all(row):
            raise InputError(f"{where} line {number}: must be tab-separated head, relation and tail; got {line!r}.")
        yield f"{where} line {number}", row


def _table(folder: Path, name: str, *, counted: bool = False) -> dict[str, str]:
    """Read two tab-separated columns, the first a key; {} without the file. A `counted` file begins with its length."""
    path = _find(folder, name)
    if path is None:
        if counted and "description" not in name:
            raise InputError(f"{folder / name}: no such file; this graph format needs it.")
        return {}
    rows: dict[str, str] = {}
    for number, line in _text(path)[int(counted) :]:
        key, tab, text = line.partition("\t")
        if not tab:
            raise InputError(f"{path} line {number}: must be two tab-separated columns; got {line!r}.")
        if counted and key in rows:
            raise InputError(
                f"{path} line {number}: {key!r} is repeated, which shifts the numbers of all that follow. Remove one."
            )
        rows[key] = text
    return rows


def _lines(folder: Path, names: Sequence[str]) -> tuple[Path, list[tuple[int, str]]]:
    path = next(filter(None, (_find(folder, name) for name in names)), None)
    if path is None:
        raise InputError(f"{folder}: has none of {', '.join(names)}. Use the folder of a knowledge graph.")
    lines = _text(path)
    if not lines:
        raise InputError(f"{path}: is empty.")
    return path, lines


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _text(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, each with its number in the file."""
    content = io.BytesIO(read_gzip(path) if path.suffix == ".gz" else read_bytes(path))
    with (
        reading(path, "cannot be read as text", UnicodeDecodeError),
        io.TextIOWrapper(content, encoding="utf-8") as stream,
    ):
        return [(number, line) for number, line in enumerate(stream.read().split("\n"), 1) if line.strip()]
