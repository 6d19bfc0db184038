"""Rebuild the embedded graphs from WordNet 3.0: ``python tools/build_wordnet_graph.py /usr/share/wordnet``.

The graph (`systems/contextualization/wordnet.tsv.gz`) holds 1,200 senses of nouns and verbs with their glosses, in the
order of a breadth-first walk through the 3-core of WordNet's relations, and the relations between them. The labelled
graph (`systems/ugcl/wordnet.tsv.gz`) has the first hundred nouns of each of eight classes of WordNet's lexicographers
on the same walk: class and gloss, then pairs of related nouns. WordNet's licence is next to both. Debian: ``apt install
wordnet-base``; the package never reads WordNet itself.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from degla.cli import exit_status_of
from degla.systems.contextualization.knowledge import EMBEDDED
from degla.systems.ugcl.graph import EMBEDDED as LABELLED

RELATIONS = {
    "@": "hypernym", "@i": "instance of", "%m": "has member", "%p": "has part", "%s": "has substance",
    "+": "derivationally related form", ";c": "topic domain", "$": "verb group", "^": "see also", "*": "entails",
    ">": "causes",
}  # fmt: skip
"""Pointer symbols that are followed; their inverses are not, so that no test triple is a reversed training triple."""
BOTH_WAYS = {"+", "$", "^"}
SIZE, CORE = 1_200, 3
CLASSES = {
    5: "animal", 6: "artifact", 8: "body", 10: "communication", 13: "food", 15: "location", 18: "person", 20: "plant",
}  # fmt: skip
MEMBERS = 100
"""Numbers of lexicographers' files of nouns, and nouns of each in the labelled graph."""


def read(folder: Path) -> tuple[dict[str, tuple[str, str]], list[tuple[str, str, str]]]:
    """Return name and gloss of every sense, and triples (head, relation, tail), each pair of senses once."""
    senses: dict[str, tuple[str, str]] = {}
    triples: dict[frozenset[str], tuple[str, str, str]] = {}
    for part in ("noun", "verb"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            data, _, gloss = line.partition(" | ")
            fields = data.split()
            key, count = f"{part[0]}{fields[0]}", int(fields[3], 16)
            # After a definition's first semicolon there are only remarks and examples.
            senses[key] = (fields[4].replace("_", " ").lower(), gloss.split(";")[0].strip())
            pointers = fields[4 + 2 * count :]
            for at in range(1, 1 + 4 * int(pointers[0]), 4):
                symbol, offset, other, _ = pointers[at : at + 4]
                target = f"{other}{offset}"
                if symbol in RELATIONS and other in "nv" and target != key:
                    ends = sorted((key, target)) if symbol in BOTH_WAYS else [key, target]
                    triples.setdefault(frozenset(ends), (ends[0], RELATIONS[symbol], ends[1]))
    return senses, list(triples.values())


def core(triples: list[tuple[str, str, str]]) -> dict[str, list[str]]:
    """Return the neighbours of the senses that remain after repeatedly removing those with fewer than three."""
    beside: dict[str, dict[str, None]] = {}
    for head, _, tail in triples:
        beside.setdefault(head, {})[tail] = None
        beside.setdefault(tail, {})[head] = None
    few = deque(sense for sense, others in beside.items() if len(others) < CORE)
    while few:
        sense = few.popleft()
        for other in beside.pop(sense, {}):
            beside[other].pop(sense)
            if len(beside[other]) == CORE - 1:
                few.append(other)
    return {sense: list(others) for sense, others in beside.items()}


def labelled(folder: Path, beside: dict[str, list[str]], senses: dict[str, tuple[str, str]]) -> list[str]:
    """Return the lines of the labelled graph: a class and a gloss for each noun, then the numbers of related nouns."""
    lines = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
    files = {f"n{words[0]}": int(words[1]) for line in lines if not line.startswith(" ") and (words := line.split())}
    found: dict[str, str] = {}
    for sense in walk(beside):
        name = CLASSES.get(files.get(sense, -1))
        if name is not None and list(found.values()).count(name) < MEMBERS:
            found[sense] = name
    place = {sense: number for number, sense in enumerate(found)}
    edges = {(place[one], place[other]) for one in found for other in beside[one] if place.get(other, -1) > place[one]}
    rows = [f"{name}\t{senses[sense][1]}" for sense, name in found.items()]
    return rows + [f"{one}\t{other}" for one, other in sorted(edges)]


def walk(beside: dict[str, list[str]]) -> Iterator[str]:
    """Yield the senses in breadth-first order from the one with the most neighbours."""
    found: dict[str, None] = {}
    queue = deque([max(beside, key=lambda sense: len(beside[sense]))])
    while queue:
        sense = queue.popleft()
        if sense not in found:
            found[sense] = None
            yield sense
            queue.extend(beside[sense])


def main() -> None:
    """Write both graphs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with WordNet's data.noun and data.verb")
    folder = parser.parse_args().folder
    senses, triples = read(folder)
    beside = core(triples)
    found = dict.fromkeys(islice(walk(beside), SIZE))
    lines = ["\t".join(("sense", sense, *senses[sense])) for sense in found]
    lines += ["\t".join(("triple", *triple)) for triple in triples if triple[0] in found and triple[2] in found]
    for file, rows in ((EMBEDDED, lines), (LABELLED, labelled(folder, beside, senses))):
        file.write_bytes(gzip.compress("".join(f"{row}\n" for row in rows).encode(), 9, mtime=0))
        sys.stdout.write(f"{file}: {len(rows)} rows, {file.stat().st_size} bytes\n")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
