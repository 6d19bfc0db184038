"""All that is asked about one caption, and the rows that come of it: a generator that requests leave and replies enter.

Rules follow each other, and a rule begins when the one before it has its rows: so what is a duplicate, and what is
asked next, depends on the replies alone and never on when they came.

The paper (arXiv 2504.16801) draws five examples anew for every request. With fixed sets of examples, requests of one
rule share a longer beginning, which a server's prefix cache serves; the caption's id picks the set.
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
from degla.negatives.replies import MOST_CANDIDATES
from degla.negatives.rule import Example, NegativeRule, ReplacingRule, SiblingRule, TrueRule, judge, load_rule
from degla.negatives.run.stream import CaptionTask, hash_content, hash_text
from degla.pages.words import counted
from degla.records import NegativeRecord

RowForm = Literal["grammar", "write", "choose", "fill"]
"""How the text of a row was made: by the grammar, or by the form of a request."""

RULES_SOURCE: Final = "rules"
"""`NegativeRecord.source` of what the grammar makes."""


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


Dialogue = Generator[Request, Reply, list[NegativeRecord]]
"""Yields requests one after another, is sent the reply to each, returns the caption's rows."""

MOST_CHOICES: Final = 12
"""Texts that a model chooses among; six gave the same choice for 179 of 215 captions (a 135M model)."""
_MOST_PROPOSED: Final = 8
"""Of them, texts with words that the model itself proposed."""
_LAST: Final[frozenset[ReplyStatus]] = frozenset({"too_long", "rejected", "unreachable"})
"""Outcomes after which no further request about this caption and rule makes sense."""
_UNUSED: Final = Random(0)
"""Where a reply is read nothing is drawn."""


@dataclass(frozen=True)
class Maker:
    """Makes the rows of captions; what it makes depends on its settings and the replies alone.

    Attributes:
        rules: names, in the order of the rows.
        seed: decides every draw, with the caption's id and the rule's name.
        per_rule: accepted negatives of one rule for one caption, at most.
        questions: what a language model is asked; None where the grammar does it alone.
        usage: how the captions use words, which decides how often the grammar draws each; None: all of a list alike.
    """

    rules: tuple[str, ...]
    seed: int
    per_rule: int = 1
    questions: Prompts | None = None
    usage: WordUsage | None = None

    def talk(self, task: CaptionTask, caption: Caption | None, *, reason: str = "") -> Dialogue:
        """The dialogue about one caption.

        Args:
            task: the caption.
            caption: it with its tags, or None where negatives cannot be made of it.
            reason: why not.
        """
        taken: set[Content] = {words.content(text) for texts in task.done.values() for text in texts}
        rows: list[NegativeRecord] = []
        for name in self.rules:
            if name in task.done:
                continue
            turn = _Turn(self, task, name, load_rule(name), taken)
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
        maker: whose settings count.
        task: the caption.
        name: of the rule.
        rule: the rule.
        taken: contents of the caption's accepted negatives; those of this turn are added.
        caption: the caption with its tags, since `run`.
        rows: what came of it.
        draw: requests made so far, hence the number of the next.
        accepted: rows that are negatives.
        ended: no further request makes sense.
        next_chat: the chat of the next request, with its number, where it was made already.
    """

    maker: Maker
    task: CaptionTask
    name: str
    rule: NegativeRule
    taken: set[Content]
    caption: Caption = field(init=False)
    rows: list[NegativeRecord] = field(default_factory=list)
    draw: int = 0
    accepted: int = 0
    ended: bool = False
    next_chat: tuple[int, Chat | None] | None = None

    def run(self, caption: Caption) -> Generator[Request, Reply, None]:
        """Ask and judge until there are enough negatives or nothing is left to ask."""
        self.caption = caption
        questions = self.maker.questions
        if questions is None or self._chat() is None:
            self._take_grammar()
            return
        if questions.forms[0] == "write":
            for _ in range(self.maker.per_rule):
                if self._open:
                    yield from self._write()
        if self._open and "choose" in questions.forms:
            yield from self._choose(questions)

    def _take_grammar(self) -> None:
        """The grammar's candidates until there are enough negatives; most are never needed, so few are made first."""
        for number in dict.fromkeys((self.maker.per_rule, MOST_CANDIDATES)):
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
        """One free answer, judged as it is."""
        reply = yield from self._ask("write")
        if reply is None:
            return
        texts = self.rule.read(self.caption, reply.text, _UNUSED)
        if not texts:
            self.note("write", reason="model_empty", reply=reply)
        for text in texts:
            self._take(text, form="write", verdict=self._judge(text), reply=reply)

    def _choose(self, questions: Prompts) -> Generator[Request, Reply, None]:
        """Choices among the texts that are valid: of words that the model proposed, and of the grammar."""
        proposed: list[str] = []
        if "fill" in questions.forms and questions.forms[0] != "write" and isinstance(self.rule, ReplacingRule):
            slots = self.rule.slots(self.caption)
            reply = (yield from self._ask("fill", slots=slots)) if slots else None
            if reply is not None:
                proposed = self._valid(self._filled(self.rule, slots, reply), most=_MOST_PROPOSED)
        if self.ended:
            return
        candidates = self._valid([*proposed, *self._grammar()], most=MOST_CHOICES)
        while self._open and candidates:
            if len(candidates) == 1 and questions.writes:  # one that writes need not be paid for no choice
                self._take(candidates[0], form="grammar", verdict=ACCEPTED)
                return
            reply = yield from self._ask("choose", choices=tuple(candidates))
            if reply is None:
                return
            if reply.text not in candidates:
                self.note("choose", reason="model_malformed", reply=reply)
                return
            self._take(reply.text, form="choose", verdict=ACCEPTED, reply=reply)
            candidates = self._valid(candidates, most=MOST_CHOICES)

    def _ask(
        self, form: Form, *, choices: tuple[str, ...] = (), slots: tuple[Slot, ...] = ()
    ) -> Generator[Request, Reply, Reply | None]:
        """One request; None where it failed, which is a row."""
        chat = self._chat()
        assert chat is not None  # as the turn began
        key = RequestKey(self.task.id, self.name, self.draw)
        reply = yield Request(key, form, chat, self.caption.text, choices, slots)
        self.draw += 1
        if reply.outcome == "answered":
            return reply
        self.note(form, reason=f"model_{reply.outcome}", reply=reply)
        self.ended = reply.outcome in _LAST
        return None

    def _chat(self) -> Chat | None:
        """The chat of the next request, which every form shares; None where the rule has nothing to ask."""
        questions = self.maker.questions
        assert questions is not None
        if self.next_chat is None or self.next_chat[0] != self.draw:
            examples = questions.draw(self.name, caption_id=self.task.id, draw=self.draw)
            self.next_chat = (self.draw, self.rule.ask(self.caption, examples))
        return self.next_chat[1]

    def _grammar(self, most: int = MOST_CANDIDATES) -> list[str]:
        """The grammar's candidates, fewer of them a beginning of more."""
        rng = draw_rng(self.maker.seed, self.task.id, self.name)
        rule = self.rule
        if isinstance(rule, SiblingRule):
            return rule.from_siblings(self.caption, parse(self.task.sibling_texts), rng, most)
        if self.maker.usage is not None and isinstance(rule, ReplacingRule | TrueRule):
            return rule.propose(self.caption, rng, most, self.maker.usage)
        return rule.read(self.caption, None, rng, most=most)

    def _filled(self, rule: ReplacingRule, slots: Sequence[Slot], reply: Reply) -> Iterator[str]:
        """The caption with proposed words in place: the likeliest of every slot first."""
        for rank in zip_longest(*reply.words):
            for slot, word in zip(slots, rank, strict=False):
                text = rule.fill(self.caption, slot, word) if word else None
                if text is not None:
                    yield text

    def _valid(self, texts: Sequence[str] | Iterator[str], *, most: int) -> list[str]:
        """The first texts that pass every check, no two alike."""
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
        if content in self.taken:
            return refused("duplicate")
        siblings = self.task.siblings
        return refused("duplicate_caption") if siblings and hash_content(content) in siblings else verdict

    def _take(self, text: str, *, form: RowForm, verdict: Verdict, reply: Reply | None = None) -> None:
        self.note(form, reason=verdict.reason, text=text, reply=reply)
        if verdict.accepted:
            self.taken.add(words.content(text))
            self.accepted += 1

    def note(self, form: RowForm, *, reason: str, text: str | None = None, reply: Reply | None = None) -> None:
        """Add a row: what a reply made, or without one the grammar."""
        questions = self.maker.questions
        row = NegativeRecord(
            caption_id=self.task.id,
            rule=self.name,
            kind=self.rule.kind,
            text=text,
            source=questions.source if reply and questions else RULES_SOURCE,
            accepted=not reason,
            reason=reason,
            draw=reply.key.draw if reply else self.draw,
            form=form,
            score=reply.score if reply else None,
        )
        self.rows.append(row)
