"""Ways to damage a file: bytes, lines, values of a JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Damage = tuple[str, bytes]
"""What was done, and the content that it leaves."""

TOKENS = (
    "null", "true", "-1", "0", "1.5", "1e999", "NaN", "-Infinity", "9" * 5_000, "9" * 25, "[" * 5_000,
    "[" * 70 + "]" * 70, "[]", "{}", '""', '"\\ud800"', '"\\u0000"', '"../../etc/passwd"', '"' + "x" * 5_000 + "/a\"",
    '"a\\nb\\u001b[2J"', '{"a": 1, "a": 2}', "[null]", '"\u202e"', '"NaN"', '"0"', "[[[1]]]", '{"": {"": 0}}',
)  # fmt: skip
"""Values that stand where another is expected; not all of them are JSON."""


def flip(content: bytes, rng: Random) -> Damage:
    changed = bytearray(content)
    places = [rng.randrange(len(changed)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for place in places:
        changed[place] ^= 1 << rng.randrange(8)
    return f"bits flipped at {places[0]}", bytes(changed)


def truncate(content: bytes, rng: Random) -> Damage:
    length = rng.choice((0, 1, rng.randrange(len(content)), len(content) - 1))
    return f"cut off at {length}", content[:length]


def insert(content: bytes, rng: Random) -> Damage:
    place = rng.randrange(len(content) + 1)
    piece = rng.choice((rng.randbytes(rng.choice((1, 3, 50))), b"\xff\xfe", b"\0" * 9, b"\xed\xa0\x80", b"\r", b"\n\n"))
    return f"{len(piece)} bytes put in at {place}", content[:place] + piece + content[place:]


def overwrite(content: bytes, rng: Random) -> Damage:
    place, size = rng.randrange(len(content)), rng.choice((4, 64, 4096))
    piece = rng.choice((b"\0" * size, b"\xff" * size, rng.randbytes(size)))[: len(content) - place]
    return f"{len(piece)} bytes overwritten at {place}", content[:place] + piece + content[place + len(piece) :]


def move(content: bytes, rng: Random) -> Damage:
    first, second = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    if rng.random() < 0.5:
        return f"bytes {first} to {second} taken out", content[:first] + content[second:]
    return f"bytes {first} to {second} twice", content[:second] + content[first:]


def change_lines(content: bytes, rng: Random) -> Damage:
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    kind = rng.choice(("out", "twice", "moved", "bytes"))
    line = lines.pop(place)
    if kind == "twice":
        lines[place:place] = [line, line]
    elif kind == "moved":
        lines.insert(rng.randrange(len(lines) + 1), line)
    elif kind == "bytes" and line:
        lines.insert(place, flip(line, rng)[1])
    return f"line {place + 1}: {kind}", b"\n".join(lines)


def change_word(content: bytes, rng: Random) -> Damage:
    """Replace a word of a text by a token."""
    words = content.split(b" ")
    place = rng.randrange(len(words))
    token = rng.choice(TOKENS)
    words[place] = token.encode()
    return f"word {place} is {token[:12]}", b" ".join(words)


def change_json(content: bytes, rng: Random) -> Damage:
    """Replace a value by a token, or remove, rename or duplicate a member."""
    value = json.loads(content)
    spots = list(_spots(value))
    if not spots:
        return "all is a token", rng.choice(TOKENS).encode()
    holder, key = rng.choice(spots)
    kind = rng.choice(("token", "token", "token", "out", "renamed", "swapped"))
    token, mark = rng.choice(TOKENS), "\x02mark\x02"
    if kind == "out":
        del holder[key]
    elif kind == "renamed" and isinstance(holder, dict):
        holder[rng.choice(("x", "", str(key) + "s", "__class__"))] = holder.pop(key)
    elif kind == "swapped":
        other_holder, other = rng.choice(spots)
        holder[key], other_holder[other] = other_holder[other], holder[key]
        with_cycle = _cyclic(value)
        if with_cycle:
            return "all is a token", token.encode()
    else:
        holder[key] = mark
    text = json.dumps(value).replace(json.dumps(mark), token)
    return f"{kind} {str(key)[:20]!r}{': ' + token[:12] if kind == 'token' else ''}", text.encode()


def change_json_line(content: bytes, rng: Random) -> Damage:
    lines = [line for line in content.split(b"\n") if line.strip()]
    place = rng.randrange(len(lines))
    what, lines[place] = change_json(lines[place], rng)
    return f"line {place + 1}: {what}", b"\n".join(lines) + b"\n"


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, member in (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    ):
        yield value, key
        yield from _spots(member)


def _cyclic(value: Any) -> bool:
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return True
    return False


BYTES: tuple[Callable[[bytes, Random], Damage], ...] = (flip, flip, truncate, insert, overwrite, move)
MUTATIONS: dict[str, tuple[Callable[[bytes, Random], Damage], ...]] = {
    "bytes": BYTES,
    "text": (*BYTES, change_lines, change_word, change_word),
    "json": (*BYTES, change_json, change_json, change_json, change_json, change_json),
    "jsonl": (*BYTES, change_lines, change_json_line, change_json_line, change_json_line, change_json_line),
}
