"""Arguments that several verbs have: captions, negatives, a language model, a plan; and what is refused of them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from degla.errors import DeglaError, InputError
from degla.pages.words import counted

if TYPE_CHECKING:
    from degla.negatives.llm import LanguageModel
    from degla.records import CaptionRecord


def describe_captions(verb: argparse.ArgumentParser, *, images: bool = False) -> None:
    """The file of captions, and the folder of their images."""
    verb.add_argument("captions", type=Path, help="COCO json, JSONL, Parquet, CSV, TSV or a datasets folder")
    if images:
        folder = "folder that image paths are relative to"
        verb.add_argument("--images", type=Path, required=True, metavar="DIR", help=folder)


def describe_negatives(verb: argparse.ArgumentParser, *, file: str = "negatives, JSONL or Parquet") -> None:
    """The file of negatives, and that of their captions; `file` is its help."""
    verb.add_argument("file", type=Path, metavar="FILE", help=file)
    verb.add_argument("--captions", type=Path, required=True, help="the captions that they were made from")


def describe_likelihood(verb: argparse.ArgumentParser, flag: str, told: str) -> None:
    """A flag for a model of texts, the embedded one where none is named; `told` is its help."""
    verb.add_argument(flag, metavar="MODEL", nargs="?", const="embedded", help=told)


def describe_columns(verb: argparse.ArgumentParser) -> None:
    """Arguments of every verb that reads captions."""
    verb.add_argument("--format", default="auto", help="format of CAPTIONS; told from the file by default")
    verb.add_argument("--id-column", default="id", help="column of the caption id (id)")
    verb.add_argument("--image-column", default="image", help="column of the image path (image)")
    verb.add_argument("--text-column", default="text", help="column of the caption (text)")
    verb.add_argument("--image-id-column", default="image_id", help="column of the image id (image_id)")


def given_captions(given: argparse.Namespace, *, optional: tuple[str, ...] = ()) -> Iterator[CaptionRecord]:
    """Captions of the file that the arguments name, with some of the optional fields; see `read_captions`."""
    from degla.data.sources import Columns, read_captions

    columns = Columns(
        id=given.id_column, image=given.image_column, text=given.text_column, image_id=given.image_id_column,
        optional=optional,
    )  # fmt: skip
    return read_captions(given.captions, format=given.format, columns=columns)


def require_folder(path: Path, what: str) -> None:
    """Refuse a path that is no folder; `what` says in the message what it is for."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder {what}.")


def require_files(*paths: Path | None) -> None:
    """Refuse paths where nothing is; None was not given."""
    for path in paths:
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder.")


def require_least(given: argparse.Namespace, *names: str, least: int) -> None:
    """Refuse numbers below one; None was not given."""
    for name in names:
        value = getattr(given, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more.")


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, where argparse prints all flags in front of it."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def parse_words(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The arguments, with the names of those that the words give, not defaults, as `typed`.

    Raises:
        InputError: a number is larger than Python's own iterators count.
    """
    given = parser.parse_args(words)
    # argparse sets a default only where nothing stands.
    bare = parser.parse_args(words, argparse.Namespace(**dict.fromkeys(vars(given))))
    given.typed = frozenset(name for name, value in vars(bare).items() if value is not None)
    for name, value in vars(given).items():
        if isinstance(value, int) and abs(value) > sys.maxsize:
            raise InputError(f"--{name.replace('_', '-')} is {value}, more than any number here can be.")
    return given


def refuse_given(given: argparse.Namespace, *names: str, why: str) -> None:
    """Refuse flags that were given though nothing reads them; `why` follows the flag's name."""
    for name in names:
        if name in given.typed:
            raise InputError(f"--{name.replace('_', '-')} {why}")


_ASKED: Final = ("openai", "embedded", "scripted")
_OF: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("base_url", "concurrency", "timeout", "retries", "temperature"), ("openai",)),
    "model": ("openai", "embedded"),
    "threads": ("embedded",),
    "script": ("scripted",),
    **dict.fromkeys(("examples", "examples_folder", "form", "example_sets"), _ASKED),
}
"""Flags, and the language models that they are meant for."""
CAPTION_FLAGS: Final = ("format", "id_column", "image_column", "text_column", "image_id_column")
"""What `describe_columns` adds."""


def describe_model(verb: argparse.ArgumentParser) -> None:
    """Arguments that choose a language model and say how it is asked."""
    asked = verb.add_argument_group("language model")
    asked.add_argument(
        "--llm",
        choices=["rules", "embedded", "openai", "scripted"],
        default="rules",
        help="rules: grammar and word tables alone; embedded: a small model in this process; openai: any server that "
        "speaks its protocol; scripted: answers from a file, for tests (rules)",
    )
    asked.add_argument("--examples", type=int, default=5, metavar="N", help="examples a request (5)")
    asked.add_argument("--examples-folder", type=Path, metavar="DIR", help="your own examples (the package's)")
    asked.add_argument("--model", metavar="NAME", help="openai: model on the server; embedded: GGUF, folder, hub id")
    asked.add_argument("--base-url", nargs="+", default=[], metavar="URL", help="openai: servers, used side by side")
    asked.add_argument("--concurrency", type=int, default=64, metavar="N", help="openai: requests at once (64)")
    asked.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="openai: of one request (60)")
    asked.add_argument("--retries", type=int, default=8, metavar="N", help="openai: further attempts (8)")
    asked.add_argument("--temperature", type=float, metavar="T", help="openai: of sampling")
    asked.add_argument("--threads", type=int, default=1, metavar="N", help="embedded: processor threads (1)")
    asked.add_argument("--script", type=Path, metavar="FILE", help="scripted: JSON lines of caption, rule and text")


def model_source(given: argparse.Namespace) -> Callable[[], LanguageModel] | None:
    """What opens the language model that the arguments choose; None for the rules alone.

    Raises:
        InputError: a flag that the chosen model has no use for, which is a misunderstanding; or one that it lacks.
    """
    for name, models in _OF.items():
        if given.llm not in models:
            refuse_given(given, name, why=f"goes with --llm {' or '.join(models)}; this run has --llm {given.llm}.")
    if given.llm == "openai" and not (given.base_url and given.model):
        raise InputError("--llm openai needs --base-url URL and --model NAME.")
    if given.llm == "scripted" and given.script is None:
        raise InputError("--llm scripted needs --script FILE: JSON lines of caption, rule and text.")
    return None if given.llm == "rules" else partial(open_model, given)


def open_model(given: argparse.Namespace) -> LanguageModel:
    """The language model that the arguments choose.

    Raises:
        InputError: what the model needs is missing.
        DeglaError: the model cannot be opened.
    """
    if given.llm == "embedded":
        from degla.negatives.llm.embedded import EmbeddedModel

        return EmbeddedModel(given.model, threads=given.threads, seed=given.seed)
    if given.llm == "scripted":
        from degla.negatives.llm.scripted import read_script

        return read_script(given.script)
    from degla.negatives.llm.server import ServerModel

    return ServerModel(
        given.base_url,
        given.model,
        concurrency=given.concurrency,
        timeout=given.timeout,
        retries=given.retries,
        temperature=given.temperature,
        seed=given.seed,
    )


def describe_plan(verb: argparse.ArgumentParser, *, runs: str, fields: str, result: str) -> None:
    """Arguments of every verb that conducts a plan.

    Args:
        verb: parser of the verb.
        runs: what is done side by side.
        fields: what `--set` changes.
        result: the file that `--json` prints.
    """
    verb.add_argument("plan", type=Path, metavar="PLAN", help="YAML, TOML or JSON file; see docs/studies.md")
    verb.add_argument("--out", type=Path, required=True, help="folder; what is done there already is kept")
    verb.add_argument("--processes", type=int, metavar="N", help=f"{runs} at a time, one thread each (one a processor)")
    verb.add_argument(
        "--engine", choices=("local", "ray"), default="local", help=f"ray does the {runs} on a cluster (RAY_ADDRESS)"
    )
    verb.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"{fields}; repeatable")
    verb.add_argument("--json", action="store_true", help=f"print {result}")


def command_line(given: argparse.Namespace, *, verb: str) -> str:
    """The command that makes the same again, for the page."""
    words = ["degla", verb, str(given.plan), "--out", str(given.out)]
    return shlex.join([*words, *(word for text in given.set for word in ("--set", text))])


def refuse_failures(failures: Sequence[tuple[str, str]], *, run: str) -> None:
    """End with an error where something failed; `failures`: titles and causes; `run`: what one of them is."""
    if failures:
        told = "; ".join(f"{title}: {error}" for title, error in failures)
        raise DeglaError(f"{counted(len(failures), run)} failed: {told}. The same command tries them again.")
