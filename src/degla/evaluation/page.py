"""Build the report's page from a comparison, published scores and the items that changed most, as one `pages.Page`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from degla.evaluation.cells import (
    Cell,
    Data,
    Method,
    Row,
    benchmark_sources,
    gap_tone,
    gap_words,
    has_ceiling,
    provenance,
)
from degla.evaluation.changes import ItemChange, ShownChange
from degla.evaluation.comparison import Comparison, JointScore, weighed_rows
from degla.evaluation.in_print import PrintedTable, mteb_section
from degla.evaluation.models import meaning_of
from degla.evaluation.plots import BARS, families, family_bars, find_row, frontier, marks
from degla.evaluation.text_floors import COMPARED, MEANINGS
from degla.pages.page import Facts, Figure, Fold, Grid, Page, PageOnly, Paragraph, Part, Section
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.pages.words import UNKNOWN, capitalized, counted, interval, percent, points

TITLE = "What was gained, what was kept"
_GLANCE = (
    "Mean over training seeds ± half of its 95 % interval. Below the score:{against} the 95 % interval over items, for "
    "one seed. **Bold**: better than every other method, where every difference has an interval above 0 and no caveat. "
    "Intervals over several seeds cover seeds and questions, those of one seed cover only questions; none covers the "
    "choice of training data."
)
_AGAINST = (
    " the difference to {baseline} with its 95 % interval, coloured where the interval excludes 0 and no caveat "
    "applies (images that were trained on or are missing, too few items; shown in italics); where there is no "
    "difference,"
)
_CHANGED = (
    "For each method, the ten items whose margin changed most from {baseline}, both averaged over seeds. Margin: "
    "similarity of the true text minus that of the best false text (of linear probes: logits of the classes); below "
    "zero the answer is wrong. Methods differ in the spread of their similarities, so compare signs before sizes."
)
_BARE = "To show images and texts, run degla report with --root FOLDER, the folder of the benchmarks' data."


def page_of(
    comparison: Comparison,
    *,
    printed: Sequence[PrintedTable] = (),
    changed: Mapping[str, Sequence[ItemChange]] | None = None,
    weighed: tuple[str, str] | None = None,
    mteb: Mapping[str, Path] | None = None,
) -> Page:
    """Build the page of a report.

    Args:
        comparison: methods and their scores.
        printed: published scores, shown as not measured here.
        changed: label to the items that changed most.
        weighed: names of the two scores of the first plot, gained and kept, as `find_row` takes them; None: composition
            against recognition.
        mteb: label to the results that mteb wrote for a model.

    Raises:
        InputError: no benchmark has a score with these names; see also `read_mteb_results`.
    """
    several = len(comparison.methods) > 1
    against = f"; gains and losses against **{comparison.baseline}**" if comparison.baseline and several else ""
    lead = (
        f"{counted(len(comparison.methods), 'method')} on {', '.join(comparison.titles.values())}{against}. "
        "All scores in percent, differences in points."
    )
    return Page(
        TITLE,
        [
            *_glance(comparison),
            *_frontiers(comparison, weighed),
            *_bars(comparison),
            *_changed(comparison, changed or {}),
            Section("Every part", list(_every_part(comparison, printed))),
            *mteb_section(mteb or {}),
            Section("Where the numbers come from", [Grid(list(_sources(comparison)))]),
        ],
        lead=[lead],
        warnings=comparison.warnings,
        tab=f"degla report: {', '.join(method.label for method in comparison.methods)}",
        foot=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def glance_tables(comparison: Comparison) -> dict[str, Table]:
    """Return the first table of each benchmark: a single table of all columns would be wider than a page."""
    columns = {name: [row for row in comparison.headline if row.benchmark == name] for name in comparison.titles}
    return {name: _glance_table(comparison, rows) for name, rows in columns.items() if rows}


def _glance(comparison: Comparison) -> Iterator[Part | str]:
    tables = glance_tables(comparison)
    if not tables:
        return
    several = len(tables) > 1
    against = (
        _AGAINST.format(baseline=comparison.baseline) if comparison.baseline and len(comparison.methods) > 1 else ""
    )
    notes = [_GLANCE.format(against=against), *comparison.text_solvable, *comparison.probes]
    notes += _floor_notes(comparison, comparison.headline)
    if several and comparison.joint is not None:
        gained_title, kept_title = (
            f"{row.title} ({comparison.titles[row.benchmark]})"
            for row in (comparison.joint.gained, comparison.joint.kept)
        )
        notes.insert(1, f"Joint: {gained_title} gained minus {kept_title} lost.")
    shown = (
        [Fold(comparison.titles[name], [table], open=True) for name, table in tables.items()]
        if several
        else tables.values()
    )
    yield Section("At a glance", [*shown, *notes])


def _glance_table(comparison: Comparison, rows: Sequence[Row]) -> Table:
    """The columns of one benchmark; the joint score is in the table of its gained score."""
    heads = [Column("method"), Column("seeds", where="text")]
    for row in rows:
        ceiling = [f"order-blind ceiling {percent(row.ceiling)}"] if has_ceiling(row) else []
        heads.append(Column(row.title, (row.name, f"n {row.n}", *ceiling)))
    joint = comparison.joint if comparison.joint and comparison.joint.gained in rows else None
    if joint is not None:
        heads.append(Column("joint", (f"{joint.gained.title} gained minus {joint.kept.title} lost",)))
    lines = [
        TableRow([
            _method(comparison, method), str(len(method.seeds) or UNKNOWN), *(_cell(row, method.label) for row in rows),
            *([] if joint is None else [_joint(comparison, joint, method.label)]),
        ])
        for method in comparison.methods
    ]  # fmt: skip
    last = [UNKNOWN] if joint is not None else []
    floors = {name: [row.floors.get(name) for row in rows] for name in _floor_names(rows)}
    beside = {"chance": [row.chance for row in rows]} | floors
    lines += [TableRow([name, "", *map(percent, values), *last], kind="floor") for name, values in beside.items()]
    return Table(heads, lines, stacked=True)


def _floor_notes(comparison: Comparison, rows: Sequence[Row]) -> Iterator[str]:
    """What each floor of these rows answers; nothing where there is none."""
    scored = {floor.label: meaning_of(next(iter(floor.results.values())).model.name) for floor in comparison.floors}
    meanings = MEANINGS | scored
    names = [name for name in _floor_names(rows) if name in meanings]
    if not names:
        return
    note = f"Floors cannot know the answer. Chance: a random answer; {'; '.join(f'{n}: {meanings[n]}' for n in names)}."
    if texts := " or ".join(name for name in names if name in MEANINGS and name != COMPARED):
        note += f" A part where {texts} scores more than 10 points above chance does not count in composition."
    yield note


def _method(comparison: Comparison, method: Method) -> TableCell:
    tags = ("baseline",) if method.label == comparison.baseline else ()
    seeds = (counted(len(method.seeds), "seed"),) if method.seeds else ()
    return TableCell(method.label, mark=marks(comparison)[method.label], tags=tags + seeds)


def _cell(row: Row, label: str) -> TableCell:
    """A score with its difference to the baseline below it, or its interval over items."""
    cell = row.cells.get(label)
    if cell is None:
        return TableCell(key=row.key)
    gain, note = cell.gain, gap_words(cell.gain)
    if gain is None and cell.deviation is None and cell.interval is not None:
        note = interval(cell.interval.low, cell.interval.high)
    return TableCell(
        percent(cell.mean),
        spread=cell.spread,
        note=note,
        tone=gap_tone(gain),
        doubt=gain.doubt if gain else "",
        bold=cell.best,
        key=row.key,
    )


def _joint(comparison: Comparison, joint: JointScore, label: str) -> TableCell:
    """Points against the baseline, with their interval below; unknown for a method that lacks one of the scores."""
    difference = joint.methods.get(label)
    if difference is None:
        return TableCell("0" if label == comparison.baseline else UNKNOWN)
    ends = difference.interval
    return TableCell(
        points(difference.value),
        note="" if ends is None else interval(ends.low, ends.high, points),
        tone=gap_tone(difference),
        doubt=difference.doubt,
    )


def _floor_names(rows: Sequence[Row]) -> list[str]:
    """Names of the floors that any of the rows has, in order."""
    return list(dict.fromkeys(name for row in rows for name in row.floors))


def _floors(row: Row) -> str:
    return "".join(f", {name} {percent(value)}" for name, value in row.floors.items())


def frontier_rows(comparison: Comparison, weighed: tuple[str, str] | None) -> list[tuple[Row, Row]]:
    """Return the two scores of each plot of gains against losses; `weighed` as for `page_of`, which also raises."""
    pairs = weighed_rows(comparison.headline)
    if weighed is None:
        return pairs
    chosen = find_row(comparison, weighed[0]), find_row(comparison, weighed[1])
    # The default plot of the same two scores would be a duplicate.
    return [chosen, *(pair for pair in pairs if [row.name for row in pair] != [row.name for row in chosen])]


def _frontiers(comparison: Comparison, weighed: tuple[str, str] | None) -> Iterator[PageOnly]:
    pairs = frontier_rows(comparison, weighed)
    for across, up in pairs:
        floors = f" (chance {percent(across.chance)}{_floors(across)})" if across.floors else ""
        dashed = f" Dashed: {comparison.baseline}; better means to its right and not below it."
        caption = (
            "One point per method with 95 % bars (over seeds and items; only over items for a method with one seed). "
            f"Horizontal: {across.name} of {comparison.titles[across.benchmark]}{floors}. Vertical: {up.name} of "
            f"{comparison.titles[up.benchmark]}.{dashed if comparison.baseline else ''}"
        )
        picture = Figure(partial(frontier, across, up, comparison), caption)
        alike = [(x.title, y.title) for x, y in pairs].count((across.title, up.title)) > 1
        gained_title, kept_title = (
            f"{row.title} ({comparison.titles[row.benchmark]})" if alike else row.title for row in (across, up)
        )
        yield PageOnly(Section(f"{capitalized(gained_title)} gained, {kept_title} kept", [picture]))


def _bars(comparison: Comparison) -> Iterator[PageOnly]:
    figures = []
    for family in families(comparison):
        row = family.row
        metric = "" if row.metric in ("accuracy", "macro", "micro") else f" {row.metric}"
        dots = f", mean of {len(family.parts)} parts (dots)" if len(family.parts) > 1 else ""
        floors = "" if row.chance is None else f"; chance {percent(row.chance)}{_floors(row)}"
        caption = f"{comparison.titles[row.benchmark]}, {row.name}{metric}{dots}{floors}"
        figures.append(
            Figure(partial(family_bars, family, comparison), caption, title=family.title, key=row.key, widths=(BARS,))
        )
    if figures:
        note = (
            "Percent; each plot shows the table row of the same name. Line on a bar: 95 % interval. Dotted: chance "
            "and the other floors."
        )
        yield PageOnly(Section("By family", [Grid(figures), note]))


def _changed(comparison: Comparison, changed: Mapping[str, Sequence[ItemChange]]) -> Iterator[Section]:
    if not changed:
        return
    folds: list[Fold] = []
    for label, changes in changed.items():
        cards = [
            ShownChange(change, comparison.titles[change.benchmark] if len(comparison.titles) > 1 else "")
            for change in changes
        ]
        folds.append(Fold(label, [Grid(cards)], open=not folds, mark=marks(comparison)[label]))
    notes = [_CHANGED.format(baseline=comparison.baseline)]
    notes += [] if any(change.thumbnail for changes in changed.values() for change in changes) else [_BARE]
    yield Section("What changed most", [*notes, *folds])


def _every_part(comparison: Comparison, printed: Sequence[PrintedTable]) -> Iterator[Part | str]:
    """One table per benchmark, all but the first folded, and a legend of the tables' terms.

    Args:
        comparison: methods and their scores.
        printed: published scores, shown below the benchmark's own table.
    """
    for number, (name, title) in enumerate(comparison.titles.items()):
        tables = [
            part for table in printed if table.published.benchmark == name for part in _printed(comparison, table)
        ]
        yield Fold(title, [_parts_table(comparison, name), *tables], open=number == 0)
    if any(map(has_ceiling, comparison.rows)):
        yield (
            "Order-blind ceiling: the best score of a model that ignores the order of words: a true and a false text "
            "with the same words tie. A tie counts by the part's tie rule here, and half in the floors."
        )
    yield from _floor_notes(comparison, comparison.rows)
    yield "Ties: items where a true and a false answer score exactly the same; the maximum over methods and seeds."


def _parts_table(comparison: Comparison, name: str) -> Table:
    rows = [row for row in comparison.rows if row.benchmark == name]
    floors, labels = _floor_names(rows), [method.label for method in comparison.methods]
    ceilings = any(map(has_ceiling, rows))
    heads = [Column("part"), Column("metric", align="left", where="text")]
    heads += map(Column, ("n", "chance", *floors, *(["order-blind ceiling"] if ceilings else [])))
    # A method has one column on the page and one in Markdown, where there is room for gains and ties.
    heads.append(Column("ties", where="page"))
    heads += [Column(label, where=where) for label in labels for where in ("page", "text")]
    lines = []
    kind = ""
    for row in rows:
        if row.kind != kind:
            kind = row.kind
            lines.append(TableRow(["parts" if kind == "part" else "named averages"], kind="section"))
        beside = [row.chance, *map(row.floors.get, floors), *([row.ceiling] if ceilings else [])]
        part = TableCell(row.name, tags=(row.metric,) if row.metric != "accuracy" else ())
        cells: list[TableCell | str] = [part, row.metric, str(row.n), *map(percent, beside)]
        cells.append(str(max(cell.ties for cell in row.cells.values())))
        for label in labels:
            cells += _both(row.cells.get(label))
        lines.append(TableRow(cells, key=row.key))
    return Table(heads, lines)


def _both(cell: Cell | None) -> tuple[TableCell, TableCell]:
    """A method's score in short form, for a table of many columns, and in full."""
    if cell is None:
        return TableCell(), TableCell()
    short = TableCell(percent(cell.mean), spread=cell.spread, bold=cell.best)
    doubts = [cell.gain.doubt if cell.gain else "", counted(cell.ties, "tie") if cell.ties else ""]
    return short, replace(short, note=gap_words(cell.gain), doubt=", ".join(filter(None, doubts)))


def _printed(comparison: Comparison, table: PrintedTable) -> Iterator[Part | str]:
    published = table.published
    yield Paragraph(f"**Published, not measured here: {published.title}**", quiet=False)
    yield (
        f"Source: {published.source}. {published.setting}. Shown: parts and averages that were measured here too, with "
        "all their items and the published tie rule. These numbers enter no gain, best or plot."
    )
    lines = [TableRow(["measured here"], kind="section")]
    for method in comparison.methods:
        cells = [row.cells.get(method.label) for row in table.measured.values()]
        lines.append(TableRow([method.label, *(UNKNOWN if cell is None else percent(cell.mean) for cell in cells)]))
    lines.append(TableRow([f"published, not measured here: {published.source}"], kind="section"))
    for row in table.rows:
        name = TableCell(f"{row.model} (published)" + (" *" if row.note else ""))
        lines.append(TableRow([name, *(percent(row.values.get(column)) for column in table.measured)]))
    yield Table(["model", *table.measured], lines)
    yield from (f"* {row.model}: {row.note}." for row in table.rows if row.note)


def _sources(comparison: Comparison) -> Iterator[Facts]:
    shown = marks(comparison)
    for source in map(provenance, (*comparison.methods, *comparison.floors)):
        yield Facts(_facts(source), title=source["label"], mark=shown.get(source["label"]))
    for source in benchmark_sources(comparison.methods).values():
        yield Facts(_facts(source), title=source["title"])


def _facts(source: Data) -> dict[str, str]:
    return {
        name.replace("_", " "): ("; ".join(map(str, value)) or UNKNOWN) if isinstance(value, list) else str(value)
        for name, value in source.items()
        if name not in ("label", "title")
    }
