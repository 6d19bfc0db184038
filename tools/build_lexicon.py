"""Rebuild the word table from WordNet 3.0: ``python tools/build_lexicon.py /usr/share/wordnet``.

The table (`lexicon_data/wordnet.tsv`) holds only what is needed to reject negatives: senses of everyday nouns and
adjectives, their hypernyms, wholes of parts, antonyms, two-word names. WordNet's licence is next to it. This script is
needed only to change the table; the package never reads WordNet itself. Debian: ``apt install wordnet-base``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from degla.cli import exit_status_of
from degla.errors import InputError
from degla.negatives.grammar.lexicon import DATA_FOLDER, GROUPS_NAME, TABLE_NAME, read_tables

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_HYPERNYMS = {"@", "@i"}
_WHOLES = {"#p", "#m", "#s"}
_PARTS = {"%p", "%m", "%s"}
_SENSES_KEPT = 6
"""Senses of a noun beyond the sixth are too rare to reject a replacement for."""

_THINGS = (("artifact", 1), ("food", 1), ("food", 2), ("person", 1))
"""Nouns whose first sense is below one of these senses are kept, however rare: a language model may propose them."""


@dataclass
class Synset:
    """One WordNet sense: its words, and the senses it points to, by pointer symbol."""

    words: list[str]
    pointers: list[tuple[str, int, str, int, int]] = field(default_factory=list)
    """(symbol, target offset, target part of speech, word number here, word number there); 0 = the whole sense."""

    def targets(self, symbols: set[str]) -> list[int]:
        """Return the offsets that any of the pointer symbols lead to."""
        return [pointer[1] for pointer in self.pointers if pointer[0] in symbols]


def read_synsets(path: Path) -> dict[int, Synset]:
    """Read a WordNet ``data.*`` file: senses by offset."""
    synsets = {}
    for line in _data_lines(path):
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        words = [re.sub(r"\(.*\)$", "", word) for word in fields[4 : 4 + 2 * count : 2]]
        synset = Synset(words)
        rest = fields[4 + 2 * count :]
        for at in range(1, 1 + 4 * int(rest[0]), 4):
            symbol, offset, part, numbers = rest[at : at + 4]
            synset.pointers.append((symbol, int(offset), part, int(numbers[:2], 16), int(numbers[2:], 16)))
        synsets[int(fields[0])] = synset
    return synsets


def read_index(path: Path) -> dict[str, list[int]]:
    """Read a WordNet ``index.*`` file: the offsets of a word's senses, most frequent first."""
    index = {}
    for line in _data_lines(path):
        fields = line.split()
        index[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
    return index


def read_counts(path: Path) -> dict[tuple[str, str], int]:
    """Read ``cntlist.rev``: how often a word was tagged in WordNet's own texts, by (word, "n" | "v" | "a" | "r")."""
    counts: dict[tuple[str, str], int] = {}
    letter = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
    for line in _data_lines(path):
        key, _, number = line.split()
        word, sense = key.split("%")
        place = (word, letter[sense[0]])
        counts[place] = counts.get(place, 0) + int(number)
    return counts


def _data_lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}. Give the folder of WordNet 3.0; on Debian, "
            "`apt install wordnet-base` installs it in /usr/share/wordnet."
        ) from None
    return (line for line in text.splitlines() if line and not line.startswith("  "))


def build(wordnet: Path) -> str:
    """Build the text of the table from a WordNet 3.0 folder.

    Raises:
        InputError: a WordNet file is missing, or the anchor of a group is not a WordNet sense.
    """
    groups = read_tables(GROUPS_NAME)
    counts = read_counts(wordnet / "cntlist.rev")
    nouns, index = read_synsets(wordnet / "data.noun"), read_index(wordnet / "index.noun")
    anchors = _anchors(groups["nouns"], index)
    listed = {word for group in groups["nouns"].values() for cluster in group["clusters"] for word in cluster}
    things = {index[word][int(number) - 1] for word, number in _THINGS}
    lines, kept, common = [], dict[int, int](), set[str]()
    for word, offsets in sorted(index.items()):
        offsets = [offset for offset in offsets if word in nouns[offset].words][:_SENSES_KEPT]
        if not _WORD.fullmatch(word) or not offsets:
            continue  # capitalised: a proper name
        group = _nearest(offsets[0], nouns, anchors)
        count = counts.get((word, "n"), 0)
        if not (count or word in listed or group or _is_under(offsets[0], nouns, things)):
            continue
        if count or word in listed:
            common.add(word)
        for offset in offsets:
            _keep(offset, nouns, kept)
        senses = " ".join(str(kept[offset]) for offset in offsets)
        lines.append(f"n\t{word}\t{count}\t{group}\t{senses}")
    wholes = _wholes(nouns)
    for offset, number in sorted(kept.items(), key=lambda pair: pair[1]):
        above = " ".join(str(kept[target]) for target in nouns[offset].targets(_HYPERNYMS))
        whole = " ".join(str(kept[target]) for target in sorted(wholes.get(offset, ())) if target in kept)
        lines.append(f"s\t{number}\t{above}\t{whole}")
    lines += _adjectives(wordnet, counts)
    lines += _names(index, common, wordnet)
    return "\n".join(lines) + "\n"


def _anchors(groups: dict[str, Any], index: dict[str, list[int]]) -> dict[int, str]:
    anchors = {}
    for name, group in groups.items():
        for anchor in group.get("anchors", ()):
            word, _, number = anchor.partition("#")
            senses = index.get(word, [])
            if not number.isdigit() or not 0 < int(number) <= len(senses):
                raise InputError(
                    f"groups.toml nouns.{name}: anchor {anchor!r} is not a sense of WordNet 3.0; "
                    f"{word!r} has {len(senses)} senses."
                )
            anchors[senses[int(number) - 1]] = name
    return anchors


def _nearest(offset: int, nouns: dict[int, Synset], anchors: dict[int, str]) -> str:
    """Name of the group whose anchor is the nearest hypernym of a sense, or an empty string."""
    seen, layer = {offset}, [offset]
    while layer:
        found = sorted(anchors[sense] for sense in layer if sense in anchors)
        if found:
            return found[0]
        layer = [target for sense in layer for target in nouns[sense].targets(_HYPERNYMS) if target not in seen]
        seen.update(layer)
    return ""


def _is_under(offset: int, nouns: dict[int, Synset], roots: set[int]) -> bool:
    """Whether a sense is one of the roots or below one."""
    seen, waiting = {offset}, [offset]
    while waiting:
        sense = waiting.pop()
        if sense in roots:
            return True
        above = [target for target in nouns[sense].targets(_HYPERNYMS) if target not in seen]
        seen.update(above)
        waiting += above
    return False


def _keep(offset: int, nouns: dict[int, Synset], kept: dict[int, int]) -> None:
    """Number a sense and everything above it."""
    waiting = [offset]
    while waiting:
        sense = waiting.pop()
        if sense not in kept:
            kept[sense] = len(kept)
            waiting += nouns[sense].targets(_HYPERNYMS)


def _wholes(nouns: dict[int, Synset]) -> dict[int, set[int]]:
    wholes: dict[int, set[int]] = {}
    for offset, synset in nouns.items():
        wholes.setdefault(offset, set()).update(synset.targets(_WHOLES))
        for part in synset.targets(_PARTS):
            wholes.setdefault(part, set()).add(offset)
    return wholes


def _adjectives(wordnet: Path, counts: dict[tuple[str, str], int]) -> list[str]:
    senses, index = read_synsets(wordnet / "data.adj"), read_index(wordnet / "index.adj")
    lines, kept, opposites = [], dict[int, int](), set[tuple[str, str]]()
    for word, offsets in sorted(index.items()):
        count = counts.get((word, "a"), 0)
        if not _WORD.fullmatch(word) or not (count or len(word) <= 9):
            continue
        numbers = []
        for offset in offsets[:_SENSES_KEPT]:
            numbers.append(str(kept.setdefault(offset, len(kept))))
            for symbol, target, part, here, there in senses[offset].pointers:
                if symbol == "!" and part == "a" and senses[offset].words[here - 1] == word:
                    opposites.add((word, senses[target].words[there - 1]))
        lines.append(f"a\t{word}\t{count}\t\t{' '.join(numbers)}")
    for offset, number in sorted(kept.items(), key=lambda pair: pair[1]):
        near = " ".join(str(kept[target]) for target in senses[offset].targets({"&"}) if target in kept)
        if near:
            lines.append(f"r\t{number}\t{near}")
    lines += [f"x\t{word}\t{other}" for word, other in sorted(opposites) if _WORD.fullmatch(other)]
    return lines


def _names(index: dict[str, list[int]], common: set[str], wordnet: Path) -> list[str]:
    """Two-word nouns whose head is a common word: changing one half of "fire hydrant" gives no sensible name."""
    adjectives = read_index(wordnet / "index.adj")
    pairs = [word.split("_") for word in sorted(index) if re.fullmatch(r"[a-z]+_[a-z]+", word)]
    return [
        f"c\t{first} {head}"
        for first, head in pairs
        if head in common and len(first) > 2 and (first in common or first in adjectives)
    ]


def main() -> None:
    """Write the table into the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of WordNet 3.0")
    target, text = DATA_FOLDER / TABLE_NAME, build(parser.parse_args().folder)
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(text.splitlines())} lines, {target.stat().st_size} bytes")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
