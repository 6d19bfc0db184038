"""One table, three renderings: what each shows, what is escaped, what must fit."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.console import Console

from degla.pages.page import Code, Facts, Figure, Fold, Page, PageOnly, Paragraph, Section
from degla.pages.plot import Mark, marks_of
from degla.pages.table import Column, Table, TableCell, TableRow, breakable, html_mark, markdown_line
from degla.pages.words import counted, duration, interval, p_value, percent, points, rate

_TABLE = Table(
    [
        "model", Column("score", notes=("n 1,000",)), Column("P", where="text"),
        Column("why", align="left", where="page"),
    ],
    [
        TableRow(["parts"], kind="section"),
        TableRow(
            [
                TableCell("a_b <i>", mark=Mark("#123456", "square"), tags=("baseline",), key="k"),
                TableCell("61.3", spread=" ± 0.8", note="+1.2 [+0.4, +2.0]", tone="up", doubt="few images", bold=True),
                "P",
                "a|b",
            ],
            key="row",
        ),
        TableRow(["chance", "50.0", "", ""], kind="floor"),
        ["other", TableCell(), "", TableCell("", tags=("x", "y"))],
    ],
    stacked=True,
)  # fmt: skip


def test_html() -> None:
    html = _TABLE.__html__()
    assert '<table class="stacked">' in html and "<small>n 1,000</small>" in html
    assert '<tr class="section"><th colspan="3">parts</th></tr>' in html
    assert "a_<wbr>b &lt;i&gt;" in html and 'style="background:#123456;border-radius:0;clip-path:inset(0)"' in html
    assert '<b>61.3</b><span class="sd"> ± 0.8</span>' in html
    assert '<small class="up">+1.2 [+0.4, +2.0]</small><small class="doubt">few images</small>' in html
    assert '<tr data-row="row">' in html and '<tr class="floor">' in html and 'data-head="score"' in html
    assert ">P<" not in html and '<td class="text" data-head="why">' in html


def test_a_name_written_from_right_to_left_leaves_the_rest_of_a_sentence_in_order() -> None:
    parts = ["**ملف أ-2/ب** 3: 768", Section("ملف 5", []), Fold("ملف 6", []), Facts({"a": "ملف 7"}, title="\u202eb"),
             Table(["a", "b"], [["c", "ملف 8"]])]  # fmt: skip
    html = Page("t", parts).html()
    assert "<b><bdi>ملف أ-2/ب</bdi></b> 3: 768" in html and "<h2><bdi>ملف</bdi> 5</h2>" in html
    assert "<bdi>ملف</bdi> 6</summary>" in html and "<dd><bdi>ملف</bdi> 7</dd>" in html
    assert "<span><bdi>ملف</bdi> 8</span></td>" in html
    assert "<h3>\\u202eb</h3>" in html and breakable("a/ملف_ب<") == "a/<wbr><bdi>ملف_<wbr>ب</bdi>&lt;"


@pytest.mark.parametrize(("columns", "broad"), [(16, False), (17, True)])
def test_a_table_of_more_columns_than_a_printed_page_has_room_for_is_printed_in_blocks(
    columns: int, broad: bool
) -> None:
    table = Table([str(number) for number in range(columns)], [["1"] * columns])
    assert ('<table class="broad">' in table.__html__()) is broad
    assert "  .broad tr { display:grid;" in Page("t", [table]).html().partition("@media print")[2]


def test_markdown() -> None:
    assert _TABLE.markdown().splitlines() == [
        "| model | score | P |",
        "| --- | --- | --- |",
        "| a_b <i> | **61.3 ± 0.8**; +1.2 [+0.4, +2.0] (few images) | P |",
        "| *chance* | 50.0 |  |",
        "| other | – |  |",
    ]
    assert Table(["a", "b"], [["x|y", "1"]]).markdown().splitlines()[-1] == "| x\\|y | 1 |"


def test_latex() -> None:
    assert _TABLE.latex().splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"model & score & P \\",
        r"\midrule",
        r"a\_b $<$i$>$ & \textbf{61.3 $\pm$ 0.8} & P \\",
        r"\midrule",
        r"chance & 50.0 &  \\",
        r"\midrule",
        r"other & -- &  \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    last = Table(["a", "b"], [["50 % & {x}\\~^", points(-0.05)]]).latex().splitlines()[-3]
    assert last == r"50 \% \& \{x\}\textbackslash{}\textasciitilde{}\textasciicircum{} & $-$5.0 \\"
    signs = {"--lr 1---2": "-|-lr 1-|-|-2", "``a''": "`|`a'|'", "?`": "?|`", "a-b": "a-b"}
    apart = {label: text.replace("|", r"\mbox{}") for label, text in signs.items()}  # Else they become dashes and more.
    for label, text in {**apart, "a ≥ 1": r"a $\ge$ 1", "a ≤ 1": r"a $\le$ 1"}.items():
        assert Table(["a", "b"], [[label, "1"]]).latex().splitlines()[-3] == rf"{text} & 1 \\"
    # LaTeX takes "[" and "*" after the \\ of the row above for its arguments.
    for label, text in {"[ours] x": "{[}ours] x", "* x": "{*} x", "a|b": r"a\textbar{}b"}.items():
        assert Table(["a", "b"], [["x", "1"], [label, "1"]]).latex().splitlines()[-3] == rf"{text} & 1 \\"


def test_transposed() -> None:
    assert _TABLE.transposed().markdown().splitlines() == [
        "| model | a_b <i> | chance | other |",
        "| --- | --- | --- | --- |",
        "| score | **61.3 ± 0.8**; +1.2 [+0.4, +2.0] (few images) | 50.0 | – |",
        "| P | P |  |  |",
    ]


def test_terminal() -> None:
    console = Console(width=40, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(_TABLE.terminal(title="Title"))
    output = capture.get()
    score, floor, _ = _TABLE.terminal().columns[1].cells
    assert [score.style, *(span.style for span in score.spans)] == ["bold", "green", "italic"]  # type: ignore[union-attr]
    assert floor.style == "dim"  # type: ignore[union-attr]
    assert "Title" in output and "61.3±0.8" in output and "+1.2 [+0.4, +2.0]" in output, "brackets are no markup"
    assert "model" in output and "score" in output and TableCell("", tags=("x", "y")).text == "x, y"
    assert "few images" in output and "n 1,000" not in output and "why" not in output


def test_a_name_of_several_rows_is_shown_once() -> None:
    columns = ["rule", Column("file", align="left"), Column("pairs accepted", short="pairs")]
    table = Table(columns, [["x", "a", "1"], ["x", "b", "2"], ["y", "a", "3"]], grouped=True)
    html = table.__html__()
    assert html.count('<tr class="more"><th scope="row"><span class="again">x</span></th>') == 1
    assert html.count('class="again"') == 1 and "pairs accepted" in html
    console = Console(width=40)
    with console.capture() as capture:
        console.print(table.terminal(slim=True))
    lines = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert [lines[0], *lines[2:]] == [["rule", "pairs"], ["x"], ["a", "1"], ["b", "2"], ["y"], ["a", "3"]]
    assert "\n   a " in capture.get(), "below its name"


@pytest.mark.parametrize("width", [80, 200])
def test_columns_that_do_not_fit_on_a_terminal_continue_below(width: int) -> None:
    names = [f"runs/degla_plus-{number}" for number in range(40)]
    scores = [TableCell(f"{number}.25", note=f"+{number}.5 [-1.2, +9.8]") for number in range(40)]
    table = Table(["part", Column("kind", align="left"), *names], [["swap_attribute", "pairs", *scores]])
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(table.terminal(title="A title", caption="A caption."))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width and lines[0].startswith("A title") and lines[-1].startswith("A caption.")
    with console.capture() as capture_long:
        console.print(table.terminal(title="title " * 12, caption="caption " * 9))
    assert [line.rstrip() for line in capture_long.get().splitlines() if "title" in line or "caption" in line] == [
        "title " * 11 + "title",
        "caption " * 8 + "caption",
    ], "as wide as the terminal, not as the last part"
    words = capture.get().split()
    assert all(f"{number}.25" in words and f"+{number}.5" in words for number in range(40)), "no number is wrapped"
    repeated = sum("kind" in line for line in lines)
    assert repeated == sum("pairs" in line for line in lines) == capture.get().count("┏━") > 1


def test_at_every_width_numbers_and_short_names_stay_whole() -> None:
    """Also a name whose letters are two cells wide, a number longer than names' least width, and names alone."""
    titles, values = ["n", "模型比较", "模型", "[b]x[/b]", "比较模型"], ["1,234,567.25", "2.5", "3.5", "4.5", "5.5"]
    for width in range(34, 100):
        console = Console(width=width, force_terminal=False)
        with console.capture() as capture:
            console.print(Table(["part", *titles], [["swap", *values]]).terminal())
            console.print(Table(["alone"], [["path/" * 30]]).terminal())
        lines = capture.get().splitlines()
        assert max(map(cell_len, lines)) <= width and "alone" in capture.get()
        assert all(f" {word} " in capture.get() for word in (*titles, *values)), width


def test_a_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 'x' has 3 cells for 2 columns"):
        Table(["a", "b"], [["x", "1", "2"]]).markdown()


def test_a_backslash_before_a_line_stays_in_its_cell() -> None:
    assert markdown_line(["a|b", "a\\|b", "a\\b", "c"]) == r"| a\|b | a\\\|b | a\b | c |"


def test_marks_stay_apart_and_the_baseline_is_grey() -> None:
    marks = marks_of(["base", *map(str, range(40))], baseline="base")
    assert len(set(marks.values())) == 41 and marks["base"].shape == "diamond"
    assert len({html_mark(mark) for mark in marks.values()}) == 41, "in tables, too"


def test_a_page_and_its_markdown() -> None:
    page = Page(
        "Title & more",
        [
            Section("First", [_TABLE, "With `code` & **bold**.", PageOnly(Fold("Plan", [Code("a: 1")]))]),
            Figure(lambda width: f"<svg>{'wide' if width > 5 else 'narrow'}</svg>", "A caption.", file="a.svg"),
            Facts([("plan", "plan.yaml")]),
        ],
        lead=[Paragraph("About.", quiet=False)],
        warnings=["few <seeds>"],
    )
    undrawn = Page("Title", [Figure(lambda _: pytest.fail("drawn for nothing"), "A caption.", file="a.svg")])
    assert "![Plot](a.svg)" in undrawn.markdown()
    pictures = Section("Pictures", [Figure(lambda _: "<svg></svg>"), Fold("More", [PageOnly("x")])])
    assert Page("Title", [pictures, "End."]).markdown() == "# Title\n\nEnd.\n", "no heading above nothing"
    html = page.html()
    assert "<h1>Title &amp; more</h1>" in html and "<li>few &lt;seeds&gt;</li>" in html
    assert "With <code>code</code> &amp; <b>bold</b>." in html and '<div class="narrow"><svg>narrow</svg></div>' in html
    assert "<details><summary>Plan</summary>" in html and "<dt>plan</dt><dd>plan.yaml</dd>" in html
    assert '<div role="img" aria-label="A caption."><div class="wide">' in html
    assert "<figcaption>A caption.</figcaption>" in html and '<figure class="card"><div' in html
    assert Facts([("a", "1"), ("b", "2")], title="Run").markdown() == "* Run: a: 1; b: 2"
    text = page.markdown()
    assert text.startswith("# Title & more\n\nAbout.\n\n> **Note.** few \\<seeds>\n\n## First\n\n| model")
    assert "a: 1" not in text and "![Plot](a.svg)\n\nA caption.\n\n* plan: plan.yaml\n" in text


def test_numbers_in_words() -> None:
    assert (percent(0.6134), percent(None), points(-0.031)) == ("61.3", "–", "−3.1")
    # 0.1 + 0.2 - 0.3 is no loss, nor is what rounds to nothing.
    assert [points(value) for value in (-5.6e-17, 0.0, -0.0003)] == ["+0.0", "+0.0", "+0.0"]
    assert points(0.0125) == points(0.012500000000000002) == points(0.012499999999999999) == "+1.2", "sums in any order"
    assert interval(-0.01, 0.02, points) == "[−1.0, +2.0]"
    assert [p_value(p) for p in (0.0004, 0.0126, None)] == ["< 0.001", "0.013", "–"]
    assert [duration(each) for each in (42.4, 738, 9000)] == ["42 s", "12.3 min", "2.5 h"]
    assert [rate(each) for each in (0.0234, 0.4, 2.61, 99.94, 3456.7)] == ["0.023", "0.4", "2.6", "99.9", "3,457"]
    assert (counted(1, "seed"), counted(8000, "caption")) == ("1 seed", "8,000 captions")
    assert [counted(n, "class is", "classes are") for n in (1, 2)] == ["1 class is", "2 classes are"]


def test_names_are_no_html_in_markdown() -> None:
    page = Page("lr<max>", ["<script> of **a<b>**, 1 < 2, `<code>`", Code("a <b>"), Table(["m", "s"], [["<i>", "1"]])])
    text = page.markdown()
    assert text.startswith("# lr\\<max>\n") and "\\<script> of **a\\<b>**, 1 < 2, `<code>`" in text
    assert "\na <b>\n" in text and "| \\<i> | 1 |" in text
    for name in ("` <i> ``", "`` <i> `", "\\` <i> `", "a ``` <i>"):
        assert "\\<i>" in Page("t", [name, "b", Code("c")]).markdown(), "Markdown sees no code here"
