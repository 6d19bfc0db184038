"""Review of examples by people: from drafts and decisions to files of examples. Shared by terminal and page.

This is stage one of the paper: a language model drafts examples of a rule from the user's captions, and people select.
Captions are drawn at random among those that the rule can change; generate.py queries the model and runs the checks.
Every draft, even a refused one, keeps its verdict, which people see too.

`ReviewState` holds the decisions in memory. `Review` appends each decision to a log before it takes effect, and then
writes the rule's file of examples, so a killed review loses nothing. The log is replayed; an incomplete last line is
dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import IO, Final, Literal

from pydantic import Field

from degla.errors import InputError
from degla.files import cannot_write, hold, whole_lines
from degla.negatives.checks import Verdict, check_caption
from degla.negatives.examples import ExampleEntry, read_examples, write_examples
from degla.negatives.generate import ModelSource, NegativesSettings, generate
from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import parse, parse_one
from degla.negatives.rule import MOST_CANDIDATES, judge, load_rule
from degla.negatives.run.summary import Summary
from degla.parse import parse_json
from degla.records import CaptionRecord, NegativeRecord, Record, read_jsonl, validate, write_jsonl

Action = Literal["accept", "reject", "undo"]
MOST_CHARACTERS: Final = 2_000
"""Maximum characters of a text that a person enters; the checks would take minutes for a longer one, which is not a
caption anyway."""
_DRAWN_FOR_EACH: Final = 100
"""Captions drawn for each one needed: the grammar finds a swap of adjectives in one of 70 captions of COCO."""
_DRAWN_BESIDES: Final = 1_000
"""Captions drawn beyond these: of the hundred for one, a quarter of all draws have no such swap."""


class Draft(Record):
    """A proposed example, with the verdict of the checks.

    Attributes:
        rule: the rule that the negative should follow.
        caption: the true text.
        negative: the proposed false text.
        accepted: whether every check passed.
        reason: the check that refused it; "" if accepted.
        source: what made it: "rules" or the name of a language model.
        caption_id: id of the caption in the user's data.
    """

    rule: str = Field(min_length=1)
    caption: str = Field(min_length=1)
    negative: str = Field(min_length=1)
    accepted: bool
    reason: str = ""
    source: str = ""
    caption_id: str = ""


def draft_examples(
    captions: Iterable[CaptionRecord],
    settings: NegativesSettings,
    *,
    model: ModelSource | None,
    out: Path,
    count: int = 60,
    progress: bool = True,
) -> tuple[int, Summary]:
    """Draft examples of one rule into a JSONL file of `Draft`.

    Args:
        captions: the user's captions, read once; ids must be unique among those drawn.
        settings: the one rule, and the settings of the model's requests; the seed also determines the captions drawn.
        model: the drafting model, or a function that opens it; None to use only the grammar.
        out: the file of drafts. Its rows and replies are kept next to it, as ``<out>.rows.jsonl`` and so on: the same
            call resumes an interrupted run, and pays for no reply twice.
        count: number of captions to make drafts from.
        progress: whether to show a progress bar (on a terminal) or log lines.

    Returns:
        The number of drafts, and the counts of the run; `Summary.stopped` names the signal that ended it early.

    Raises:
        InputError: the rule can change no caption, the file belongs to another run, or `generate` raises it.
    """
    if count < 1:
        raise InputError(f"count ({count}) must be 1 or more.")
    (rule,) = settings.rules
    writes = model is not None and settings.form == "write"
    drawn = draw_captions(captions, rule=rule, count=count, seed=settings.seed, writes=writes)
    if not drawn:
        raise InputError(f"the rule {rule} can change none of the captions. Give other captions, or more of them.")
    rows = out.with_name(out.name + ".rows.jsonl")
    if out.exists() and not rows.exists():
        raise InputError(f"{out}: already exists, but {rows.name}, needed to resume, is missing. Choose another --out.")
    summary = generate(drawn, settings, out=rows, progress=progress, model=model)
    texts = {record.id: record.text for record in drawn}
    drafts = (
        Draft(
            rule=row.rule,
            caption=texts[row.caption_id],
            negative=row.text,
            accepted=row.accepted,
            reason=row.reason,
            source=row.source,
            caption_id=row.caption_id,
        )
        for row in read_jsonl(NegativeRecord, rows)
        if row.text is not None
    )
    return write_jsonl(out, drafts), summary


def draw_captions(
    captions: Iterable[CaptionRecord], *, rule: str, count: int, seed: int, writes: bool = True
) -> list[CaptionRecord]:
    """Draw at most `count` captions of different texts that a rule can change, in random order.

    Holds 100 times as many captions and 1,000 more.

    Args:
        captions: captions to draw from.
        rule: name of the rule.
        count: maximum number of captions.
        seed: of the draws.
        writes: whether a model writes the change; otherwise the grammar must have a candidate.
    """
    member = load_rule(rule)
    usable: dict[str, CaptionRecord] = {}  # By text: drafts of equal captions are often equal.

    def lot(record: CaptionRecord) -> bytes:
        return hashlib.sha256(f"{seed}\n{record.id}".encode()).digest()

    candidates = iter(nsmallest(_DRAWN_FOR_EACH * count + _DRAWN_BESIDES, captions, key=lot))
    while len(usable) < count and (batch := list(islice(candidates, 64))):
        english = [record for record in batch if check_caption(record.text).accepted]
        tagged = parse([record.text for record in english])
        for record, caption in zip(english, tagged, strict=True):
            if not member.applies(caption):
                continue
            texts = [] if writes else member.propose(caption, Random(0), MOST_CANDIDATES)
            if writes or any(judge(member, caption, text).accepted for text in texts):
                usable.setdefault(record.text, record)
    return list(usable.values())[:count]


class Decision(Record):
    """One line of the log.

    Attributes:
        action: what the person did; "undo" reverts the last decision.
        key: key of the draft, see `draft_key`.
        negative: the accepted text, edited or not; "" otherwise.
    """

    action: Action
    key: str
    negative: str = ""


@dataclass
class ReviewState:
    """The decisions so far, and the current draft.

    Attributes:
        drafts: all drafts, without duplicates (which repeated captions cause).
        position: index of the current draft.
        history: decisions in effect, oldest first, without any "undo".
    """

    drafts: Sequence[Draft]
    position: int = field(default=0, init=False)
    history: list[Decision] = field(default_factory=list, init=False)
    _keys: tuple[str, ...] = field(init=False, repr=False)
    _places: dict[str, int] = field(init=False, repr=False)
    _choices: dict[str, list[Decision]] = field(default_factory=dict, init=False, repr=False)
    """Decisions in `history` on each decided draft, by key; the last one is in effect."""

    def __post_init__(self) -> None:
        if not self.drafts:
            raise InputError("there are no drafts to review.")
        own: dict[str, Draft] = {}
        for draft in self.drafts:
            own.setdefault(draft_key(draft), draft)
        self.drafts, self._keys = tuple(own.values()), tuple(own)
        self._places = {key: place for place, key in enumerate(own)}

    @property
    def draft(self) -> Draft:
        """The current draft."""
        return self.drafts[self.position]

    @property
    def key(self) -> str:
        """Key of the current draft."""
        return self._keys[self.position]

    @property
    def accepted(self) -> list[tuple[Draft, str]]:
        """Accepted drafts with their final text, in the order of the drafts."""
        pairs = ((draft, self.choice(key)) for key, draft in zip(self._keys, self.drafts, strict=True))
        return [(draft, choice.negative) for draft, choice in pairs if choice and choice.action == "accept"]

    @property
    def decided(self) -> int:
        """Number of drafts accepted or rejected."""
        return len(self._choices)

    @property
    def is_done(self) -> bool:
        """Whether all drafts are decided."""
        return self.decided == len(self.drafts)

    def choice(self, key: str) -> Decision | None:
        """Return the decision in effect on a draft; None if it is undecided."""
        return self._choices[key][-1] if key in self._choices else None

    def text(self) -> str:
        """Return the current draft's negative: as accepted, else as drafted."""
        choice = self.choice(self.key)
        return choice.negative if choice and choice.negative else self.draft.negative

    def accept(self, negative: str | None = None) -> Decision:
        """Return the decision that accepts the current draft, with another text if given.

        Raises:
            InputError: the text is empty, far too long, or equal to the caption.
        """
        if negative is not None and len(negative) > MOST_CHARACTERS:
            raise InputError(f"the negative is longer than {MOST_CHARACTERS:,} characters. Write one sentence.")
        text = _one_line(self.draft.negative if negative is None else negative)
        if not words.content(text):
            raise InputError("the negative has no words.")
        if words.content(text) == words.content(self.draft.caption):
            raise InputError("the negative is the same as the caption.")
        return Decision(action="accept", key=self.key, negative=text)

    def reject(self) -> Decision:
        """Return the decision that rejects the current draft."""
        return Decision(action="reject", key=self.key)

    def undo(self) -> Decision | None:
        """Return the decision that reverts the last one; None if there is none."""
        return Decision(action="undo", key=self.history[-1].key) if self.history else None

    def apply(self, decision: Decision) -> tuple[Decision | None, Decision | None]:
        """Apply a decision; the draft that is shown stays, see `show_after`.

        Returns:
            The decision in effect for that draft before, and the one now.

        Raises:
            InputError: "undo" is not of the last decision.
        """
        before = self.choice(decision.key)
        if decision.action == "undo":
            if not self.history or self.history[-1].key != decision.key:
                raise InputError("only the last decision can be undone.")
            self.history.pop()
            self._choices[decision.key].pop()
            if not self._choices[decision.key]:
                del self._choices[decision.key]
        else:
            self.history.append(decision)
            self._choices.setdefault(decision.key, []).append(decision)
        return before, self.choice(decision.key)

    def show_after(self, decision: Decision) -> None:
        """Show the next undecided draft after that of a decision, or after "undo" the reopened one."""
        self.show(decision.key)
        if decision.action != "undo":
            self.skip()

    def move(self, step: int) -> None:
        """Move to another draft: 1 for the next, -1 for the previous one; stops at the ends."""
        self.position = min(max(self.position + step, 0), len(self.drafts) - 1)

    def skip(self) -> None:
        """Show the next undecided draft and leave the current one undecided."""
        self.position = self._next_open(self.position)

    def show_first_open(self) -> None:
        """Show the first undecided draft, or the last draft if all are decided."""
        self.position = self._next_open(len(self.drafts) - 1)

    def find(self, key: str) -> Draft | None:
        """Return the draft with that key; None if there is none."""
        return self.drafts[self._places[key]] if key in self._places else None

    def show(self, key: str) -> None:
        """Show the draft with that key, if there is one."""
        self.position = self._places.get(key, self.position)

    def _next_open(self, place: int) -> int:
        if self.is_done:
            return place
        cycle = chain(range(place + 1, len(self._keys)), range(place + 1))
        return next(other for other in cycle if self._keys[other] not in self._choices)


def draft_key(draft: Draft) -> str:
    """Return a draft's key, a hash of its content with 16 hexadecimal digits."""
    text = json.dumps([draft.rule, draft.caption, draft.negative])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def judge_text(draft: Draft, negative: str) -> Verdict:
    """Return the verdict of the checks on a draft's negative, or on another text for it."""
    if negative == draft.negative:
        return Verdict(draft.accepted, draft.reason)
    return judge(load_rule(draft.rule), parse_one(draft.caption), negative)


class Review:
    """A review on disk. Use it in a ``with`` block, which locks the log against other processes.

    Attributes:
        state: the decisions.
        log: the append-only file of decisions.
        out: a folder of ``<rule>.yaml`` files, or one file for a single rule.
    """

    def __init__(self, drafts: Sequence[Draft], *, log: Path, out: Path) -> None:
        """Set the drafts and the files.

        Raises:
            InputError: there is nothing to review, or there are several rules but only one file.
        """
        self.state = ReviewState(drafts)
        self.log, self.out = log, out
        self.rules = tuple(sorted({draft.rule for draft in drafts}))
        self._stream: IO[bytes] | None = None
        self._unwritten: list[tuple[str, Decision | None, Decision | None]] = []  # not in the rules' files yet
        if self._is_one_file and len(self.rules) > 1:
            raise InputError(f"{out}: the drafts have several rules ({', '.join(self.rules)}). Give a folder as --out.")
        for rule in self.rules:
            load_rule(rule)

    def __enter__(self) -> Review:
        """Resume the review where the log ends.

        Raises:
            InputError: the log is in use or damaged before its last line, or a file cannot be read or written.
        """
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.log.open("ab+")
        except OSError as error:
            raise cannot_write(self.log, error, remedy="Move the drafts to a folder that you can write to.") from None
        if hold(self._stream.fileno()) is False:
            self._stream.close()
            raise InputError(f"{self.log}: another review of these drafts is open. Close it first.")
        self._replay(self._stream)
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            try:
                self._catch_up()
            finally:
                self._stream.close()

    def file(self, rule: str) -> Path:
        """Return the file for the examples of a rule."""
        return self.out if self._is_one_file else self.out / f"{rule}.yaml"

    def act(self, action: Action, text: str | None = None) -> None:
        """Accept the current draft (with another text if given), reject it, or undo the last decision.

        Raises:
            InputError: the text cannot be accepted, there is nothing to undo, or a file cannot be written.
            DeglaError: the disk is full.
        """
        if action == "accept":
            self.decide(self.state.accept(text))
        elif action == "reject":
            self.decide(self.state.reject())
        elif (decision := self.state.undo()) is not None:
            self.decide(decision)
        else:
            raise InputError("there is nothing to undo.")

    def decide(self, decision: Decision) -> None:
        """Log a decision, apply it, and update the rule's file.

        A decision that changes nothing is not logged, such as a key pressed twice.

        Raises:
            InputError: a file cannot be written.
            DeglaError: the disk is full.
        """
        if self._stream is None:
            raise RuntimeError("use Review in a with block")
        if decision.action != "undo" and self.state.choice(decision.key) == decision:
            self.state.show_after(decision)
            return
        log, line = self._stream.fileno(), decision.model_dump_json().encode() + b"\n"
        end = os.fstat(log).st_size
        try:
            while line:
                line = line[os.write(log, line) :]
            os.fsync(log)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(log, end)  # What was not decided must not be replayed.
            raise cannot_write(self.log, error, remedy="Decide again once it can.") from None
        self._unwritten.append((decision.key, *self.state.apply(decision)))
        self.state.show_after(decision)
        self._catch_up()

    def _catch_up(self) -> None:
        """Write what the decisions change in the rules' files, also those whose file could not be written before."""
        while self._unwritten:
            self._update_file(*self._unwritten[0])
            del self._unwritten[0]

    @property
    def _is_one_file(self) -> bool:
        return self.out.suffix in (".yaml", ".yml")

    def _replay(self, stream: IO[bytes]) -> None:
        """Apply the log's decisions, ignoring those on drafts that no longer exist."""
        last: tuple[str, Decision | None, Decision | None] | None = None
        end = 0
        for number, place, line in whole_lines(stream):
            end, where = place + len(line), f"{self.log} line {number}"
            row = parse_json(line, where=where, remedy="Remove the line and decide again.", lines=False)
            decision = validate(Decision, row, where=where)
            if self.state.find(decision.key) is not None:
                try:
                    last = (decision.key, *self.state.apply(decision))
                except InputError as error:
                    raise InputError(f"{where}: {error} Remove the line.") from None
        stream.truncate(end)
        for rule in (rule for rule in self.rules if not self.file(rule).exists()):
            texts = [(_one_line(draft.caption), text) for draft, text in self.state.accepted if draft.rule == rule]
            if texts:
                entries = [ExampleEntry(caption=caption, negative=text) for caption, text in dict.fromkeys(texts)]
                write_examples(self.file(rule), entries, rule=rule)
        if last is not None:
            self._update_file(*last)  # the review may have been killed between writing the log and the examples
        self.state.show_first_open()

    def _update_file(self, key: str, before: Decision | None, after: Decision | None) -> None:
        """Remove the text no longer in effect from the rule's file and add the one that is.

        All other entries are kept, even if edited by hand in the meantime.
        """
        draft, old, new = self.state.find(key), _accepted_text(before), _accepted_text(after)
        assert draft is not None  # as its decision was applied
        file, rule, caption = self.file(draft.rule), draft.rule, _one_line(draft.caption)
        accepted = self.state.accepted if old is not None else ()
        if any((text, one.rule, _one_line(one.caption)) == (old, rule, caption) for one, text in accepted):
            old = None  # Still in effect, by this draft or another one of the caption.
        earlier = read_examples(file, rule=rule) if file.exists() else ()
        entries = [entry for entry in earlier if (entry.caption, entry.negative) != (caption, old)]
        if new is not None and not any((entry.caption, entry.negative) == (caption, new) for entry in entries):
            entries.append(ExampleEntry(caption=caption, negative=new))
        if entries != list(earlier):
            write_examples(file, entries, rule=rule)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _accepted_text(decision: Decision | None) -> str | None:
    return decision.negative if decision is not None and decision.action == "accept" else None
