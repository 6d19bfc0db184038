"""Arguments of every verb that asks a language model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import InputError

if TYPE_CHECKING:
    from degla.negatives.llm import LanguageModel

_OF: dict[str, tuple[str, ...]] = {
    "base_url": ("openai",),
    "model": ("openai", "embedded"),
    "temperature": ("openai",),
    "script": ("scripted",),
    "examples_folder": ("openai", "embedded", "scripted"),
    "form": ("openai", "embedded", "scripted"),
    "example_sets": ("openai", "embedded", "scripted"),
}
"""Flags without a default, and the language models that they are meant for."""


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
        if getattr(given, name, None) not in (None, []) and given.llm not in models:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} goes with --llm {' or '.join(models)}; this run has --llm {given.llm}.")
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
