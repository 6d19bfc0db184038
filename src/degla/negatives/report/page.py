"""The report as one HTML page that needs nothing outside itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from markupsafe import Markup, escape

from degla.errors import InputError
from degla.files import write_text
from degla.negatives.differences import TextPiece, mark_tokens
from degla.negatives.report import plots
from degla.negatives.report.counts import Drawn, mean
from degla.negatives.report.examine import Examination, all_rules, frequent
from degla.negatives.report.terminal import share_percent, with_interval
from degla.negatives.verdicts import REASONS
from degla.pages.page import Page, Raw
from degla.pages.table import breakable
from degla.pages.words import UNKNOWN, counted
from degla.statistics.proportions import wilson

_TEMPLATE: Final = "negatives.html.j2"
_EXTREME: Final = 0.9
"""Accuracy of the blind test above which a rule is named on top of the page."""


@dataclass(frozen=True)
class Sample:
    """A caption and a negative to read, changed words marked; `reason` is "" where it was accepted."""

    caption_id: str
    caption: list[TextPiece]
    negative: list[TextPiece]
    source: str
    reason: str


def write_page(files: Sequence[Examination], out: Path) -> None:
    """Write the page, complete or not at all.

    Raises:
        InputError: `out` does not end in ".html" or cannot be written.
    """
    if out.suffix.lower() != ".html":
        raise InputError(f"{out}: the name of a report must end in .html.")
    write_text(out, render_page(files))


def render_page(files: Sequence[Examination]) -> str:
    """The whole page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("degla.negatives.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=share_percent, with_interval=with_interval, mean=mean)
    environment.filters.update(breakable=breakable, whole_flags=_whole_flags)
    rules = all_rules(files)
    body = environment.get_template(_TEMPLATE).render(
        files=files,
        unknown=UNKNOWN,
        rules=rules,
        colours=plots.file_colours(files),
        drawings={name: Markup(drawing) for name, drawing in _drawings(files).items()},
        wilson=wilson,
        frequent=frequent,
        samples=_samples(files),
        reasons=_reasons(files),
        outcomes=_outcomes(files),
        facts={file.label: _facts(file) for file in files},
    )
    labels = ", ".join(file.label for file in files)
    lead = (
        f"{labels}: {files[0].counts.captions:,} captions, "
        f"{counted(len(rules), 'rule')}. Shares in percent, brackets and bars are 95 % intervals."
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Page(
        "Hard negatives", [Raw(body)], lead=[lead], warnings=notes(files), tab=f"Hard negatives: {labels}", foot=made
    ).html()


def notes(files: Sequence[Examination]) -> list[str]:
    """What a reader should know before believing a number."""
    found = []
    for file in files:
        counts = file.counts
        if counts.strangers:
            found.append(
                f"{file.label}: {counts.strangers:,} of {counts.rows:,} rows belong to no caption of the captions file "
                f"(for example {counts.stranger_ids[0]!r}) and are counted nowhere."
            )
        stated = (file.manifest or {}).get("captions")
        if isinstance(stated, int) and stated != counts.captions:
            found.append(f"{file.label}: made from {stated:,} captions, counted against {counts.captions:,}.")
        if file.manifest is None:
            found.append(f"{file.label}: no manifest lies beside it, so nothing is known of how it was made.")
        told = [name for name, blind in file.blind.items() if blind.accuracy.low > _EXTREME]
        if told:
            found.append(
                f"{file.label}: the text alone gives nearly all negatives of {', '.join(told)} away; a model can learn "
                "to refuse them without looking at the image."
            )
        untested = [rule.name for rule in file.rules if rule.accepted and rule.name not in file.blind]
        if untested and file.blind:
            found.append(f"{file.label}: too few negatives of {', '.join(untested)} for the blind test.")
    return found


def _drawings(files: Sequence[Examination]) -> dict[str, str]:
    found = {
        "coverage": plots.coverage(files),
        "rules_a_caption": plots.rules_a_caption(files),
        "lengths": plots.lengths(files),
        "distances": plots.distances(files),
        "blind": "",
        "likelier": "",
    }
    if any(file.blind for file in files):
        known = {file.label: {name: blind.accuracy for name, blind in file.blind.items()} for file in files}
        found["blind"] = plots.shares(files, known, name="blind", label="told from the text alone (%), chance 50")
    if any(file.likelier for file in files):
        known = {file.label: dict(file.likelier) for file in files}
        found["likelier"] = plots.shares(files, known, name="likelier", label="caption likelier than negative (%)")
    return found


def _samples(files: Sequence[Examination]) -> dict[str, dict[str, list[Sample]]]:
    """Rule to label to samples, accepted ones first."""
    found: dict[str, dict[str, list[Sample]]] = {}
    for name in all_rules(files):
        for file in files:
            rule = file.counts.rules.get(name)
            if rule is not None and (drawn := [*rule.to_read.kept, *rule.refused_to_read.kept]):
                found.setdefault(name, {})[file.label] = [_sample(each) for each in drawn]
    return found


def _sample(drawn: Drawn) -> Sample:
    caption, negative = mark_tokens(drawn.caption.text, drawn.negative)
    record = drawn.record
    source = f"{record.source}, {record.form}" if record.form not in ("", "grammar") else record.source
    return Sample(drawn.caption_id, caption, negative, source, record.reason if not record.accepted else "")


def _reasons(files: Sequence[Examination]) -> list[tuple[str, str, dict[str, Counter[str]]]]:
    """(reason, what it means, label to rule to rows), the most frequent first."""
    total: Counter[str] = Counter()
    for file in files:
        for rule in file.rules:
            total.update(rule.reasons)
    return [
        (
            reason,
            REASONS.get(reason, ""),
            {
                file.label: Counter({rule.name: rule.reasons[reason] for rule in file.rules if rule.reasons[reason]})
                for file in files
            },
        )
        for reason, _ in total.most_common()
    ]


def _outcomes(files: Sequence[Examination]) -> list[str]:
    """All outcomes that came up, the most frequent first."""
    total: Counter[str] = Counter()
    for file in files:
        if file.outcomes is not None:
            total.update(file.outcomes.by_outcome())
    return [outcome for outcome, _ in total.most_common()]


def _facts(file: Examination) -> list[tuple[str, str]]:
    """What the manifest says, as text."""
    facts = [("file", file.name), ("rows", f"{file.counts.rows:,}")]
    sources: Counter[tuple[str, str]] = sum((rule.sources for rule in file.rules), Counter())
    made = [f"{source}{', ' + form if form else ''}: {times:,}" for (source, form), times in sources.most_common()]
    facts.append(("accepted, by source", "; ".join(made) or "none"))
    for name, value in (file.manifest or {}).items():
        words = isinstance(value, list) and all(isinstance(each, str) for each in value)
        shown = ", ".join(value) if words else value if isinstance(value, str) else json.dumps(value)
        facts.append((name.replace("_", " "), shown))
    return facts


def _whole_flags(text: str) -> Markup:
    """Browsers would end a line between the two hyphens of `--per-rule`."""
    return Markup(re.sub(r"--[\w-]+", r'<span style="white-space:nowrap">\g<0></span>', str(escape(text))))
