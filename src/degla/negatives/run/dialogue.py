"""The dialogue about one caption: a generator that yields requests, receives replies and returns the caption's rows.

Rules run one after another, each starting when the previous one has its rows. What counts as a duplicate, and what is
requested next, thus depends only on the replies and never on their timing.

The paper (arXiv 2504.16801) draws five new examples for every request. With fixed sets of examples, requests of one
rule share a longer prefix, which a server's prefix cache can reuse; the caption's id picks the set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Final, Literal

from degla.errors import InputError
from degla.negatives.checks import ACCEPTED, Content, Verdict, refused
from degla.negatives.examples import draw_examples, load_examples
from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import Caption, parse
from degla.negatives.grammar.words import WordUsage
from degla.negatives.llm import Chat, Form, Reply, ReplyStatus, Request, RequestKey, Slot
from degla.negatives.replies import read_reply
from degla.negatives.rule import (
    MOST_CANDIDATES,
    Example,
    NegativeRule,
    ReplacingRule,
    SiblingRule,
    TrueRule,
    judge,
    load_rule,
)
from degla.negatives.run.stream import CaptionTask, hash_content, hash_text
from degla.pages.words import counted
from degla.records import NegativeRecord

RowForm = Literal["grammar", "write", "choose", "fill"]
"""How a row's text was made: by the grammar, or by a request of this form."""

RULES_SOURCE: Final = "rules"
"""`NegativeRecord.source` of rows made by the grammar."""

FormChoice = Literal["write", "choose", "both"]
"""Whether a model may write freely, only choose among (and propose words for) the grammar's candidates, or both."""

_ALLOWED: Final[dict[FormChoice, frozenset[Form]]] = {
    "write": frozenset({"write"}),
    "choose": frozenset({"choose", "fill"}),
    "both": frozenset({"write", "choose", "fill"}),
}
_KNOWN_CAPTIONS: Final = (
    "A small brown dog sits on a wooden bench next to two red cats under a tall tree.",
    "An old man in a black hat is riding a white horse.",
)
"""Captions, written for this purpose, on which `prompt_digests` builds every rule's prompts."""


def usable_forms(forms: Sequence[Form], choice: FormChoice, *, name: str) -> tuple[Form, ...]:
    """Return the model's usable forms, best first.

    Raises:
        InputError: there is none.
    """
    usable = tuple(form for form in forms if form in _ALLOWED[choice])
    if "write" in usable or "choose" in usable:
        return usable
    raise InputError(
        f"{name} supports only the forms {', '.join(forms)}, which form {choice!r} does not allow. Choose another form."
    )


def draw_rng(seed: int, caption_id: str, rule: str) -> Random:
    """Return a random generator for one caption and rule, seeded by SHA-256: the same on every machine."""
    text = f"{seed}\n{caption_id}\n{rule}"
    return Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class Prompts:
    """Settings of the requests to a language model.

    Attributes:
        source: the model's name, for `NegativeRecord.source`.
        forms: allowed request forms, best first.
        writes: whether the model can write freely, even if `forms` does not allow it.
        seed: determines, with caption, rule and draw, the examples of a request.
        count: examples per request; 0 for none.
        sets: number of fixed sets of examples per rule, one of which is picked by the caption's id; 0 draws new
            examples for every request.
        examples: all examples of each rule.
    """

    source: str
    forms: tuple[Form, ...]
    writes: bool
    seed: int
    count: int = 5
    sets: int = 0
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)

    def examples_for(self, rule: str, *, caption_id: str, draw: int) -> tuple[Example, ...]:
        """Draw the examples of one request."""
        if not self.count:
            return ()
        rng = draw_rng(self.seed, caption_id, f"{rule}\n{draw}")
        if self.sets:
            number = hash_text(f"{self.seed}\n{caption_id}\n{rule}\n{draw}") % self.sets
            rng = draw_rng(self.seed, f"set {number}", rule)
        return draw_examples(self.examples[rule], count=self.count, rng=rng)


def load_all_examples(rules: Sequence[str], *, count: int, folder: Path | None) -> dict[str, tuple[Example, ...]]:
    """Load the accepted examples of each rule.

    Args:
        rules: names of rules.
        count: examples per request.
        folder: folder of your own examples, instead of the package's.

    Raises:
        InputError: a rule has fewer than `count` examples.
    """
    if not count:
        return {}
    by_rule = {rule: load_examples(rule, folder=folder) for rule in rules}
    for rule, examples in by_rule.items():
        if len(examples) < count:
            raise InputError(
                f"rule {rule} has {counted(len(examples), 'example')}, fewer than the {count} per request. "
                "Add some to its file, or request fewer (--examples)."
            )
    return by_rule


def prompt_digests(rules: Sequence[str]) -> dict[str, str]:
    """Return the sha256 of each rule's prompts for fixed captions, which changes with the rule's instruction."""
    example = (Example("A cat on a mat.", "A dog on a mat."),)
    digests = {}
    for name in rules:
        chats = [load_rule(name).ask(caption, example) for caption in parse(_KNOWN_CAPTIONS)]
        plain = [[[message.role, message.content] for message in chat or ()] for chat in chats]
        digests[name] = hashlib.sha256(json.dumps(plain).encode()).hexdigest()
    return digests


Dialogue = Generator[Request, Reply, list[NegativeRecord]]
"""A generator that yields requests one by one, is sent the reply to each, and returns the caption's rows."""

MOST_CHOICES: Final = 12
"""Maximum texts that a model chooses among; six gave the same choice for 179 of 215 captions (a 135M model)."""
_MOST_PROPOSED: Final = 8
"""Maximum choices with words that the model itself proposed."""
_FINAL: Final[frozenset[ReplyStatus]] = frozenset({"too_long", "rejected", "unreachable"})
"""Outcomes after which more requests about this caption and rule are pointless."""


@dataclass(frozen=True)
class Maker:
    """Makes the rows of captions, depending only on its settings and the replies.

    Attributes:
        rules: names of the rules, in the order of the rows.
        seed: determines every draw, with the caption's id and the rule's name.
        per_rule: maximum accepted negatives per rule and caption.
        prompts: settings of the requests to a language model; None to use only the grammar.
        usage: word frequencies by which the grammar draws words; None draws all words of a list equally often.
    """

    rules: tuple[str, ...]
    seed: int
    per_rule: int = 1
    prompts: Prompts | None = None
    usage: WordUsage | None = None

    @property
    def candidates(self) -> int:
        """Maximum candidates of the grammar for one caption and rule: enough to replace duplicates."""
        return max(MOST_CANDIDATES, 2 * self.per_rule)

    def talk(self, task: CaptionTask, caption: Caption | None, *, reason: str = "") -> Dialogue:
        """Conduct the dialogue about one caption.

        Args:
            task: the caption.
            caption: the tagged caption; None if negatives cannot be made of it.
            reason: why not.
        """
        contents: set[Content] = {words.content(text) for texts in task.done.values() for text in texts}
        rows: list[NegativeRecord] = []
        for name in self.rules:
            if name in task.done:
                continue
            turn = _Turn(self, task, name, load_rule(name), contents)
            if caption is not None:
                yield from turn.run(caption)
            if not turn.rows:
                turn.note("grammar", reason=reason or "no_candidate")
            rows += turn.rows
        return rows


@dataclass
class _Turn:
    """The work on one caption and one rule.

    Attributes:
        maker: provides the settings.
        task: the caption.
        name: name of the rule.
        rule: the rule.
        contents: words of the caption's accepted negatives; those of this turn are added.
        caption: the tagged caption, set by `run`.
        rows: the resulting rows.
        draw: number of requests so far, and so the number of the next.
        accepted: number of accepted negatives.
        ended: whether more requests are pointless.
        next_chat: number and chat of the next request, if already built.
    """

    maker: Maker
    task: CaptionTask
    name: str
    rule: NegativeRule
    contents: set[Content]
    caption: Caption = field(init=False)
    rows: list[NegativeRecord] = field(default_factory=list)
    draw: int = 0
    accepted: int = 0
    ended: bool = False
    next_chat: tuple[int, Chat | None] | None = None

    def run(self, caption: Caption) -> Generator[Request, Reply, None]:
        """Send requests and judge replies until there are enough negatives or nothing is left to request."""
        self.caption = caption
        prompts = self.maker.prompts
        if prompts is None or self._chat() is None:
            self._take_grammar()
            return
        if prompts.forms[0] == "write":
            for _ in range(self.maker.per_rule):
                if self._open:
                    yield from self._write()
        if self._open and "choose" in prompts.forms:
            yield from self._choose(prompts)

    def _take_grammar(self) -> None:
        """Take the grammar's candidates until there are enough negatives.

        A few are made first, usually enough; the longer list begins with them.
        """
        for number in (self.maker.per_rule, self.maker.candidates):
            texts = self._grammar(number)
            for text in texts[self.draw :]:
                if self._open:
                    self._take(text, form="grammar", verdict=self._judge(text))
                    self.draw += 1
            if not self._open or len(texts) < number:  # there are no more
                return

    @property
    def _open(self) -> bool:
        return not self.ended and self.accepted < self.maker.per_rule

    def _write(self) -> Generator[Request, Reply, None]:
        """Request one free answer and judge it as it is."""
        reply = yield from self._ask("write")
        if reply is None:
            return
        if text := read_reply(reply.text):
            self._take(text, form="write", verdict=self._judge(text), reply=reply)
        else:
            self.note("write", reason="model_empty", reply=reply)

    def _choose(self, prompts: Prompts) -> Generator[Request, Reply, None]:
        """Let the model choose among valid texts, made with words that it proposed or by the grammar."""
        proposals: list[str] = []
        if "fill" in prompts.forms and prompts.forms[0] != "write" and isinstance(self.rule, ReplacingRule):
            slots = self.rule.slots(self.caption)
            reply = (yield from self._ask("fill", slots=slots)) if slots else None
            if reply is not None:
                proposals = self._valid(self._filled(self.rule, slots, reply), most=_MOST_PROPOSED)
        if self.ended:
            return
        most = max(MOST_CHOICES, self.maker.per_rule)
        candidates = self._valid([*proposals, *self._grammar(self.maker.candidates)], most=most)
        while self._open and candidates:
            if len(candidates) == 1 and prompts.writes:  # do not pay a writing model for a choice of one
                self._take(candidates[0], form="grammar", verdict=ACCEPTED)
                return
            reply = yield from self._ask("choose", choices=tuple(candidates))
            if reply is None:
                return
            if reply.text not in candidates:
                self.note("choose", reason="model_malformed", reply=reply)
                return
            self._take(reply.text, form="choose", verdict=ACCEPTED, reply=reply)
            candidates = self._valid(candidates, most=most)

    def _ask(
        self, form: Form, *, choices: tuple[str, ...] = (), slots: tuple[Slot, ...] = ()
    ) -> Generator[Request, Reply, Reply | None]:
        """Make one request; None if it failed, which adds a row."""
        chat = self._chat()
        assert chat is not None  # since the turn has begun
        key = RequestKey(self.task.id, self.name, self.draw)
        reply = yield Request(key, form, chat, self.caption.text, choices, slots)
        self.draw += 1
        if reply.outcome == "answered":
            return reply
        self.note(form, reason=f"model_{reply.outcome}", reply=reply)
        self.ended = reply.outcome in _FINAL
        return None

    def _chat(self) -> Chat | None:
        """Return the next request's chat, shared by all forms; None if the rule has nothing to request."""
        prompts = self.maker.prompts
        assert prompts is not None
        if self.next_chat is None or self.next_chat[0] != self.draw:
            examples = prompts.examples_for(self.name, caption_id=self.task.id, draw=self.draw)
            self.next_chat = (self.draw, self.rule.ask(self.caption, examples))
        return self.next_chat[1]

    def _grammar(self, most: int) -> list[str]:
        """Return the grammar's candidates; a smaller `most` gives a prefix of a larger one."""
        rng = draw_rng(self.maker.seed, self.task.id, self.name)
        rule = self.rule
        if isinstance(rule, SiblingRule):
            return rule.from_siblings(self.caption, parse(self.task.sibling_texts), rng, most)
        if self.maker.usage is not None and isinstance(rule, ReplacingRule | TrueRule):
            return rule.propose(self.caption, rng, most, self.maker.usage)
        return rule.propose(self.caption, rng, most)

    def _filled(self, rule: ReplacingRule, slots: Sequence[Slot], reply: Reply) -> Iterator[str]:
        """Yield the caption with proposed words filled in, the likeliest of every slot first."""
        for rank in zip_longest(*reply.words):
            for slot, word in zip(slots, rank, strict=False):
                text = rule.fill(self.caption, slot, word) if word else None
                if text is not None:
                    yield text

    def _valid(self, texts: Sequence[str] | Iterator[str], *, most: int) -> list[str]:
        """Return the first texts that pass every check, without duplicates."""
        valid: dict[Content, str] = {}
        for text in texts:
            content = words.content(text)
            if content not in valid and self._judge(text).accepted:
                valid[content] = text
                if len(valid) == most:
                    break
        return list(valid.values())

    def _judge(self, text: str) -> Verdict:
        verdict = judge(self.rule, self.caption, text)
        if not verdict.accepted:
            return verdict
        content = words.content(text)
        if content in self.contents:
            return refused("duplicate")
        siblings = self.task.siblings
        return refused("duplicate_caption") if siblings and hash_content(content) in siblings else verdict

    def _take(self, text: str, *, form: RowForm, verdict: Verdict, reply: Reply | None = None) -> None:
        self.note(form, reason=verdict.reason, text=text, reply=reply)
        if verdict.accepted:
            self.contents.add(words.content(text))
            self.accepted += 1

    def note(self, form: RowForm, *, reason: str, text: str | None = None, reply: Reply | None = None) -> None:
        """Add a row made from a reply, or without one by the grammar."""
        prompts = self.maker.prompts
        row = NegativeRecord(
            caption_id=self.task.id,
            rule=self.name,
            kind=self.rule.kind,
            text=text,
            source=prompts.source if reply and prompts else RULES_SOURCE,
            accepted=not reason,
            reason=reason,
            draw=reply.key.draw if reply else self.draw,
            form=form,
            score=reply.score if reply else None,
        )
        self.rows.append(row)
