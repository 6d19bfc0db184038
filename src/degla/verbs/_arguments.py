"""Arguments shared by several verbs (captions, negatives, a language model, a plan) and their checks."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from degla.errors import DeglaError, InputError
from degla.files import refuse_to_overwrite_inputs
from degla.pages.words import counted
from degla.passwords import without_passwords
from degla.remote import address_of, display_path, in_addresses, refuse_address
from degla.shelf import did_you_mean

if TYPE_CHECKING:
    from degla.negatives.files.caption_index import CaptionIndex
    from degla.negatives.llm import LanguageModel
    from degla.negatives.run.output import Journal
    from degla.records import CaptionRecord


def describe_captions(verb: argparse.ArgumentParser, *, images: bool = False) -> None:
    """Add the captions file, and optionally the folder of their images."""
    formats = "COCO or Karpathy's json, JSONL, Parquet, CSV, TSV or a datasets folder"
    verb.add_argument("captions", type=Path, metavar="CAPTIONS", help=formats)
    if images:
        folder = "folder that image paths are relative to"
        verb.add_argument("--images", type=Path, required=True, metavar="FOLDER", help=folder)


def describe_negatives(verb: argparse.ArgumentParser, *, file: str = "negatives, JSONL or Parquet") -> None:
    """Add the negatives file and its captions file; `file` is the help of the former."""
    verb.add_argument("file", type=Path, metavar="FILE", help=file)
    captions = "captions that the negatives were made from"
    verb.add_argument("--captions", type=Path, required=True, metavar="FILE", help=captions)


def describe_likelihood(verb: argparse.ArgumentParser, flag: str, text: str) -> None:
    """Add a flag for a language model, the embedded one if no name follows; `text` is its help."""
    verb.add_argument(flag, metavar="MODEL", nargs="?", const="embedded", help=text)


def describe_columns(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of every verb that reads captions."""
    form = "format of the captions file (detected from the file)"
    verb.add_argument("--format", default="auto", metavar="NAME", help=form)
    split = "splits to read from Karpathy's json, for example train restval; all reads all"
    verb.add_argument("--split", nargs="+", default=(), metavar="SPLIT", help=split)
    columns = {"id": "caption id", "image": "image path", "text": "caption", "image_id": "image id"}
    for name, what in columns.items():
        flag = f"--{name.replace('_', '-')}-column"
        verb.add_argument(flag, default=name, metavar="NAME", help=f"column of the {what} ({name})")


def captions_of(
    arguments: argparse.Namespace, *, optional: tuple[str, ...] = (), own: tuple[tuple[str, bool], ...] = ()
) -> Iterator[CaptionRecord]:
    """Read the captions that the arguments name; see `read_captions`, and `Columns` for the optional and own fields."""
    from degla.data.columns import Columns
    from degla.data.sources import read_captions

    columns = Columns.of(arguments, optional=(*optional, *(name for name, _ in own)), own=own)
    return read_captions(arguments.captions, format=arguments.format, columns=columns)


def caption_index(arguments: argparse.Namespace) -> CaptionIndex:
    """Return an index of the captions that the arguments name, for the negatives of `arguments.file`."""
    from degla.negatives.files.caption_index import CaptionIndex

    names = {"file": display_path(arguments.captions), "negatives_file": display_path(arguments.file)}
    return CaptionIndex(captions_of(arguments), **names)


def require_folder(path: Path, what: str) -> None:
    """Raise an error if a local path is not a folder; `what` says in the message what it is for."""
    if address_of(path) is None and not path.is_dir():
        raise InputError(f"{path}: no such folder {what}.")


def require_parent(out: Path) -> None:
    """Raise an error if the folder that --out is to be in does not exist."""
    require_folder(out.parent, "to write to (--out). Create it first")


def require_files(*paths: Path | None) -> None:
    """Raise an error if a local path does not exist; None means not given."""
    for path in paths:
        if path is not None and address_of(path) is None and not path.exists():
            raise InputError(f"{path}: no such file or folder.")


def require_jsonl(out: Path, *inputs: Path | None) -> None:
    """Raise an error if a file of records is an input, or has a name by which no command reads it as JSON Lines."""
    from degla.data.formats.jsonl import ENDINGS

    require_ending(out, ENDINGS, what="one JSON record per line")
    refuse_to_overwrite_inputs(out, *inputs)


def require_ending(out: Path, endings: Sequence[str], *, what: str, flag: str = "--out") -> None:
    """Raise an error if the name of a file to write, in any case, has none of the endings of its format."""
    if out.suffix.lower() not in endings:
        raise InputError(f"{out}: {what} is written, so the name must end in {' or '.join(endings)} ({flag}).")


def require_least(arguments: argparse.Namespace, *names: str, least: int) -> None:
    """Raise an error if an argument is below `least`; None means not given."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more.")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an argument that is an integer of `least` or more."""

    def integer(word: str) -> int:
        if (number := int(word)) < least:
            raise argparse.ArgumentTypeError(f"{number} is given; it must be {least} or more")
        return number

    return integer


def count_or_auto(word: str) -> int | None:
    """Type of an argument that is an integer, or `auto`: None."""
    if word == "auto":
        return None
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is given; it must be a number or auto") from None


_ELSEWHERE: Final = {"caption-column": "text-column"}
"""Flags of other trainers, and their names here."""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line; argparse would print the whole usage first."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, and keep the words for `error`."""
        self._words = args or ()
        return super().parse_known_args(args, namespace)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # The path "" (--out="$UNSET") would be the working folder. pandas writes its index under the name "".
        if "" in arg_strings and not action.dest.endswith("_column"):
            name = " or ".join(action.option_strings) or action.metavar or action.dest
            raise InputError(f"{name} needs a value, got an empty one.")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        unknown = re.match(r"unrecognized arguments: --([^\s=]+)", message)
        name = unknown[1] if unknown else ""
        # A parser without abbreviations leaves flags that it does not know to its caller.
        if self.allow_abbrev and message.startswith("the following arguments are required"):
            # argparse complains of what is missing first, even where a mistyped flag stands for it.
            words = takewhile(lambda word: word != "--", self._words)
            flags = (word.partition("=")[0] for word in words if re.match(r"--\w", word))
            name = next((flag[2:] for flag in flags if not self._get_option_tuples(flag)), "")
            message += f". --{name} is not a flag" if name else ""
        names = [option.lstrip("-") for option in self._option_string_actions]
        others = _ELSEWHERE if "text-column" in names else {}
        hint = did_you_mean(name, [*names, *others]) if name else ""
        for other, own in others.items():
            hint = hint.replace(repr(other), repr(own))
        self.exit(2, f"{self.prog}: {without_passwords(message)}.{hint} See {self.prog} --help.\n")


def parse_words(parser: argparse.ArgumentParser, words: list[str], *, far: bool = False) -> argparse.Namespace:
    """Parse the arguments; `typed` holds the names of those given explicitly.

    Args:
        parser: of the verb.
        words: the arguments.
        far: whether --out may be an address.

    Raises:
        InputError: a number is larger than `sys.maxsize`, or an address is given for what is written to a local path.
    """
    arguments = parser.parse_args(words)
    # argparse sets a default only for attributes that the namespace lacks.
    bare = parser.parse_args(words, argparse.Namespace(**dict.fromkeys(vars(arguments))))
    arguments.typed = frozenset(name for name, value in vars(bare).items() if value is not None)
    for name, value in vars(arguments).items():
        if isinstance(value, int) and abs(value) > sys.maxsize:
            raise InputError(f"--{name.replace('_', '-')} is {value}, which is too large.")
        if name in _WRITTEN and value is not None and not (far and name == "out"):
            refuse_address(Path(value))
    return arguments


def refuse_flags(arguments: argparse.Namespace, *names: str, why: str) -> None:
    """Raise an error if a flag that would be ignored was given; `why` follows the flag's name in the message."""
    for name in names:
        if name in arguments.typed:
            raise InputError(f"--{name.replace('_', '-')} {why}")


_WRITTEN: Final = ("out", "cache", "sheet")
_ASKED: Final = ("openai", "embedded", "scripted")
_OF: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("base_url", "concurrency", "timeout", "retries", "temperature", "max_tokens", "extra_body"), ("openai",)
    ),
    "model": ("openai", "embedded"),
    "threads": ("embedded",),
    "script": ("scripted",),
    **dict.fromkeys(("examples", "examples_folder", "form", "example_sets"), _ASKED),
}
"""Flags, and the language models that they apply to."""


def describe_model(
    verb: argparse.ArgumentParser, *, rules: str = "no model, only grammar and word tables", examples: bool = True
) -> None:
    """Add the arguments that choose a language model and how it is prompted.

    Args:
        verb: the command's parser.
        rules: what `--llm rules` means to it.
        examples: the model is shown examples; else the command refuses their flags, and the help leaves them out.
    """
    group = verb.add_argument_group("language model")
    shown, folder = "in-context examples per request (5)", "folder of your own examples (built in)"
    if not examples:
        shown = folder = argparse.SUPPRESS
    group.add_argument(
        "--llm",
        choices=["rules", "embedded", "openai", "scripted"],
        default="rules",
        help=f"rules: {rules}; embedded: a small model in this process; openai: any "
        "OpenAI-compatible server; scripted: answers from a file, for tests (rules)",
    )
    group.add_argument("--examples", type=int, default=5, metavar="N", help=shown)
    group.add_argument("--examples-folder", type=Path, metavar="FOLDER", help=folder)
    group.add_argument("--model", metavar="NAME", help="openai: model on the server; embedded: GGUF, folder, hub id")
    describe_server(group, whose="openai: ", concurrency=64, timeout=60)
    group.add_argument("--temperature", type=float, metavar="T", help="openai: sampling temperature")
    group.add_argument(
        "--max-tokens", type=int, default=160, metavar="N", help="openai: longest answer, in tokens (%(default)s)"
    )
    group.add_argument("--threads", type=int, default=1, metavar="N", help="embedded: CPU threads (1)")
    group.add_argument("--script", type=Path, metavar="FILE", help="scripted: JSON lines of caption, rule and text")


def describe_server(group: argparse._ArgumentGroup, *, whose: str = "", concurrency: int, timeout: int) -> None:
    """Add the arguments that `server_settings` reads, and the servers' addresses; `whose` begins each help text."""
    group.add_argument("--base-url", nargs="+", default=[], metavar="URL", help=f"{whose}servers, used in parallel")
    requests = f"{whose}parallel requests (%(default)s)"
    group.add_argument("--concurrency", type=int, default=concurrency, metavar="N", help=requests)
    limit = f"{whose}request timeout ({timeout})"
    group.add_argument("--timeout", type=float, default=float(timeout), metavar="SECONDS", help=limit)
    group.add_argument("--retries", type=int, default=8, metavar="N", help=f"{whose}retries per request (8)")
    more = f"{whose}more fields of every request, as a JSON object"
    group.add_argument("--extra-body", metavar="JSON", help=more)


def model_source(arguments: argparse.Namespace) -> Callable[[], LanguageModel] | None:
    """Return a function that opens the chosen language model; None for `--llm rules`.

    Raises:
        InputError: a flag does not apply to the chosen model or is out of range, or a required one is missing.
    """
    require_least(arguments, "concurrency", "threads", least=1)
    require_least(arguments, "examples", "retries", least=0)
    for name, models in _OF.items():
        if arguments.llm not in models:
            refuse_flags(
                arguments, name, why=f"requires --llm {' or '.join(models)}; this run has --llm {arguments.llm}."
            )
    if arguments.llm == "openai" and not (arguments.base_url and arguments.model):
        raise InputError("--llm openai needs --base-url URL and --model NAME.")
    if arguments.llm == "scripted" and arguments.script is None:
        raise InputError("--llm scripted needs --script FILE: JSON lines of caption, rule and text.")
    return None if arguments.llm == "rules" else partial(open_model, arguments)


def open_model(arguments: argparse.Namespace) -> LanguageModel:
    """Open the language model that the arguments choose.

    Raises:
        InputError: something that the model needs is missing.
        DeglaError: the model cannot be opened.
    """
    if arguments.llm == "embedded":
        from degla.negatives.llm.embedded import EmbeddedModel

        return EmbeddedModel(arguments.model, threads=arguments.threads, seed=arguments.seed)
    if arguments.llm == "scripted":
        from degla.negatives.llm.scripted import read_script

        return read_script(arguments.script)
    from degla.negatives.llm.server import ServerModel, UnaskedServer

    return (UnaskedServer if vars(arguments).get("dry_run") else ServerModel)(
        arguments.base_url,
        arguments.model,
        temperature=arguments.temperature,
        max_tokens=arguments.max_tokens,
        **server_settings(arguments),
    )


@contextmanager
def model_with_replies(arguments: argparse.Namespace) -> Iterator[tuple[LanguageModel, Journal] | None]:
    """Open the chosen language model and its replies, which are kept beside --out; None for `--llm rules`."""
    from degla.negatives.run.asking import saved_replies

    source = model_source(arguments)
    if source is None:
        yield None
        return
    with closing(source()) as model, saved_replies(arguments.out) as journal:
        yield model, journal


def server_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `describe_server` and the seed as those of `ServerModel`.

    Raises:
        InputError: --extra-body is not a JSON object.
    """
    from degla.parse import parse_json

    extra = parse_json(arguments.extra_body, where="--extra-body") if arguments.extra_body else {}
    if not isinstance(extra, dict):
        raise InputError('--extra-body is no JSON object such as {"reasoning_effort": "none"}.')
    return {name: getattr(arguments, name) for name in ("concurrency", "timeout", "retries", "seed")} | {"extra": extra}


def describe_plan(verb: argparse.ArgumentParser, *, runs: str, fields: str, result: str) -> None:
    """Add the arguments of every verb that runs a plan.

    Args:
        verb: parser of the verb.
        runs: noun for what runs in parallel.
        fields: what `--set` changes.
        result: the file that `--json` prints.
    """
    verb.add_argument("plan", type=Path, metavar="PLAN", help="YAML, TOML or JSON file; see docs/studies.md")
    out = "output folder; finished work in it is kept"
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=out)
    verb.add_argument("--processes", type=int, metavar="N", help=f"parallel {runs}, one thread each (one per CPU)")
    engine = f"ray: {runs} on the Ray cluster at RAY_ADDRESS, or on one started here (local)"
    verb.add_argument("--engine", choices=("local", "ray"), default="local", help=engine)
    verb.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"{fields}; repeatable")
    verb.add_argument("--json", action="store_true", help=f"print {result}")


def command_line(arguments: argparse.Namespace, *, verb: str) -> str:
    """Return the command that reproduces the result, for the page, without passwords."""
    words = ["degla", verb, str(arguments.plan), "--out", str(arguments.out)]
    return in_addresses(shlex.join([*words, *(word for text in arguments.set for word in ("--set", text))]))


def refuse_failures(failures: Sequence[tuple[str, str]], *, run: str) -> None:
    """Raise an error if something failed; `failures` holds titles and causes, `run` is the noun for one of them."""
    if failures:
        causes = "; ".join(f"{title}: {error}" for title, error in failures)
        raise DeglaError(f"{counted(len(failures), run)} failed: {causes}. Run the same command to retry.")
