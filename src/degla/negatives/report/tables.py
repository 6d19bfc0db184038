"""The report's tables, of files and of rules in files, for the page and the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from degla.negatives.checks import REASONS
from degla.negatives.report.blind import Blind
from degla.negatives.report.counts import RuleCounts, mean
from degla.negatives.report.examine import Examination, all_rules, frequent
from degla.pages.plot import Mark, marks_of
from degla.pages.table import Column, Table, TableCell
from degla.pages.words import UNKNOWN, counted
from degla.statistics.proportions import Proportion, wilson

if TYPE_CHECKING:
    from rich.console import Group

Cells = list[TableCell | str]
_EXPLAINED: Final = (
    "accepted %: share of rows with a text. captions %: share with an accepted negative. changed: mean number of "
    "words. text-only %: pairs in which a classifier of texts finds the caption; chance is 50, in brackets 95 % "
    "intervals.\n"
)
# A terminal has no room for an interval in full: each has two columns.
_TEXT_ONLY: Final = (Column("text-only accuracy", ("chance 50",), where="page"), Column("text-only %", where="text"))
_LIKELIER: Final = (Column("caption likelier", where="page"), Column("likelier %", where="text"))


def share_percent(share: Proportion | None) -> str:
    """Format a share in percent, as "67.3"; a dash if unknown."""
    return f"{100 * share.share:.1f}" if share is not None and share.n else UNKNOWN


def with_interval(share: Proportion | None, *, digits: int = 1, to: str = ", ") -> str:
    """Format a share in percent with its interval, as "67.3 [65.0, 69.5]"; a dash if unknown."""
    if share is None or not share.n:
        return UNKNOWN
    middle, low, high = (f"{100 * value:.{digits}f}" for value in (share.share, share.low, share.high))
    return f"{middle} [{low}{to}{high}]"


def file_marks(files: Sequence[Examination]) -> dict[str, Mark]:
    """Map each file's label to its mark, the same everywhere on the page."""
    return marks_of((file.label for file in files), baseline=None)


def glance(files: Sequence[Examination]) -> Table:
    """One row per file."""
    columns = [
        Column("file"), Column("captions", where="text"), Column("accepted negatives", where="page"),
        Column("captions with at least one", short="covered %"), Column("negatives per caption", short="neg./caption"),
        Column("different rules per caption", short="rules/caption"), *_TEXT_ONLY,
    ]  # fmt: skip
    marks = file_marks(files)
    rows: list[Cells] = [
        [
            TableCell(file.label, mark=marks[file.label]), f"{file.counts.captions:,}", f"{file.counts.accepted:,}",
            share_percent(file.covered), f"{mean(file.counts.negatives_a_caption):.2f}",
            f"{mean(file.counts.rules_a_caption):.2f}", *_two_lengths(file.blind_all),
        ]
        for file in files
    ]  # fmt: skip
    return Table(columns, rows, stacked=True)


def rules(files: Sequence[Examination]) -> Table:
    """Accepted texts, coverage, size of the change and what a reader of the texts alone finds."""
    judged = any(file.likelier for file in files)
    columns = [
        Column("proposed", where="page"), Column("accepted"), Column("accepted of proposed", short="accepted %"),
        Column("captions covered", short="captions %"), Column("words changed", ("mean",), short="changed"),
        *_TEXT_ONLY, *(_LIKELIER if judged else []),
    ]  # fmt: skip

    def cells(file: Examination, rule: RuleCounts) -> Cells:
        return [
            f"{rule.proposed:,}",
            f"{rule.accepted:,}",
            share_percent(wilson(rule.accepted, rule.proposed)),
            share_percent(wilson(rule.covered, file.counts.captions)),
            f"{mean(rule.distances):.1f}" if rule.accepted else UNKNOWN,
            *_two_lengths(file.blind.get(rule.name)),
            *(_two_lengths(file.likelier.get(rule.name)) if judged else []),
        ]

    return _by_rule(files, columns, cells, stacked=True)


def giveaways(files: Sequence[Examination]) -> Table:
    """Cues of the classifier of texts, and advice."""

    def cells(file: Examination, rule: RuleCounts) -> Cells:
        if (blind := file.blind.get(rule.name)) is None:
            return []
        tags = (TableCell("", tags=words) for words in (blind.negative_cues, blind.caption_cues))
        return [*tags, " ".join(file.giveaways[rule.name].sentences)]

    cues = [Column(f"points to the {text}", align="left", where="page") for text in ("negative", "caption")]
    return _by_rule(files, [*cues, Column("what to do", align="left")], cells)


def inserted_words(files: Sequence[Examination]) -> Table:
    """Words that the caption lacks; fewer of them on a terminal."""

    def cells(_: Examination, rule: RuleCounts) -> Cells:
        shares = [f"{word} {100 * share:.1f}" for word, share in frequent(rule.put_in, more=rule.more_words)]
        words, different, entropy = rule.put_in.total() + rule.more_words, len(rule.put_in), rule.entropy
        both = TableCell("", tags=tuple(shares)), ", ".join(shares[:6])
        return [f"{words:,}", f"{different:,}", f"{entropy:.2f}", *both] if different else []

    columns = list(map(Column, ("words", "different", "entropy, bits")))
    columns += [Column("most frequent, % of the inserted words", align="left", where=each) for each in ("page", "text")]
    return _by_rule(files, columns, cells)


def reasons(files: Sequence[Examination]) -> Table:
    """Rows without an accepted text, by reason, most frequent first."""
    total: Counter[str] = sum((rule.reasons for file in files for rule in file.rules), Counter())

    def cells(file: Examination, reason: str) -> Cells:
        by_rule = Counter({rule.name: rule.reasons[reason] for rule in file.rules if rule.reasons[reason]})
        return [REASONS.get(reason, ""), f"{by_rule.total():,}", _listed(by_rule.most_common())] if by_rule else []

    columns = [Column("meaning", align="left"), Column("rows"), Column("by rule", align="left")]
    return _by_name(files, "reason", [reason for reason, _ in total.most_common()], columns, cells)


def model_answers(files: Sequence[Examination]) -> Table:
    """Requests to the language model, by rule and outcome, most frequent first."""
    total: Counter[str] = sum((file.outcomes.by_outcome() for file in files if file.outcomes), Counter())
    outcomes = [outcome for outcome, _ in total.most_common()]

    def cells(file: Examination, rule: RuleCounts) -> Cells:
        counts = file.outcomes.by_outcome(rule.name) if file.outcomes else None
        return [f"{counts[outcome]:,}" for outcome in outcomes] if counts else []

    return _by_rule(files, list(map(Column, outcomes)), cells)


def render_tables(files: Sequence[Examination]) -> Group:
    """Return all tables for a terminal, and which rows were not counted."""
    from rich.console import Group
    from rich.text import Text

    tables = {
        "Hard negatives": glance(files),
        "By rule": rules(files),
        "Inserted words": inserted_words(files),
        "What gives negatives away, and what to do": giveaways(files),
        "Refused, or no proposal": _reasons_by_rule(files),
        "Answers of the language model": _answers_by_file(files),
    }
    left_out = [
        f"{file.label}: {counted(file.counts.without_caption, 'row')} not counted: caption ids "
        f"missing from the captions file ({', '.join(file.counts.missing_ids)}, ...)."
        for file in files
        if file.counts.without_caption
    ]
    captions = {"By rule": _EXPLAINED}
    shown = [
        table.terminal(title=title, caption=captions.get(title, ""), slim=True)
        for title, table in tables.items()
        if table.rows
    ]
    return Group(*shown, *map(Text, left_out))


def _reasons_by_rule(files: Sequence[Examination]) -> Table:
    def cells(_: Examination, rule: RuleCounts) -> Cells:
        return [_listed(rule.reasons.most_common())] if rule.reasons else []

    return _by_rule(files, [Column("rows by reason", align="left")], cells)


def _answers_by_file(files: Sequence[Examination]) -> Table:
    rows = []
    for file in files:
        if (outcomes := file.outcomes) is not None:
            numbers = [f"{number:,}" for number in (outcomes.requests, outcomes.attempts, outcomes.repaired)]
            counts = [*outcomes.by_outcome().most_common(), *sorted(outcomes.counts.items())]
            rows.append([file.label, *numbers, _listed(counts)])
    return Table(["file", "requests", "sent", "repaired", Column("by outcome", align="left")], rows)


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {times:,}" for name, times in counts)


def _two_lengths(result: Blind | Proportion | None) -> list[str]:
    """Return a share with its interval, for the page and for a terminal."""
    share = result.accuracy if isinstance(result, Blind) else result
    return [with_interval(share), with_interval(share, digits=0, to="-")]


def _by_rule(
    files: Sequence[Examination],
    columns: Sequence[Column],
    cells: Callable[[Examination, RuleCounts], Cells],
    *,
    stacked: bool = False,
) -> Table:
    def of(file: Examination, name: str) -> Cells:
        rule = file.counts.rules.get(name)
        return [] if rule is None else cells(file, rule)

    return _by_name(files, "rule", all_rules(files), columns, of, stacked=stacked)


def _by_name(
    files: Sequence[Examination],
    first: str,
    names: Sequence[str],
    columns: Sequence[Column],
    cells: Callable[[Examination, str], Cells],
    *,
    stacked: bool = False,
) -> Table:
    """One row per name, with several files one per name and file; none where `cells` are empty."""
    several, marks = len(files) > 1, file_marks(files)
    heads = [Column(first), *([Column("file", align="left")] if several else []), *columns]
    rows = [
        [name, *([TableCell(file.label, mark=marks[file.label])] if several else []), *own]
        for name in names
        for file in files
        if (own := cells(file, name))
    ]
    return Table(heads, rows, stacked=stacked, grouped=several)
