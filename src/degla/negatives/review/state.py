"""People select examples: drafts and their decisions enter, which drafts are accepted leaves; decisions.py keeps it.

Nothing here touches a disk. The terminal and the page, both in the room `app`, share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from degla.errors import InputError
from degla.negatives.checks import judge
from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.review.draft import Draft
from degla.negatives.rule import load_rule
from degla.negatives.verdicts import Verdict
from degla.records import Record

Action = Literal["accept", "reject", "undo"]
LONGEST: Final = 2_000
"""Characters of a negative at most; beyond that the checks would take minutes for what no caption is."""


class Decision(Record):
    """One line of the log.

    Attributes:
        action: what the person did; "undo" takes the last decision back.
        key: the draft, see `draft_key`.
        negative: the text that was accepted, edited or not; "" otherwise.
    """

    action: Action
    key: str
    negative: str = ""


@dataclass
class ReviewState:
    """What was decided so far, and which draft is shown.

    Attributes:
        drafts: all drafts, no two with one key.
        position: index of the draft that is shown.
        history: decisions that count, oldest first; none of them is an "undo".
    """

    drafts: Sequence[Draft]
    position: int = 0
    history: list[Decision] = field(default_factory=list)
    _places: dict[str, int] = field(init=False, repr=False)
    _made: dict[str, list[Decision]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.drafts:
            raise InputError("there are no drafts to review.")
        self._places = {draft_key(draft): place for place, draft in enumerate(self.drafts)}
        if len(self._places) < len(self.drafts):
            raise InputError("two drafts are the same.")
        self._made = {}
        for decision in self.history:
            self._made.setdefault(decision.key, []).append(decision)

    @property
    def draft(self) -> Draft:
        """The draft that is shown."""
        return self.drafts[self.position]

    @property
    def key(self) -> str:
        """Its key."""
        return draft_key(self.draft)

    @property
    def accepted(self) -> list[tuple[Draft, str]]:
        """Accepted drafts with their final text, in the order of the drafts."""
        choices = ((draft, self.choice(draft_key(draft))) for draft in self.drafts)
        return [(draft, choice.negative) for draft, choice in choices if choice and choice.action == "accept"]

    @property
    def decided(self) -> int:
        """Number of drafts accepted or rejected."""
        return len(self._made)

    @property
    def is_done(self) -> bool:
        """Whether every draft is decided."""
        return self.decided == len(self.drafts)

    def choice(self, key: str) -> Decision | None:
        """The decision on a draft that counts."""
        made = self._made.get(key)
        return made[-1] if made else None

    def text(self) -> str:
        """The negative as it stands for the draft shown: as accepted, else as drafted."""
        choice = self.choice(self.key)
        return choice.negative if choice and choice.negative else self.draft.negative

    def accept(self, negative: str | None = None) -> Decision:
        """The decision that accepts the draft shown, with another text where one is given.

        Raises:
            InputError: the text is empty, far too long, or says what the caption says.
        """
        if negative is not None and len(negative) > LONGEST:
            raise InputError(f"the negative is longer than {LONGEST:,} characters; a caption is one sentence.")
        text = " ".join((self.draft.negative if negative is None else negative).split())
        if not words.content(text):
            raise InputError("the negative has no words.")
        if words.content(text) == words.content(self.draft.caption):
            raise InputError("the negative says what the caption says.")
        return Decision(action="accept", key=self.key, negative=text)

    def reject(self) -> Decision:
        """The decision that rejects the draft shown."""
        return Decision(action="reject", key=self.key)

    def undo(self) -> Decision | None:
        """The decision that takes the last one back; None where there is none."""
        return Decision(action="undo", key=self.history[-1].key) if self.history else None

    def apply(self, decision: Decision) -> tuple[Decision | None, Decision | None]:
        """Let a decision count and show the next undecided draft, or after "undo" the one that is open again.

        Returns:
            What counted for that draft before, and what counts now.
        """
        before = self.choice(decision.key)
        if decision.action == "undo":
            if not self.history or self.history[-1].key != decision.key:
                raise InputError("only the last decision can be undone.")
            self.history.pop()
            made = self._made[decision.key]
            made.pop()
            if not made:
                del self._made[decision.key]
            self.position = self._places[decision.key]
        else:
            if decision.key not in self._places:
                raise InputError(f"no draft has the key {decision.key!r}.")
            self.history.append(decision)
            self._made.setdefault(decision.key, []).append(decision)
            self.position = self._next_open(self._places[decision.key])
        return before, self.choice(decision.key)

    def move(self, step: int) -> None:
        """Show another draft: 1 the next one, -1 the one before; stays at the ends."""
        self.position = min(max(self.position + step, 0), len(self.drafts) - 1)

    def skip(self) -> None:
        """Show the next undecided draft and leave this one open."""
        self.position = self._next_open(self.position)

    def show_first_open(self) -> None:
        """Show the first undecided draft, or the last one where all are decided."""
        self.position = self._next_open(len(self.drafts) - 1)

    def find(self, key: str) -> Draft | None:
        """The draft with that key."""
        return self.drafts[self._places[key]] if key in self._places else None

    def show(self, key: str) -> None:
        """Show the draft with that key, where there is one."""
        self.position = self._places.get(key, self.position)

    def _next_open(self, place: int) -> int:
        for step in range(1, len(self.drafts) + 1):
            other = (place + step) % len(self.drafts)
            if draft_key(self.drafts[other]) not in self._made:
                return other
        return place


def draft_key(draft: Draft) -> str:
    """Names a draft by what it says: 16 hexadecimal digits."""
    text = json.dumps([draft.rule, draft.caption, draft.negative])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def judge_text(draft: Draft, negative: str) -> Verdict:
    """The verdict of the checks on a draft's negative, or on a text in its place."""
    if negative == draft.negative:
        return Verdict(draft.accepted, draft.reason)
    return judge(load_rule(draft.rule), parse_one(draft.caption), negative)
