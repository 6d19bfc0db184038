"""Opens a language model by the name that the command line gives it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.negatives.llm import LanguageModel

MODELS: Final = ("embedded", "openai", "scripted")
"""Names that `open_model` knows."""


@dataclass(frozen=True)
class ModelOptions:
    """What a language model is opened with; each field says which of `MODELS` reads it.

    Attributes:
        model: openai: the model's name on the server. embedded: a GGUF file, a folder or a hub id.
        base_urls: openai: addresses of the servers, ending in "/v1" as a rule.
        concurrency: openai: requests under way at once, at most.
        timeout: openai: seconds that a request may take.
        retries: openai: further attempts of one request.
        temperature: openai: of sampling; None leaves it to the client's default.
        threads: embedded: processor threads.
        seed: openai, embedded: of sampling.
        script: scripted: the file of answers.
    """

    model: str | None = None
    base_urls: tuple[str, ...] = ()
    concurrency: int = 64
    timeout: float = 60.0
    retries: int = 8
    temperature: float | None = None
    threads: int = 1
    seed: int = 0
    script: Path | None = None


def open_model(name: str, options: ModelOptions) -> LanguageModel:
    """The language model of that name.

    Args:
        name: "embedded", "openai" or "scripted".
        options: what it is opened with.

    Raises:
        InputError: the name is unknown, or what the model needs is missing.
        DeglaError: the model cannot be opened.
    """
    if name == "embedded":
        from degla.negatives.llm.embedded import EmbeddedModel

        return EmbeddedModel(options.model, threads=options.threads, seed=options.seed)
    if name == "openai":
        if not options.base_urls or not options.model:
            raise InputError("--llm openai needs --base-url URL and --model NAME.")
        from degla.negatives.llm.server import ServerModel

        return ServerModel(
            options.base_urls,
            options.model,
            concurrency=options.concurrency,
            timeout=options.timeout,
            retries=options.retries,
            temperature=options.temperature,
            seed=options.seed,
        )
    if name == "scripted":
        if options.script is None:
            raise InputError("--llm scripted needs --script FILE: JSON lines of caption, rule and text.")
        from degla.negatives.llm.scripted import read_script

        return read_script(options.script)
    raise InputError(f"unknown language model {name!r}. Known: {', '.join(MODELS)}.")
