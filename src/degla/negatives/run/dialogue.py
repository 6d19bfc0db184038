"""All that is asked about one caption, and the rows that come of it: a generator that requests leave and replies enter.

Rules follow each other, and a rule begins when the one before it has its rows: so what is a duplicate, and what is
asked next, depends on the replies alone and never on when they came.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from random import Random
from typing import Final, Literal, NamedTuple, cast

from degla.negatives.checks import ACCEPTED, Content, Verdict, refused
from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import Caption, parse
from degla.negatives.grammar.words import WordUsage
from degla.negatives.llm import Chat, Form, Reply, ReplyStatus, Request, RequestKey, Slot
from degla.negatives.replies import MOST_CANDIDATES
from degla.negatives.rule import NegativeRule, ReadsSiblings, ReplacingRule, TrueRule, judge, load_rule
from degla.negatives.run.questions import Prompts, draw_rng
from degla.negatives.run.stream import CaptionTask, hash_content
from degla.records import NegativeRecord

RowForm = Literal["grammar", "write", "choose", "fill"]
"""How the text of a row was made: by the grammar, or by the form of a request."""

RULES_SOURCE: Final = "rules"
"""`NegativeRecord.source` of what the grammar makes."""


class CaptionWithRule(NamedTuple):
    """A caption and a rule, with the rule's name."""

    task: CaptionTask
    name: str
    rule: NegativeRule

    def row(
        self,
        text: str | None,
        *,
        reason: str,
        draw: int = 0,
        source: str = RULES_SOURCE,
        form: RowForm = "grammar",
        score: float | None = None,
    ) -> NegativeRecord:
        """A row of the file."""
        return NegativeRecord(
            caption_id=self.task.id,
            rule=self.name,
            kind=self.rule.kind,
            text=text,
            source=source,
            accepted=not reason,
            reason=reason,
            draw=draw,
            form=form,
            score=score,
        )


Dialogue = Generator[Request, Reply, list[NegativeRecord]]
"""Yields requests one after another, is sent the reply to each, returns the caption's rows."""

MOST_CHOICES: Final = 12
"""Texts that a model chooses among; six gave the same choice for 179 of 215 captions (a 135M model)."""
_MOST_PROPOSED: Final = 8
"""Of them, texts with words that the model itself proposed."""
_LAST: Final[frozenset[ReplyStatus]] = frozenset({"too_long", "rejected", "unreachable"})
"""Outcomes after which no further request about this caption and rule makes sense."""
_CACHED: Final = 16_384
"""Verdicts that are remembered, for captions that come again word by word."""
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
    _verdicts: dict[tuple[str, str, str], Verdict] = field(default_factory=dict, repr=False, compare=False)

    def talk(self, task: CaptionTask, caption: Caption | None, *, reason: str = "") -> Dialogue:
        """The dialogue about one caption.

        Args:
            task: the caption.
            caption: it with its tags, or None where negatives cannot be made of it.
            reason: why not.
        """
        taken: set[Content] = {words.content(text) for texts in task.done.values() for text in texts}
        rows: list[NegativeRecord] = []
        for name, rule in _load(self.rules).items():
            if name in task.done:
                continue
            pair = CaptionWithRule(task, name, rule)
            if caption is None:
                rows.append(pair.row(None, reason=reason))
            else:
                turn = _Turn(self, pair, caption, taken)
                yield from turn.run()
                rows += turn.rows or [pair.row(None, reason="no_candidate", draw=turn.draw)]
        return rows

    def judge(self, name: str, rule: NegativeRule, caption: Caption, text: str) -> Verdict:
        """The verdict on a text by itself, apart from what else the caption and its image have."""
        key = (name, caption.text, text)
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= _CACHED:
                self._verdicts.clear()
            verdict = self._verdicts[key] = judge(rule, caption, text)
        return verdict


@cache
def _load(rules: tuple[str, ...]) -> dict[str, NegativeRule]:
    """Rules by name; looking on the shelf for each caption would take longer than the caption."""
    return {name: load_rule(name) for name in rules}


@cache
def _reads_siblings(rule: type[NegativeRule]) -> bool:
    """Asked for every caption and rule, and Python looks through a protocol's members each time."""
    return issubclass(rule, ReadsSiblings)


@dataclass
class _Turn:
    """The work on one caption and one rule.

    Attributes:
        taken: contents of the caption's accepted negatives; those of this turn are added.
        rows: what came of it.
        draw: requests made so far, hence the number of the next.
        accepted: rows that are negatives.
        ended: no further request makes sense.
        next_chat: the chat of the next request, with its number, where it was made already.
    """

    maker: Maker
    pair: CaptionWithRule
    caption: Caption
    taken: set[Content]
    rows: list[NegativeRecord] = field(default_factory=list)
    draw: int = 0
    accepted: int = 0
    ended: bool = False
    next_chat: tuple[int, Chat | None] | None = None

    def run(self) -> Generator[Request, Reply, None]:
        """Ask and judge until there are enough negatives or nothing is left to ask."""
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
        texts = self.pair.rule.read(self.caption, reply.text, _UNUSED)
        if not texts:
            self._note(reply, "write", reason="model_empty")
        for text in texts:
            self._take(text, form="write", verdict=self._judge(text), reply=reply)

    def _choose(self, questions: Prompts) -> Generator[Request, Reply, None]:
        """Choices among the texts that are valid: of words that the model proposed, and of the grammar."""
        proposed: list[str] = []
        if "fill" in questions.forms and questions.forms[0] != "write" and isinstance(self.pair.rule, ReplacingRule):
            slots = self.pair.rule.slots(self.caption)
            reply = (yield from self._ask("fill", slots=slots)) if slots else None
            if reply is not None:
                proposed = self._valid(self._filled(self.pair.rule, slots, reply), most=_MOST_PROPOSED)
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
                self._note(reply, "choose", reason="model_malformed")
                return
            self._take(reply.text, form="choose", verdict=ACCEPTED, reply=reply)
            candidates = self._valid(candidates, most=MOST_CHOICES)

    def _ask(
        self, form: Form, *, choices: tuple[str, ...] = (), slots: tuple[Slot, ...] = ()
    ) -> Generator[Request, Reply, Reply | None]:
        """One request; None where it failed, which is a row."""
        chat = self._chat()
        assert chat is not None  # as the turn began
        key = RequestKey(self.pair.task.id, self.pair.name, self.draw)
        reply = yield Request(key, form, chat, self.caption.text, choices, slots)
        self.draw += 1
        if reply.outcome == "answered":
            return reply
        self._note(reply, form, reason=f"model_{reply.outcome}")
        self.ended = reply.outcome in _LAST
        return None

    def _chat(self) -> Chat | None:
        """The chat of the next request, which every form shares; None where the rule has nothing to ask."""
        questions = self.maker.questions
        assert questions is not None
        if self.next_chat is None or self.next_chat[0] != self.draw:
            examples = questions.draw(self.pair.name, caption_id=self.pair.task.id, draw=self.draw)
            self.next_chat = (self.draw, self.pair.rule.ask(self.caption, examples))
        return self.next_chat[1]

    def _grammar(self, most: int = MOST_CANDIDATES) -> list[str]:
        """The grammar's candidates, fewer of them a beginning of more."""
        rng = draw_rng(self.maker.seed, self.pair.task.id, self.pair.name)
        rule = self.pair.rule
        if _reads_siblings(type(rule)):
            return cast(ReadsSiblings, rule).from_siblings(self.caption, parse(self.pair.task.sibling_texts), rng, most)
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
        verdict = self.maker.judge(self.pair.name, self.pair.rule, self.caption, text)
        if not verdict.accepted:
            return verdict
        content = words.content(text)
        if content in self.taken:
            return refused("duplicate")
        siblings = self.pair.task.siblings
        return refused("duplicate_caption") if siblings and hash_content(content) in siblings else verdict

    def _take(self, text: str, *, form: RowForm, verdict: Verdict, reply: Reply | None = None) -> None:
        if reply is None:
            self.rows.append(self.pair.row(text, reason=verdict.reason, draw=self.draw, form=form))
        else:
            self._note(reply, form, reason=verdict.reason, text=text)
        if verdict.accepted:
            self.taken.add(words.content(text))
            self.accepted += 1

    def _note(self, reply: Reply, form: RowForm, *, reason: str, text: str | None = None) -> None:
        """The row that a reply makes."""
        source = self.maker.questions.source if self.maker.questions else RULES_SOURCE
        row = self.pair.row(text, reason=reason, draw=reply.key.draw, source=source, form=form, score=reply.score)
        self.rows.append(row)
