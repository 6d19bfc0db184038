"""A review on disk: decisions are appended to a log before they count, then the rule's file of examples is written.

So a review that is killed loses nothing: the log is replayed, a torn last line is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from degla.errors import InputError
from degla.files import hold
from degla.negatives.examples import ExampleEntry, read_examples, write_examples
from degla.negatives.review.draft import Draft
from degla.negatives.review.state import Action, Decision, ReviewState
from degla.negatives.rule import load_rule
from degla.parse import parse_json
from degla.records import validate


class Review:
    """A review on disk. Used in a ``with`` block, in which no other process can take up the same log.

    Attributes:
        state: what was decided.
        log: the append-only file of decisions.
        out: a folder of ``<rule>.yaml``, or the one file of the one rule.
    """

    def __init__(self, drafts: Sequence[Draft], *, log: Path, out: Path) -> None:
        """Name the drafts and the files.

        Raises:
            InputError: there is nothing to review, or several rules are to go into one file.
        """
        self.state = ReviewState(drafts)
        self.log, self.out = log, out
        self.rules = tuple(sorted({draft.rule for draft in drafts}))
        self._stream: IO[bytes] | None = None
        if self._is_one_file and len(self.rules) > 1:
            raise InputError(f"{out}: the drafts are of the rules {', '.join(self.rules)}; give a folder as --out.")
        for rule in self.rules:
            load_rule(rule)

    def __enter__(self) -> Review:
        """Take up the review where the log ends.

        Raises:
            InputError: the log is damaged before its last line or in use, or a file cannot be read or written.
        """
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.log.open("ab+")
        except OSError as error:
            raise InputError(f"{self.log}: cannot be written: {error.strerror}.") from None
        if hold(self._stream.fileno()) is False:
            self._stream.close()
            raise InputError(f"{self.log}: another review of these drafts is open; close it first.")
        self._replay(self._stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def file(self, rule: str) -> Path:
        """Where the examples of a rule are written."""
        return self.out if self._is_one_file else self.out / f"{rule}.yaml"

    def act(self, action: Action, text: str | None = None) -> None:
        """Accept the draft that is shown, with another text where one is given, reject it, or undo the last decision.

        Raises:
            InputError: the text cannot be accepted, nothing can be undone, or a file cannot be written.
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
        """Write a decision down, let it count, and bring the rule's file up to date.

        A decision that changes nothing is not written: a key that was pressed twice.

        Raises:
            InputError: a file cannot be written.
        """
        if self._stream is None:
            raise RuntimeError("a review is used in a with block")
        if decision.action != "undo" and self.state.choice(decision.key) == decision:
            self.state.show(decision.key)
            self.state.skip()
            return
        try:
            self._stream.write(decision.model_dump_json().encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise InputError(f"{self.log}: cannot be written: {error.strerror}.") from None
        before, after = self.state.apply(decision)
        self._settle(decision.key, before, after)

    @property
    def _is_one_file(self) -> bool:
        return self.out.suffix in (".yaml", ".yml")

    def _replay(self, stream: IO[bytes]) -> None:
        """Let the log's decisions count. Decisions on drafts that are not there any more are passed over."""
        stream.seek(0)
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        stream.truncate(whole)
        last: tuple[str, Decision | None, Decision | None] | None = None
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            where = f"{self.log} line {number}"
            row = parse_json(line, where=where, remedy="Remove the line; its decision is made again.", lines=False)
            decision = validate(Decision, row, where=where)
            if self.state.find(decision.key) is not None:
                last = (decision.key, *self.state.apply(decision))
        missing = [rule for rule in self.rules if not self.file(rule).exists()]
        for draft, negative in self.state.accepted:
            if draft.rule in missing:
                self._write(draft, taken_out=None, put_in=negative)
        if last is not None:
            self._settle(*last)  # the review may have been killed between the log and the file of examples
        self.state.show_first_open()

    def _settle(self, key: str, before: Decision | None, after: Decision | None) -> None:
        """Take the text that no longer counts out of the rule's file and put in the one that does."""
        draft = self.state.find(key)
        if draft is not None:
            self._write(draft, taken_out=_accepted_text(before), put_in=_accepted_text(after))

    def _write(self, draft: Draft, *, taken_out: str | None, put_in: str | None) -> None:
        """Change one entry of a rule's file; the others stay, also those that were changed by hand meanwhile."""
        file, caption = self.file(draft.rule), " ".join(draft.caption.split())
        before = read_examples(file, rule=draft.rule) if file.exists() else ()
        out = (caption, taken_out if taken_out != put_in else None)
        entries = [entry for entry in before if (entry.caption, entry.negative) != out]
        if put_in is not None and not any((entry.caption, entry.negative) == (caption, put_in) for entry in entries):
            entries.append(ExampleEntry(caption=caption, negative=put_in))
        if entries != list(before):
            write_examples(file, entries, rule=draft.rule)


def _accepted_text(decision: Decision | None) -> str | None:
    return decision.negative if decision is not None and decision.action == "accept" else None
