"""A varied script for the scripted model and small runs with it, shared by several test files."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from degla.errors import DeglaError
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.llm import Reply, ReplyStatus, Request, RequestKey
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.rule import MOST_CANDIDATES, load_rule
from degla.negatives.run.summary import Summary
from degla.records import CaptionRecord, NegativeRecord, read_jsonl

RULES = ("reshuffle_order", "swap_nouns", "replace_adjectives", "replace_nouns")
TEXTS = [
    "A red ball under a blue table.",
    "a dog chasing a cat",
    "Ein kleiner Junge spielt mit einem Ball im Garten",
    "An old man riding a bicycle past a tall brick building",
    "two cats and three dogs",
    "a cat chasing a dog",
    "A woman with a black umbrella walks across a wet street",
    "A small bird sits behind a large glass window",
]


@dataclass
class UnsteadyModel(ScriptedModel):
    """A scripted model that remembers its requests, and fails as it is told.

    Attributes:
        faults: outcomes by key instead of an answer; each is used once, so a later run gets an answer.
        shuffle: seed for replies in random order, a few at a time; None replies in order, all at once.
        fail_after: number of replies after which the model cannot be reached; None means never.
        requests: every request so far, in order.
    """

    faults: dict[RequestKey, ReplyStatus] = field(default_factory=dict)
    shuffle: int | None = None
    fail_after: int | None = None
    requests: list[Request] = field(default_factory=list)
    _given: int = 0

    def __post_init__(self) -> None:
        self._rng = Random(self.shuffle)

    def start(self, request: Request) -> None:
        self.requests.append(request)
        super().start(request)

    def finished(self) -> list[Reply]:
        count = len(self._waiting)
        if self.shuffle is not None and count:
            count = self._rng.randint(1, max(1, count // 2))
            self._rng.shuffle(self._waiting)
        if self.fail_after is not None and count:
            count = min(count, self.fail_after - self._given)
            if not count:
                raise DeglaError(f"{self.name}: cannot be reached any more, as scripted.")
        self._given += count
        later = self._waiting[count:]
        del self._waiting[count:]
        replies = super().finished()
        self._waiting = later
        return replies

    def _answer(self, request: Request) -> Reply:
        fault = self.faults.pop(request.key, None)
        return super()._answer(request) if fault is None else Reply(request.key, fault)


def records(texts: list[str]) -> list[CaptionRecord]:
    return [
        CaptionRecord(
            id=f"c{index}", image=f"{index}.jpg", text=text, image_id="shared" if text.startswith("a") else str(index)
        )
        for index, text in enumerate(texts)
    ]


def varied(request: Request) -> str | Reply | None:
    """Good, wrong and useless answers, determined only by the request."""
    rng = Random(f"{request.key}{request.form}")
    if request.form == "fill":
        return "horse zorblax elephant table red"
    if request.form == "choose":
        return Reply(request.key, "implausible") if rng.random() < 0.2 else rng.choice(request.choices)
    kind = rng.choice(["good", "good", "good", "other", "copy", "nonsense", "silent", "refusing", "long"])
    caption = parse_one(request.caption)
    if kind == "good":
        return next(iter(load_rule(request.key.rule).propose(caption, rng, MOST_CANDIDATES)), "no idea")
    if kind == "other":
        return next(iter(load_rule("swap_nouns").propose(caption, rng, MOST_CANDIDATES)), "no idea")
    if kind == "refusing":
        return Reply(request.key, "refused", detail="I cannot help with that.")
    return {"copy": request.caption, "nonsense": "Sure! Here it is", "silent": "", "long": "and " * 80}[kind]


def run(out: Path, model: ScriptedModel, texts: list[str] = TEXTS, **changes: object) -> Summary:
    how = {name: changes.pop(name) for name in ("engine", "workers") if name in changes}
    settings = NegativesSettings(**{"rules": RULES, "seed": 3, "per_rule": 2, "examples": 0, **changes})  # type: ignore[arg-type]
    return generate(records(texts), settings, out=out, model=model, progress=False, **how)  # type: ignore[arg-type]


def rows_of(out: Path) -> list[NegativeRecord]:
    return list(read_jsonl(NegativeRecord, out))


def many(count: int) -> list[str]:
    colours, things = ("red", "blue", "green", "old", "wet"), ("dog", "cat", "ball", "hat", "cup", "box", "bag")
    seats = ("table", "bench")
    return [f"A {colours[n % 5]} {things[n // 5 % 7]} under a wooden {seats[n // 35 % 2]}" for n in range(count)]


def fatal(request: Request, *, folder: Path, killed_at: int) -> str | Reply | None:
    """As `varied`, but records every request, and the first process to get so many requests dies, once."""
    notes = folder / f"{os.getpid()}.asked"
    with notes.open("a") as stream:
        stream.write(json.dumps([request.key.caption_id, request.key.rule, request.key.draw]) + "\n")
    if len(notes.read_text().splitlines()) == killed_at:
        try:
            (folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return varied(request)
        os.kill(os.getpid(), signal.SIGKILL)
    return varied(request)
