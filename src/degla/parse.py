"""JSON, YAML, TOML and pickles from outside enter here, and what is opened; plain values leave, or one error.

The parsers of the standard library raise half a dozen kinds of errors (deep nesting, integers of more than 4,300
digits, bytes that are not UTF-8, ...) and pass what no reader expects (a key twice, NaN, half of a surrogate pair,
an alias in YAML that stands for a billion values). Here each of them becomes a line that says where it is.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import stat
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from degla.errors import InputError
from degla.pages.words import counted

DEEPEST: Final = 64
"""Levels of lists and objects inside each other; a file of this package has 8 at most."""
LONGEST_LINE: Final = 16 << 20
"""Bytes of one record in a file with one record a line."""
LARGEST_FILE: Final = 1 << 30
"""Bytes of a file that is read at once; captions and negatives of any number are read from one record a line."""
PARQUET_ENDINGS: Final = (".parquet", ".pq")
_MOST_VALUES: Final = 1_000_000
"""Lists and tables in a YAML file once its aliases are written out."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(
    source: str | bytes, *, where: str, remedy: str = "", constants: bool = False, lines: bool = True
) -> Any:
    """The value of one JSON text.

    Args:
        source: the text, or its bytes in UTF-8, with or without a byte order mark.
        where: names the file, and the record in it, in messages.
        remedy: a sentence that ends every message: what to do.
        constants: take NaN and Infinity, which are not JSON and which Python writes.
        lines: say in which line of the text an error is; False where `where` names the line.

    Raises:
        InputError: it is not UTF-8, not JSON, nested more than `DEEPEST` levels, has a key twice in one object, a
            number that cannot be represented, or half of a surrogate pair.
    """
    text = source if isinstance(source, str) else decode(source, where=where, remedy=remedy)
    try:
        value = (_LENIENT if constants else _STRICT).decode(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        place = f"{where} line {error.lineno}" if lines else where
        # A line of its own ends in a line feed, behind which no column of it is.
        column = error.colno if lines else min(error.pos, len(text.rstrip())) + 1
        _refuse(place, f"not JSON: {error.msg.removesuffix(' at')} at column {column}", remedy)
    except RecursionError:
        _refuse(where, _TOO_DEEP, remedy)
    except _UnfitError as error:
        _refuse(where, str(error), remedy)
    except ValueError:  # Python's own guard: reading a million digits would take minutes
        _refuse(where, "not JSON that can be read: a whole number has more than 4,300 digits", remedy)
    if text.count("[") + text.count("{") > DEEPEST:  # else it cannot be deeper, and need not be looked through
        _check_size(value, where=where, remedy=remedy)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            _refuse(where, "not JSON that can be read: half of a surrogate pair (\\ud800) is no text", remedy)
    return value


def read_json(path: Path, *, remedy: str = "", constants: bool = False) -> Any:
    """The value of a file that is one JSON text; raises like `read_text` and `parse_json`."""
    return parse_json(read_bytes(path, remedy=remedy), where=str(path), remedy=remedy, constants=constants)


def read_json_object(path: Path, *, remedy: str = "", constants: bool = False) -> dict[str, Any]:
    """The members of a file that is one JSON object; raises like `read_json`."""
    value = read_json(path, remedy=remedy, constants=constants)
    if not isinstance(value, dict):
        _refuse(str(path), f"must be one JSON object, got a {type(value).__name__}", remedy)
    return value


CORRECT_LINE: Final = "Correct the line; if the file was cut off, get or make it again."
"""What to do about a line that is not JSON."""


def read_json_lines(path: Path, *, remedy: str = "") -> Iterator[tuple[str, Any]]:
    """Every line that is not blank, parsed, behind its place: ("captions.jsonl line 3", {...}).

    Raises:
        InputError: see `read_lines` and `parse_json`.
    """
    for number, line in read_lines(path, remedy=remedy):
        where = f"{path} line {number}"
        yield where, parse_json(line, where=where, remedy=remedy or CORRECT_LINE, lines=False)


def read_lines(path: Path, *, remedy: str = "") -> Iterator[tuple[int, bytes]]:
    """Every line that is not blank, behind its number from 1.

    Raises:
        InputError: see `open_file`; or a line is longer than `LONGEST_LINE`.
    """
    with open_file(path, remedy=remedy) as stream:
        for number in count(1):
            try:
                line = stream.readline(LONGEST_LINE + 1)
            except OSError as error:
                _refuse(str(path), f"cannot be read: {error.strerror}", remedy)
            if not line:
                return
            if not line.isspace() and line != b"\xef\xbb\xbf":
                if len(line) > LONGEST_LINE:
                    what = f"longer than {LONGEST_LINE >> 20} MiB; one record a line is needed"
                    _refuse(f"{path} line {number}", what, remedy)
                yield number, line


def read_text(path: Path, *, remedy: str = "") -> str:
    """The whole of a UTF-8 text file, without a byte order mark; raises like `read_bytes` and `decode`."""
    return decode(read_bytes(path, remedy=remedy), where=str(path), remedy=remedy)


def decode(content: bytes, *, where: str, remedy: str = "") -> str:
    """Bytes as UTF-8 text, without a byte order mark.

    Raises:
        InputError: they are not UTF-8 (place of the first wrong byte named).
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(where, f"not UTF-8 text ({error.reason} at byte {error.start})", remedy)


def read_bytes(path: Path, *, remedy: str = "") -> bytes:
    """The whole of a file; raises like `open_file`."""
    with open_file(path, remedy=remedy) as stream:
        try:
            if (size := os.fstat(stream.fileno()).st_size) > LARGEST_FILE:
                _refuse(str(path), f"{size / 1e9:.1f} GB, too large to be read at once", remedy)
            return stream.read()
        except OSError as error:
            _refuse(str(path), f"cannot be read: {error.strerror}", remedy)


def open_file(path: Path, *, remedy: str = "") -> IO[bytes]:
    """Open a file for reading.

    Raises:
        InputError: it is missing, may not be read, or is no regular file: a named pipe would be waited for without
            end, and files are read more than once.
    """
    check_regular(path, remedy=remedy)
    try:
        return path.open("rb")
    except OSError as error:
        _refuse(str(path), f"cannot be read: {error.strerror}", remedy)


def check_regular(path: Path, *, remedy: str = "") -> os.stat_result:
    """What the system says of a regular file; what is none is refused, without opening it.

    Raises:
        InputError: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        _refuse(shorten(path), f"cannot be read: {getattr(error, 'strerror', None) or error}", remedy)
    if not stat.S_ISREG(mode := state.st_mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        _refuse(str(path), f"cannot be read: is {kind}, and a regular file is needed", remedy)
    return state


def shorten(path: Path | str) -> str:
    """A path for a message; of one that no file system takes only the ends."""
    text = str(path)
    return text if len(text) <= 300 else f"{text[:100]}...{text[-100:]} ({len(text)} characters)"


def with_short_words(message: str) -> str:
    """A message with the ends alone of words that nobody reads, such as a path of 5,000 characters."""
    return re.sub(r"\S{400,}", lambda word: shorten(word.group()), message)


def in_one_line(error: object) -> str:
    """What another library says, in one line that a person reads and a terminal shows as text."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(error)[:2000]).split())
    return text if len(text) <= 300 else text[:297] + "..."


def describe_json(value: object) -> str:
    """Say in JSON's words what a value is: "a list of 3 entries", "an object with the keys 'a', 'b'", ..."""
    match value:
        case dict():
            keys = ", ".join(repr(key[:40]) for key in list(value)[:6])
            return f"an object with the keys {keys}" if keys else "an empty object"
        case list():
            return f"a list of {counted(len(value), 'entry', 'entries')}" if value else "an empty list"
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {value[:40]!r}"
    return f"the number {str(value)[:40]}"


def open_parquet(path: Path) -> Any:
    """A Parquet file; what is read of it is compared with its checksums, where it has some, as ours do.

    Raises:
        InputError: there is no such file, or it is of another kind.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path, page_checksum_verification=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        said = in_one_line(error).rstrip(".")
        raise InputError(f"{path}: not a Parquet file that can be read: {said}. Get or make it again.") from None


def unpickle(content: bytes, *, encoding: str) -> Any:
    """The value of a pickle that holds containers, texts, numbers and arrays alone; others could run any program.

    Args:
        content: the pickle; a damaged one may raise anything.
        encoding: of texts that Python 2 wrote, or "bytes".

    Raises:
        UnpicklingError: it names anything else.
    """
    return _Unpickler(io.BytesIO(content), encoding=encoding).load()


_PICKLED: Final = {
    "numpy": ("ndarray", "dtype"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
    "scipy.sparse._csr": ("csr_matrix",),
    "collections": ("defaultdict",),
    "builtins": ("list",),
    "_codecs": ("encode",),
}
"""All that a pickle may name, by module."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = module.replace("numpy.core", "numpy._core")  # Older names of the modules.
        known = {"__builtin__": "builtins", "scipy.sparse.csr": "scipy.sparse._csr"}.get(known, known)
        if name not in _PICKLED.get(known, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array, number or text")
        return super().find_class(known, name)


def parse_yaml(text: str, *, where: str) -> Any:
    """The value of one YAML text.

    Raises:
        InputError: it is not YAML, has a key twice in one table, is nested more than `DEEPEST` levels, or its aliases
            stand for more than a million lists and tables.
    """
    import yaml

    try:
        value = yaml.load(text, Loader=_yaml_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where} line {mark.line + 1}" if mark else where
        _refuse(place, f"not YAML: {in_one_line(getattr(error, 'problem', None) or error)}")
    except RecursionError:
        _refuse(where, _TOO_DEEP)
    except (ValueError, OverflowError, AttributeError, KeyError, TypeError, IndexError) as error:
        # Dates of no calendar, numbers of too many digits, and what PyYAML itself does not foresee ("!!int x").
        _refuse(where, f"not YAML that can be read: {in_one_line(error)}")
    _check_size(value, where=where, most=_MOST_VALUES)
    return value


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; raises like `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path), where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: see `read_text`; or it is not TOML.
    """
    import tomllib

    try:
        value = tomllib.loads(read_text(path))
    except RecursionError:
        _refuse(str(path), _TOO_DEEP)
    except ValueError as error:  # TOMLDecodeError, and a number of more than 4,300 digits
        _refuse(str(path), f"not TOML: {in_one_line(error)}")
    _check_size(value, where=str(path))
    return value


_TOO_DEEP: Final = f"nested more than {DEEPEST} levels deep; no file that is read here is"


class _UnfitError(ValueError):
    """JSON by its letters, with a value that would be read otherwise than it was meant."""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(members)
    if len(content) < len(members):
        keys = [key for key, _ in members]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _UnfitError(f"the key {twice[:80]!r} stands there twice in one object")
    return content


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise _UnfitError(f"the number {digits[:40]} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise _UnfitError(f"{name} is not a number that can be used here")


# Made once: `json.loads` makes one for each text, of which a file of items has a hundred thousand.
_STRICT: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)
_LENIENT: Final = json.JSONDecoder(object_pairs_hook=_object)


def _check_size(value: Any, *, where: str, remedy: str = "", most: int | None = None) -> None:
    """Refuse values inside values beyond `DEEPEST` levels and `most` in all, level by level: without recursion."""
    level, total, depth = [value], 0, 0
    while level:
        if depth > DEEPEST:
            _refuse(where, _TOO_DEEP, remedy)
        inner: list[Any] = []
        for each in level:
            members = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
            inner += [member for member in members if isinstance(member, dict | list)]
            if most is not None and total + len(inner) > most:
                _refuse(where, f"its aliases stand for more than {most:,} lists and tables", remedy)
        total += len(inner)
        level, depth = inner, depth + 1


@cache
def _yaml_loader() -> Any:
    """The safe loader, which also refuses a key that stands twice in one table."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value[:80]!r} stands there twice", key.start_mark
                    )
                if name is not None:
                    seen.add(name)
            return super().construct_mapping(node, deep=deep)

    return Loader


def _refuse(where: str, what: str, remedy: str = "") -> NoReturn:
    raise InputError(f"{where}: {what}.{' ' if remedy else ''}{remedy}") from None
