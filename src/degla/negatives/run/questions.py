"""Makes the requests to a language model: draws the examples, has the rule write the chat.

The paper (arXiv 2504.16801) draws five examples anew for every request. With fixed sets of examples, requests of one
rule share a longer beginning, which a server's prefix cache serves; the caption's id picks the set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal

from degla.errors import InputError
from degla.negatives.grammar.phrases import parse
from degla.negatives.llm import Form
from degla.negatives.rule import Example, load_rule
from degla.negatives.run.stream import hash_text
from degla.pages.words import counted

FormChoice = Literal["write", "choose", "both"]
"""Whether a model may write freely, only choose among what the grammar finds (and propose words for it), or both."""

_ALLOWED: Final[dict[FormChoice, frozenset[Form]]] = {
    "write": frozenset({"write"}),
    "choose": frozenset({"choose", "fill"}),
    "both": frozenset({"write", "choose", "fill"}),
}
_KNOWN_CAPTIONS: Final = (
    "A small brown dog sits on a wooden bench next to two red cats under a tall tree.",
    "An old man in a black hat is riding a white horse.",
)
"""What every rule is asked about to find whether prompts have changed; written for this purpose."""


def usable_forms(forms: Sequence[Form], choice: FormChoice, *, name: str) -> tuple[Form, ...]:
    """The model's forms that may be used, its best first.

    Raises:
        InputError: there is none.
    """
    usable = tuple(form for form in forms if form in _ALLOWED[choice])
    if "write" in usable or "choose" in usable:
        return usable
    raise InputError(f"{name} answers in the forms {', '.join(forms)}; none of them is meant by form {choice!r}.")


def draw_rng(seed: int, caption_id: str, rule: str) -> Random:
    """The random numbers of one caption and rule, from SHA-256: the same on every machine."""
    text = f"{seed}\n{caption_id}\n{rule}"
    return Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class Prompts:
    """What a language model is asked.

    Attributes:
        source: the model's name, for `NegativeRecord.source`.
        forms: how it may be asked, best first.
        writes: whether it can write freely, even where `forms` does not let it.
        seed: decides, with caption, rule and draw, which examples a request holds.
        count: examples a request; 0 for none.
        sets: fixed draws of examples a rule, of which the caption's id picks one; 0 draws anew for every request.
        examples: all examples of each rule.
    """

    source: str
    forms: tuple[Form, ...]
    writes: bool
    seed: int
    count: int = 5
    sets: int = 0
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)

    def draw(self, rule: str, *, caption_id: str, draw: int) -> tuple[Example, ...]:
        """The examples of one request."""
        if not self.count:
            return ()
        from degla.negatives.examples import draw_examples

        rng = draw_rng(self.seed, caption_id, f"{rule}\n{draw}")
        if self.sets:
            number = hash_text(f"{self.seed}\n{caption_id}\n{rule}\n{draw}") % self.sets
            rng = draw_rng(self.seed, f"set {number}", rule)
        return draw_examples(self.examples[rule], count=self.count, rng=rng)


def load_all_examples(rules: Sequence[str], *, count: int, folder: Path | None) -> dict[str, tuple[Example, ...]]:
    """The accepted examples of each rule.

    Args:
        rules: names of rules.
        count: examples a request.
        folder: where the user's own lie, instead of those of the package.

    Raises:
        InputError: a rule has fewer than `count`.
    """
    if not count:
        return {}
    from degla.negatives.examples import load_examples

    loaded = {rule: load_examples(rule, folder=folder) for rule in rules}
    for rule, examples in loaded.items():
        if len(examples) < count:
            raise InputError(
                f"rule {rule} has {counted(len(examples), 'example')}, fewer than the {count} of a request."
            )
    return loaded


def prompt_digests(rules: Sequence[str]) -> dict[str, str]:
    """Of each rule, the sha256 of what it asks about known captions: changes when its instruction does."""
    example = (Example("A cat on a mat.", "A dog on a mat."),)
    digests = {}
    for name in rules:
        chats = [load_rule(name).ask(caption, example) for caption in parse(_KNOWN_CAPTIONS)]
        plain = [[[message.role, message.content] for message in chat or ()] for chat in chats]
        digests[name] = hashlib.sha256(json.dumps(plain).encode()).hexdigest()
    return digests
