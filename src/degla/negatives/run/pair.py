"""A caption with a rule, and the row of the file that a text of the two makes."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from degla.negatives.rule import NegativeRule
from degla.negatives.run.stream import CaptionTask
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
