"""Strict readers of JSON, YAML, TOML, Parquet and pickle files; they return plain values or raise an `InputError`.

The standard parsers raise many kinds of errors (deep nesting, integers of more than 4,300 digits, bytes that are not
UTF-8, ...) and accept what no reader expects (duplicate keys, NaN, half of a surrogate pair, a YAML alias that expands
to a billion values). Here each of these becomes a one-line error that says where it is.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from degla.errors import InputError
from degla.pages.words import counted

DEEPEST: Final = 64
"""Largest nesting depth of lists and objects; this package's own files have at most 8 levels."""
LONGEST_LINE: Final = 16 << 20
"""Largest size in bytes of a record in a file with one record per line."""
LARGEST_FILE: Final = 1 << 30
"""Largest size in bytes of a file that is read at once; files with one record per line may be larger."""
PARQUET_ENDINGS: Final = (".parquet", ".pq")
_MOST_VALUES: Final = 1_000_000
"""Largest number of lists and tables in a YAML file after its aliases are expanded."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(
    source: str | bytes, *, where: str, remedy: str = "", constants: bool = False, lines: bool = True
) -> Any:
    """Parse a JSON text.

    Args:
        source: the text, or its bytes in UTF-8, with or without a byte order mark.
        where: name of the file, and of the record in it, for messages.
        remedy: sentence that ends every message and says what to do.
        constants: accept NaN and Infinity, which are not JSON but which Python writes.
        lines: say in which line of the text an error is; False if `where` names the line.

    Raises:
        InputError: the text is not UTF-8, not JSON, nested more than `DEEPEST` levels, or contains a duplicate key in
            an object, a number that cannot be represented, or half of a surrogate pair.
    """
    text = source if isinstance(source, str) else decode(source, where=where, remedy=remedy)
    try:
        value = (_LENIENT if constants else _STRICT).decode(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        place = f"{where} line {error.lineno}" if lines else where
        # A single line ends in a line feed; no column lies beyond it.
        column = error.colno if lines else min(error.pos, len(text.rstrip())) + 1
        _refuse(place, f"not JSON: {error.msg.removesuffix(' at')} at column {column}", remedy)
    except RecursionError:
        _refuse(where, _TOO_DEEP, remedy)
    except _UnfitError as error:
        _refuse(where, str(error), remedy)
    except ValueError:  # Python's own limit: parsing a million digits would take minutes
        _refuse(where, "JSON that cannot be read: an integer has more than 4,300 digits", remedy)
    if text.count("[") + text.count("{") > DEEPEST:  # otherwise it cannot be deeper
        _check_size(value, where=where, remedy=remedy)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            _refuse(where, "JSON that cannot be read: it contains half of a surrogate pair (\\ud800)", remedy)
    return value


def read_json(path: Path, *, remedy: str = "", constants: bool = False) -> Any:
    """Read a JSON file; raises like `read_text` and `parse_json`."""
    return parse_json(read_bytes(path, remedy=remedy), where=str(path), remedy=remedy, constants=constants)


def read_json_object(path: Path, *, remedy: str = "", constants: bool = False) -> dict[str, Any]:
    """Read a JSON file that contains one object; raises like `read_json`."""
    value = read_json(path, remedy=remedy, constants=constants)
    if not isinstance(value, dict):
        _refuse(str(path), f"must be one JSON object, got {describe_json(value)}", remedy)
    return value


class NewerFormError(InputError):
    """A newer version wrote the file, which is therefore neither damaged nor to be replaced."""


FORM: Final = {"schema_version": 1}
"""The number of the form of a file that this version writes; the first entry of the file."""


def require_form(
    values: Mapping[str, Any], *, where: object, remedy: str = "", field: str = "schema_version", reads: int = 1
) -> None:
    """Refuse a file with the number of another form than this version reads.

    Args:
        values: content of the file. One without a number has form 1: files had none before they were numbered.
        where: name of the file, for messages.
        remedy: end of the message if the number is not that of a newer version.
        field: name of the number.
        reads: number that is read.

    Raises:
        NewerFormError: a newer version wrote the file.
        InputError: the number is another one, or none.
    """
    number = values.get(field, 1)
    whole = type(number) is int  # True and 1.0 equal 1, and would be written again.
    if whole and number == reads:
        return
    shown = cut_short(repr(values.get(field)), 80)
    problem = f"{where}: field {field!r} is {shown}, but this version of degla reads {reads}."
    if whole and number > reads:
        versions = values.get("versions")
        writer = (versions if isinstance(versions, dict) else values).get("degla")
        by = f" (degla {in_one_line(writer)})" if isinstance(writer, str) else ""
        raise NewerFormError(f"{problem} A newer version wrote it{by}: update degla.")
    raise InputError(f"{problem} {remedy}".rstrip())


CORRECT_LINE: Final = "Correct the line. If the file was cut off, download or generate it again."
"""Remedy for a line that is not JSON."""


def read_json_lines(path: Path, *, remedy: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every non-blank line, parsed, with its location: ("captions.jsonl line 3", {...}).

    Raises:
        InputError: see `read_lines` and `parse_json`.
    """
    for number, line in read_lines(path, remedy=remedy):
        where = f"{path} line {number}"
        yield where, parse_json(line, where=where, remedy=remedy or CORRECT_LINE, lines=False)


def read_lines(path: Path, *, remedy: str = "") -> Iterator[tuple[int, bytes]]:
    """Yield every non-blank line with its number, from 1.

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
            if line.removeprefix(b"\xef\xbb\xbf").strip():
                if len(line) > LONGEST_LINE:
                    what = f"longer than {LONGEST_LINE >> 20} MiB; each line must contain one record"
                    _refuse(f"{path} line {number}", what, remedy)
                yield number, line


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, without a byte order mark; raises like `read_bytes` and `decode`."""
    return decode(read_bytes(path), where=str(path))


def decode(content: bytes, *, where: str, remedy: str = "") -> str:
    """Decode bytes as UTF-8 text, without a byte order mark.

    Raises:
        InputError: they are not UTF-8; names the first wrong byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(where, f"not UTF-8 text ({error.reason} at byte {error.start})", remedy)


def read_bytes(path: Path, *, remedy: str = "") -> bytes:
    """Read a whole file as bytes; raises like `open_file`."""
    with open_file(path, remedy=remedy) as stream:
        try:
            if (size := os.fstat(stream.fileno()).st_size) > LARGEST_FILE:
                _refuse(str(path), f"{size / 1e9:.1f} GB, too large to read at once", remedy)
            return stream.read()
        except OSError as error:
            _refuse(str(path), f"cannot be read: {error.strerror}", remedy)


def read_gzip(path: Path, *, remedy: str = "Download or recreate it.") -> bytes:
    """Decompress a whole gzip file; raises like `read_bytes`, or if it is damaged, or too large when unpacked."""
    packed, content = io.BytesIO(read_bytes(path, remedy=remedy)), io.BytesIO()
    try:
        with gzip.open(packed) as stream:
            # In pieces: `read` of the whole limit would reserve that much memory for a file of any size.
            while content.tell() <= LARGEST_FILE and (piece := stream.read(2**20)):
                content.write(piece)
    except (OSError, EOFError, zlib.error) as error:
        _refuse(str(path), f"damaged gzip file: {in_one_line(error)}", remedy)
    if content.tell() > LARGEST_FILE:
        _refuse(str(path), f"more than {LARGEST_FILE:,} bytes when unpacked", remedy)
    return content.getvalue()


def open_file(path: Path, *, remedy: str = "") -> IO[bytes]:
    """Open a file for reading.

    Raises:
        InputError: it is missing, not readable, or not a regular file. A named pipe could block forever, and files are
            read more than once.
    """
    check_regular(path, remedy=remedy)
    try:
        return path.open("rb")
    except OSError as error:
        _refuse(str(path), f"cannot be read: {error.strerror}", remedy)


def check_regular(path: Path, *, remedy: str = "") -> os.stat_result:
    """Return the status of a regular file, without opening it.

    Raises:
        InputError: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        _refuse(shorten(path), f"cannot be read: {getattr(error, 'strerror', None) or error}", remedy)
    if not stat.S_ISREG(mode := state.st_mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        _refuse(str(path), f"cannot be read: it is {kind}, not a regular file", remedy)
    return state


def shorten(path: Path | str) -> str:
    """Return a path or text for a message, shortened to its ends if it is too long."""
    text = str(path)
    return text if len(text) <= 300 else f"{text[:100]}...{text[-100:]} ({len(text)} characters)"


def with_short_words(message: str) -> str:
    """Shorten very long words of a message to their ends, such as a path of 5,000 characters."""
    return re.sub(r"\S{400,}", lambda word: shorten(word.group()), message)


def in_one_line(error: object) -> str:
    """Return the message of another library's error as one printable line."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(error)[:2000]).split())
    return cut_short(text, 300)


def cut_short(text: str, most: int) -> str:
    """Return the text; a longer one ends in "..." after `most` letters in all."""
    return text if len(text) <= most else text[: most - 3] + "..."


def describe_json(value: object) -> str:
    """Describe a value in JSON's terms: "a list of 3 entries", "an object with the keys 'a', 'b'", ..."""
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


def open_parquet(path: Path | str, stream: io.RawIOBase | None = None) -> Any:
    """Open a Parquet file; its data is verified against its checksums if it has any, as ours do.

    Args:
        path: the file, or its address for messages.
        stream: of a file that is not on this machine.

    Raises:
        InputError: there is no such file, or it is not a Parquet file.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(stream or path, page_checksum_verification=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        message = in_one_line(error).rstrip(".")
        raise InputError(f"{path}: not a valid Parquet file: {message}. Download or generate it again.") from None


def unpickle(content: bytes, *, encoding: str) -> Any:
    """Load a pickle that contains only containers, texts, numbers and arrays; others could run arbitrary code.

    Args:
        content: the pickle; a damaged one may raise any error.
        encoding: of strings that Python 2 wrote, or "bytes".

    Raises:
        UnpicklingError: the pickle refers to anything else.
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
"""Everything that a pickle may refer to, by module."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        current = module.replace("numpy.core", "numpy._core")  # Older names of the modules.
        current = {"__builtin__": "builtins", "scipy.sparse.csr": "scipy.sparse._csr"}.get(current, current)
        if name not in _PICKLED.get(current, ()):
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not an array, number or text")
        return _arrays().get(name) or super().find_class(current, name)


@cache
def _arrays() -> dict[str, Any]:
    """Return stand-ins for what numpy's pickles refer to. The originals follow pointers that a file made up."""
    import numpy as np

    class Kind:
        """A dtype of numbers or texts; of its state only the byte order is taken."""

        def __init__(self, name: str | bytes, *flags: object) -> None:
            self.dtype = np.dtype(name if isinstance(name, str) else bytes(name).decode())
            if self.dtype.kind not in "biufcSU":
                raise pickle.UnpicklingError(f"it has an array of {self.dtype}, not of numbers or texts")

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            order = state[1] if isinstance(state[1], str) else bytes(state[1]).decode()
            self.dtype = np.dtype(order + self.dtype.str[1:]) if order in ("<", ">") else self.dtype

    class Array(np.ndarray[Any, Any]):
        def __setstate__(self, state: tuple[Any, ...]) -> None:
            *_, shape, kind, fortran, content = state
            super().__setstate__((1, shape, kind.dtype, fortran, content))

    def read(kind: Kind, content: str | bytes) -> Any:
        return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, kind.dtype)

    return {
        "ndarray": "an array",  # only passed to `_reconstruct`; it must not be called
        "dtype": Kind,
        "_reconstruct": lambda *_: np.zeros(0, "b").view(Array),
        "scalar": lambda kind, content: read(kind, content)[0],
        "_frombuffer": lambda content, kind, shape, order: read(kind, content).reshape(shape, order=order),
    }


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse a YAML text.

    Raises:
        InputError: it is not YAML, has a duplicate key in a table, is nested more than `DEEPEST` levels, or its aliases
            expand to more than a million lists and tables.
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
        # Impossible dates, numbers with too many digits, and what PyYAML does not handle itself ("!!int x").
        _refuse(where, f"YAML that cannot be read: {in_one_line(error)}")
    _check_size(value, where=where, most=_MOST_VALUES)
    return value


def read_yaml(path: Path) -> Any:
    """Read a YAML file; raises like `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path), where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: see `read_text`; or it is not TOML.
    """
    import tomllib

    try:
        value = tomllib.loads(read_text(path))
    except RecursionError:
        _refuse(str(path), _TOO_DEEP)
    except ValueError as error:  # TOMLDecodeError, or a number with more than 4,300 digits
        _refuse(str(path), f"not TOML: {in_one_line(error)}")
    _check_size(value, where=str(path))
    return value


_TOO_DEEP: Final = f"nested more than {DEEPEST} levels deep"


class _UnfitError(ValueError):
    """Valid JSON with a value that would not be read as it was meant."""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(members)
    if len(content) < len(members):
        twice = next(key for key, number in Counter(key for key, _ in members).items() if number > 1)
        raise _UnfitError(f"the key {twice[:80]!r} occurs twice in one object")
    return content


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise _UnfitError(f"the number {digits[:40]} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise _UnfitError(f"{name} is not a number that can be used here")


# Created once: `json.loads` creates a decoder for each text, and a file of items has a hundred thousand.
_STRICT: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)
_LENIENT: Final = json.JSONDecoder(object_pairs_hook=_object)


def _check_size(value: Any, *, where: str, remedy: str = "", most: int | None = None) -> None:
    """Check that values are nested at most `DEEPEST` levels, and number at most `most`, without recursion."""
    level, total, depth = [value], 0, 0
    while level:
        if depth > DEEPEST:
            _refuse(where, _TOO_DEEP, remedy)
        inner: list[Any] = []
        for each in level:
            members = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
            if any(isinstance(member, int) and member.bit_length() > _MOST_BITS for member in members):
                _refuse(where, "a number with more than 4,300 digits", remedy)  # as hexadecimal, or 1:1:1 in YAML
            inner += [member for member in members if isinstance(member, dict | list)]
            if most is not None and total + len(inner) > most:
                _refuse(where, f"its aliases expand to more than {most:,} lists and tables", remedy)
        total += len(inner)
        level, depth = inner, depth + 1


_MOST_BITS: Final = 14_284
"""Of an integer with 4,300 digits, the most that Python writes in decimal."""


@cache
def _yaml_loader() -> Any:
    """Create a safe loader that also rejects duplicate keys in a table."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names: set[tuple[str, str]] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
                if name in names:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value[:80]!r} occurs twice", key.start_mark
                    )
                if name is not None:
                    names.add(name)
            return super().construct_mapping(node, deep=deep)

    return Loader


def _refuse(where: str, what: str, remedy: str = "") -> NoReturn:
    raise InputError(f"{where}: {what}.{' ' if remedy else ''}{remedy}") from None
