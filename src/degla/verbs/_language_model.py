"""Arguments of every verb that asks a language model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import InputError

if TYPE_CHECKING:
    from degla.negatives.llm.select import ModelOptions

_OF: dict[str, tuple[str, ...]] = {
    "base_url": ("openai",),
    "model": ("openai", "embedded"),
    "temperature": ("openai",),
    "script": ("scripted",),
    "examples_folder": ("openai", "embedded", "scripted"),
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


def model_options(given: argparse.Namespace) -> ModelOptions:
    """What the arguments say of the model.

    Raises:
        InputError: a flag that the chosen model has no use for: a misunderstanding.
    """
    from degla.negatives.llm.select import ModelOptions

    for name, models in _OF.items():
        if getattr(given, name) not in (None, []) and given.llm not in models:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} goes with --llm {' or '.join(models)}; this run has --llm {given.llm}.")
    return ModelOptions(
        model=given.model,
        base_urls=tuple(given.base_url),
        concurrency=given.concurrency,
        timeout=given.timeout,
        retries=given.retries,
        temperature=given.temperature,
        threads=given.threads,
        seed=given.seed,
        script=given.script,
    )
