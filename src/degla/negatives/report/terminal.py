"""The report for an 80-column terminal: files, then rules with their files below them, reasons and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from rich import box
from rich.console import Group
from rich.text import Text

from degla.negatives.report.counts import RuleCounts, mean
from degla.negatives.report.examine import Examination, all_rules, frequent
from degla.pages.terminal import ContinuedTable
from degla.pages.words import counted
from degla.statistics.proportions import Proportion, wilson

_EXPLAINED: Final = (
    "accepted %: share of rows with a text. captions %: share with an accepted\n"
    "negative. changed: mean number of words. text-only %: pairs in which a\n"
    "classifier of texts finds the caption; chance is 50, in brackets 95 % intervals.\n"
)


def share_percent(share: Proportion | None) -> str:
    """Format a share in percent, as "67.3"; a dash if unknown."""
    return f"{100 * share.share:.1f}" if share is not None and share.n else "-"


def with_interval(share: Proportion | None, *, digits: int = 1, to: str = ", ") -> str:
    """Format a share in percent with its interval, as "67.3 [65.0, 69.5]"; a dash if unknown."""
    if share is None or not share.n:
        return "-"
    middle, low, high = (f"{100 * value:.{digits}f}" for value in (share.share, share.low, share.high))
    return f"{middle} [{low}{to}{high}]"


_narrow: Final = partial(with_interval, digits=0, to="-")


def render_tables(files: Sequence[Examination]) -> Group:
    """Return all tables of the report."""
    parts: list[ContinuedTable | Text] = [_files(files), _rules(files), Text(_EXPLAINED)]
    if has_inserted_words(files):
        parts.append(_words(files))
    if any(file.giveaways for file in files):
        parts.append(_giveaways(files))
    if any(rule.reasons for file in files for rule in file.rules):
        parts.append(_reasons(files))
    if any(file.outcomes for file in files):
        parts.append(_answers(files))
    for file in files:
        if file.counts.without_caption:
            parts.append(
                Text(
                    f"{file.label}: {counted(file.counts.without_caption, 'row')} not counted: caption ids "
                    f"missing from the captions file ({', '.join(file.counts.missing_ids)}, ...)."
                )
            )
    return Group(*parts)


def has_inserted_words(files: Sequence[Examination]) -> bool:
    """Return whether any accepted negative has a word that its caption lacks."""
    return any(rule.put_in for file in files for rule in file.rules)


def new_table(title: str, first: str, numbers: Sequence[str], *, last: str | None = None) -> ContinuedTable:
    """Create a table with number columns between a first and an optional last text column."""
    table = ContinuedTable(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.title = Text(title, style="table.title")
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", overflow="fold")
    if last is not None:
        table.add_column(last, overflow="fold")
    return table


def add_row(table: ContinuedTable, *cells: str) -> None:
    """Add a row of plain texts; square brackets are not parsed as markup."""
    table.add_row(*(Text(cell) for cell in cells))


def _files(files: Sequence[Examination]) -> ContinuedTable:
    table = new_table(
        "Hard negatives", "file", ["captions", "covered %", "neg./caption", "rules/caption", "text-only %"]
    )
    for file in files:
        counts, blind = file.counts, file.blind_all
        add_row(
            table,
            file.label,
            f"{counts.captions:,}",
            share_percent(file.covered),
            f"{mean(counts.negatives_a_caption):.2f}",
            f"{mean(counts.rules_a_caption):.2f}",
            _narrow(blind.accuracy if blind else None),
        )
    return table


def _rules(files: Sequence[Examination]) -> ContinuedTable:
    judged = any(file.likelier for file in files)
    numbers = ["accepted", "accepted %", "captions %", "changed", "text-only %", *(["likelier %"] if judged else [])]

    def cells(file: Examination, rule: RuleCounts) -> list[str]:
        blind = file.blind.get(rule.name)
        return [
            f"{rule.accepted:,}",
            share_percent(wilson(rule.accepted, rule.proposed)),
            share_percent(wilson(rule.covered, file.counts.captions)),
            f"{mean(rule.distances):.1f}" if rule.accepted else "-",
            _narrow(blind.accuracy if blind else None),
            *([_narrow(file.likelier.get(rule.name))] if judged else []),
        ]

    return _by_rule(new_table("By rule", "rule", numbers), files, cells)


def _words(files: Sequence[Examination]) -> ContinuedTable:
    headings = ["words", "different", "entropy, bits"]

    def cells(_: Examination, rule: RuleCounts) -> list[str]:
        entries = frequent(rule.put_in, more=rule.more_words, number=6)
        return [
            f"{rule.put_in.total() + rule.more_words:,}",
            f"{len(rule.put_in):,}",
            f"{rule.entropy:.2f}",
            ", ".join(f"{word} {100 * share:.1f}" for word, share in entries),
        ]

    table = new_table("Inserted words", "rule", headings, last="most frequent, % of the inserted words")
    return _by_rule(table, files, cells, where=lambda rule: bool(rule.put_in))


def _giveaways(files: Sequence[Examination]) -> ContinuedTable:
    def cells(file: Examination, rule: RuleCounts) -> list[str]:
        return [" ".join(file.giveaways[rule.name].sentences) if rule.name in file.giveaways else "-"]

    table = new_table("What gives negatives away, and what to do", "rule", [], last="explanation")
    return _by_rule(table, files, cells, where=lambda rule: rule.accepted > 0)


def _reasons(files: Sequence[Examination]) -> ContinuedTable:
    def cells(_: Examination, rule: RuleCounts) -> list[str]:
        return [", ".join(f"{reason} {times:,}" for reason, times in rule.reasons.most_common())]

    table = new_table("Refused, or no proposal", "rule", [], last="rows by reason")
    return _by_rule(table, files, cells, where=lambda rule: bool(rule.reasons))


def _answers(files: Sequence[Examination]) -> ContinuedTable:
    table = new_table("Answers of the language model", "file", ["requests", "sent", "repaired"], last="by outcome")
    for file in files:
        if file.outcomes is not None:
            counts = [*file.outcomes.by_outcome().most_common(), *sorted(file.outcomes.counts.items())]
            add_row(
                table,
                file.label,
                f"{file.outcomes.requests:,}",
                f"{file.outcomes.attempts:,}",
                f"{file.outcomes.repaired:,}",
                ", ".join(f"{outcome} {times:,}" for outcome, times in counts),
            )
    return table


def _by_rule(
    table: ContinuedTable,
    files: Sequence[Examination],
    cells: Callable[[Examination, RuleCounts], list[str]],
    *,
    where: Callable[[RuleCounts], bool] = lambda rule: True,
) -> ContinuedTable:
    """Fill the table with one line per rule; with several files, one line per file below the rule's name."""
    for name in all_rules(files):
        rows = [(file, rule) for file in files if (rule := file.counts.rules.get(name)) is not None and where(rule)]
        if len(files) > 1 and rows:
            add_row(table, name)
        for file, rule in rows:
            add_row(table, f"  {file.label}" if len(files) > 1 else name, *cells(file, rule))
    return table
