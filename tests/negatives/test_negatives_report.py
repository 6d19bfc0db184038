"""The report: correct counts, a sensitive blind test without leakage, a self-contained page, sheets."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rich.console import Console

from degla.cli import main
from degla.data.joining import join
from degla.data.pairs import ForeignCheck
from degla.data.sources import read_captions
from degla.negatives.differences import mark_tokens, measure_difference
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.report.blind import Blind, CaptionNegative, bag_of_words, blind_leads, half_of, solve_blind
from degla.negatives.report.counts import Draws, Reservoir, entropy
from degla.negatives.report.examine import Giveaways, examine_file, explain, frequent
from degla.negatives.report.page import notes, quantile
from degla.negatives.report.sheet import draw_sheet, key_path
from degla.negatives.report.tables import giveaways, glance, rules
from degla.pages.table import Column, Table, whole_flags
from degla.pages.words import cell_of
from degla.records import POSITIVE, CaptionRecord, NegativeRecord, read_jsonl, write_jsonl
from degla.statistics.proportions import clustered, cohen_kappa, wilson
from tests.official import OFFICIAL, SHARED

NOUNS = ("dog", "cat", "horse", "table", "lamp", "boat", "tree", "car", "child", "clock", "plate", "bird")


def caption(number: int, text: str, *, image: int | None = None) -> CaptionRecord:
    name = str(number if image is None else image)
    return CaptionRecord(id=str(number), image=f"{name}.jpg", text=text, image_id=name)


def negative(number: int, rule: str, text: str | None, reason: str = "", **more: object) -> NegativeRecord:
    return NegativeRecord(
        caption_id=str(number), rule=rule, kind="object", text=text, source="rules", accepted=not reason, reason=reason,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


CAPTIONS = [
    caption(1, "A dog on a sofa."),
    caption(2, "A cat <b>near</b> a [red] lamp."),
    caption(3, "An old horse."),
    caption(4, "Nothing."),
]
NEGATIVES = [
    negative(1, "replace_nouns", "A cat on a sofa."),
    negative(1, "replace_nouns", "A hound on a sofa.", "synonym", draw=1),
    negative(1, "swap_nouns", "A sofa on a dog."),
    negative(2, "replace_nouns", "A cat <b>near</b> a [red] tree.", form="write"),
    negative(2, "swap_nouns", None, "no_candidate"),
    negative(3, "replace_nouns", "An old cat."),
    negative(3, "swap_nouns", None, "model_refused"),
    negative(4, "replace_nouns", None, "no_candidate"),
    negative(4, "swap_nouns", None, "no_candidate"),
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    write_jsonl(tmp_path / "captions.jsonl", CAPTIONS)
    write_jsonl(tmp_path / "negatives.jsonl", NEGATIVES)
    return tmp_path / "negatives.jsonl", tmp_path / "captions.jsonl"


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict]:
    assert main([str(word) for word in ("negatives", "report", *words, "--json")]) == 0
    return json.loads(capsys.readouterr().out)


def write_replies(negatives: Path) -> None:
    """The journal of a language model next to the file, with an incomplete last line."""
    replies = negatives.with_name(negatives.name + ".replies.jsonl")
    lines = [
        {"caption_id": "3", "rule": "swap_nouns", "draw": 0, "form": "write", "outcome": "refused", "attempts": 3,
         "counts": {"retry: 429": 2}},
        {"caption_id": "2", "rule": "replace_nouns", "draw": 0, "form": "write", "outcome": "answered",
         "repaired": True},
    ]  # fmt: skip
    replies.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"caption_id": "torn')


def test_counts_by_hand(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    negatives, captions = files
    write_replies(negatives)
    (file,) = run_json(capsys, negatives, "--captions", captions)
    assert (file["captions"], file["rows"], file["accepted"]) == (4, 9, 4)
    assert file["captions_covered"]["count"] == 3
    assert file["rules_a_caption"] == {"0": 1, "1": 2, "2": 1}
    assert file["mean_negatives_a_caption"] == 1.0
    nouns, swap = file["rules"]
    assert (nouns["rule"], nouns["rows"], nouns["proposed"], nouns["accepted"]) == ("replace_nouns", 5, 4, 3)
    assert nouns["accepted_of_proposed"]["share"] == 0.75
    assert nouns["captions_covered"]["share"] == 0.75
    assert nouns["reasons"] == {"synonym": 1, "no_candidate": 1}
    assert nouns["most_frequent_words"] == [{"word": "cat", "share": 2 / 3}, {"word": "tree", "share": 1 / 3}]
    assert nouns["different_words_put_in"] == 2
    assert nouns["entropy_bits"] == pytest.approx(math.log2(3) - 2 / 3)
    assert nouns["edit_distances"] == {"1": 3}
    assert nouns["caption_lengths"] == nouns["negative_lengths"] == {"3": 1, "5": 1, "8": 1}
    assert {(each["source"], each["form"]): each["accepted"] for each in nouns["sources"]} == {
        ("rules", ""): 2,
        ("rules", "write"): 1,
    }
    assert swap["edit_distances"] == {"2": 1} and swap["words_put_in"] == 0
    assert swap["reasons"] == {"no_candidate": 2, "model_refused": 1}
    assert nouns["blind"] is None  # three pairs say nothing
    assert file["outcomes"] == {
        "outcomes": [["replace_nouns", "write", "answered", 1], ["swap_nouns", "write", "refused", 1]],
        "repaired": 1,
        "attempts": 4,
        "counts": {"retry: 429": 2},
    }


def test_the_table_counts_what_is_accepted_among_the_texts(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not among the rows: a rule that finds nothing to change was not refused."""
    assert main(["negatives", "report", *map(str, (files[0], "--captions", files[1]))]) == 0
    (line, *_) = [each for each in capsys.readouterr().out.splitlines() if each.strip().startswith("replace_nouns")]
    assert line.split()[1:4] == ["3", "75.0", "75.0"]
    assert frequent(Counter("aab"), more=1) == [("a", 0.5), ("b", 0.25)]


def test_only_rules_with_a_mirror_advise_true_texts_that_look_alike() -> None:
    pairs = [CaptionNegative("a", "b", str(image), caption_likely=1.0) for image in range(8)]
    advised = {rule: " ".join(explain(rule, pairs, None).sentences) for rule in ("change_number", "swap_nouns")}
    assert advised["change_number"].endswith("with degla negatives balance.")
    assert advised["swap_nouns"].endswith(
        "together with similar true texts (--positives --rules passive exchange_conjuncts)."
    )
    longer = [CaptionNegative("a", "b c", str(image)) for image in range(100)]
    assert explain("change_number", longer, None).sentences[-1].endswith("away: drop the rule.")


def test_what_few_pairs_have_in_common_is_no_cue() -> None:
    """All of three pairs; and all of a hundred, on either side."""
    for texts, side in ((("a", "b c"), "shorter"), (("b c", "a"), "longer")):
        few, many = ([CaptionNegative(*texts, str(image)) for image in range(count)] for count in (3, 100))
        assert explain("change_number", few, None).sentences[0].startswith("Neither length nor likelihood")
        assert explain("change_number", many, None).sentences[0] == (
            f"Length: the caption is the {side} text in 100 % of pairs."
        )


@pytest.mark.parametrize("sign", "=+-@")
def test_no_cell_of_a_sheet_is_a_formula(sign: str) -> None:
    assert cell_of(f"{sign} \x1b[2J\x00") == f"'{sign} \\x1b[2J\\x00", "a terminal that shows the file obeyed this"
    assert cell_of(f" {sign}SUM(A1)\n") == f"'{sign}SUM(A1)" and cell_of(f"a{sign}b") == f"a{sign}b"


def test_a_quantile_is_a_counted_number_that_the_share_does_not_exceed() -> None:
    counts = Counter({7: 5, 2: 1, 4: 4})
    assert [quantile(counts, level) for level in (0, 0.1, 0.11, 0.5, 0.51, 1)] == [2, 2, 4, 4, 7, 7]


def test_only_what_is_surely_told_by_the_text_is_warned_of(files: tuple[Path, Path]) -> None:
    index = CaptionIndex(read_captions(files[1]))
    file = examine_file(files[0], NEGATIVES, index, label="a", draws=Draws(0, 0, 0))
    for name, right, pairs in (("few", 20, 20), ("many", 200, 200), ("fewer", 150, 200)):
        file.blind[name] = Blind(wilson(right, pairs), (), ())
    assert [each for each in notes([file]) if "nearly all" in each] == [
        "a: nearly all negatives of many can be identified from the text alone; a model can learn to reject them "
        "without looking at the image."
    ]


def test_cells_of_the_tables_by_hand(files: tuple[Path, Path]) -> None:
    records = [*NEGATIVES, negative(1, "replace_nouns", "A lamp on a sofa.", draw=2)]
    file = examine_file(files[0], records, CaptionIndex(read_captions(files[1])), label="a", draws=Draws(0, 0, 0))
    assert glance([file]).markdown().splitlines()[2:] == ["| a | 4 | 75.0 | 1.25 | 1.00 | – |"]
    assert rules([file]).markdown().splitlines()[2:] == [
        "| replace_nouns | 4 | 80.0 | 75.0 | 1.0 | – |",
        "| swap_nouns | 1 | 100.0 | 25.0 | 2.0 | – |",
    ]
    file.blind["swap_nouns"] = Blind(wilson(1, 1), ("of the caption",), ("of the negative",))
    file.giveaways["swap_nouns"] = Giveaways(wilson(1, 1), wilson(1, 1), ("Look.",))
    (row,) = giveaways([file]).rows
    assert [cell if isinstance(cell, str) else cell.tags for cell in row] == [
        "swap_nouns", ("of the negative",), ("of the caption",), "Look.",
    ]  # fmt: skip


def test_words_without_a_cue_are_not_followed_by_an_empty_list() -> None:
    pairs = [CaptionNegative("a", "b", str(image)) for image in range(8)]
    for cues, end in (((), "75 % of pairs."), (("more words",), "75 % of pairs."), (("no",), "mainly by: no.")):
        sentence = explain("swap_nouns", pairs, Blind(wilson(75, 100), (), cues)).sentences[0]
        assert sentence.startswith("Words:") and sentence.endswith(end)


def test_the_order_of_the_rows_changes_no_count(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    negatives, captions = files
    (straight,) = run_json(capsys, negatives, "--captions", captions)
    shuffled = negatives.with_name("shuffled.jsonl")
    write_jsonl(shuffled, Random(3).sample(NEGATIVES, len(NEGATIVES)))
    (mixed,) = run_json(capsys, shuffled, "--captions", captions)
    by_name = sorted(mixed["rules"], key=lambda rule: rule["rule"])
    for one, other in zip(sorted(straight["rules"], key=lambda rule: rule["rule"]), by_name, strict=True):
        assert {**one, "reasons": Counter(one["reasons"])} == {**other, "reasons": Counter(other["reasons"])}
    assert mixed["rules_a_caption"] == straight["rules_a_caption"]


def test_page_needs_nothing_outside_and_escapes_texts(files: tuple[Path, Path], tmp_path: Path) -> None:
    negatives, captions = files
    out = tmp_path / "page.html"
    second = tmp_path / "second.jsonl"
    write_jsonl(second, NEGATIVES[:4])
    words = ["negatives", "report", negatives, second, "--label", "one", "<i>two</i>", "--captions", captions]
    assert main([*map(str, words), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert "<b>near</b>" not in page and "<i>two</i>" not in page
    assert "a [red] <mark>tree</mark>" in page and "<mark>lamp</mark>" in page
    assert page.count('<p class="was" dir="auto">') == page.count('<p class="is" dir="auto">') >= 1, "of any script"
    assert "&lt;b&gt;near&lt;/b&gt;" in page
    assert "refused: synonym" in page and "refused: no_candidate" not in page
    assert page.count('<table class="stacked">') == 2 and ' data-head="captions covered">' in page, "fit a phone"
    assert '<th scope="row"><span class="again">replace_<wbr>nouns</span></th>' in page, "no file without its rule"
    assert page.count("<figure") == page.count('<figure class="card"><div role="img" aria-label="') >= 4
    # A browser ends no line within a flag; names of rules are no JSON; what is not known has the sign of every page.
    assert whole_flags("(--per-rule 6)") == '(<span style="white-space:nowrap">--per-rule</span> 6)'
    assert whole_flags("mainly by: \u202e. Drop") == r"mainly by: \u202e. Drop", "the rest is not written backwards"
    assert ">-</" not in page and ">–</span></td>" in page
    assert "<h4" not in page and page.count("</span>&lt;i&gt;two&lt;/i&gt;</h3>") == 3, "no level is left out"
    # Names of XML are addresses but are never fetched; nothing else points outside.
    outside = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\((?!#)", page)
    assert "prefers-color-scheme: dark" in page and page.count("<svg") >= 4
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_on_a_page_of_many_files_no_two_marks_are_equal(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Nor does a file's name reverse the sentences that it is in."""
    negatives, captions = files
    copies = [tmp_path / f"{number}.jsonl" for number in range(10)]
    for copy in copies:
        copy.write_bytes(negatives.read_bytes())
    labels = ["ملف", "a\u202eb", *map(str, range(8))]
    words = ["negatives", "report", *copies, "--label", *labels, "--captions", captions, "--out", tmp_path / "a.html"]
    assert main([*map(str, words)]) == 0
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    dots = re.findall(r'<span class="dot" style="([^"]+)"></span>', page.split("<h2>Rules")[0])
    assert len(dots) == len(set(dots)) == 10
    squares = [
        re.search(r'<path id="[^"]+" d="M -[\d.]+ [\d.]+ \nL [\d.]+ [\d.]+ \n', plot) for plot in page.split("<svg")[1:]
    ]
    assert len(squares) >= 4 and all(squares), "files whose colours repeat have a shape in every plot"
    text = page.partition("</style>")[2]
    assert "\u202e" not in text and "<li>a\\u202eb: no manifest" in text
    assert "<li><bdi>ملف</bdi>: no manifest" in text and "</span><bdi>ملف</bdi></span>" in text


def test_a_sheet_without_a_key_has_its_misses_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "own.tsv"
    lines = ["id caption negative different plausible note", "1 dogs cats y y ", "2 dogs hounds n n synonym"]
    sheet.write_text("".join(line.replace(" ", "\t") + "\n" for line in lines))
    assert main(["negatives", "report", "--read", str(sheet)]) == 0
    assert capsys.readouterr().out.endswith("* all, `all`: dogs → hounds (synonym)\n")


def test_the_page_counts_what_a_language_model_answered(files: tuple[Path, Path], tmp_path: Path) -> None:
    negatives, captions = files
    write_replies(negatives)
    out = tmp_path / "page.html"
    assert main(["negatives", "report", str(negatives), "--captions", str(captions), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    row = '<th scope="row"><span>swap_<wbr>nouns</span></th>'
    for outcome, times in (("refused", 1), ("answered", 0)):
        row += f'<td data-head="{outcome}"><span>{times}</span></td>'
    assert f"{row}</tr>" in page
    assert "2 requests (write 2), sent 4 times; 1 answer repaired; retry: 429 2." in page


def test_terminal_takes_brackets_for_text(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    negatives, captions = files
    assert main(["negatives", "report", str(negatives), "--captions", str(captions), "--label", "[red]x[/red]"]) == 0
    output = capsys.readouterr().out
    assert "[red]x[/red]" in output and "model_refused 1" in output


def test_a_narrow_terminal_drops_neither_names_nor_digits() -> None:
    columns = ["file", "captions", "covered %", "neg./caption", "rules/caption", "text-only %"]
    table = Table(columns, [["negatives", "5,768", "100.0", "5.00", "5.00", "59 [57-61]"]])
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(table.terminal(slim=True))
    printed = console.export_text()
    assert all(word in printed for word in ("negat", "5,768", "100.0", "5.00", "59", "[57-61]")), printed


def test_intervals_stay_whole_on_a_narrow_terminal() -> None:
    columns = ["rule", "accepted", "accepted %", "captions %", "text-only %", Column("why", align="left")]
    rows = [["replace_adjectives", "12,345", "100.0", "23.4", "56 [48-63]", "too few of them " * 4]]
    table = Table(columns, rows).terminal(title="By rule [x]", slim=True)
    for width in range(30, 100):
        console = Console(width=width, force_terminal=False)
        with console.capture() as capture:
            console.print(table)
        output = capture.get()
        assert max(map(len, output.splitlines())) <= width and output.startswith("By rule [x]\n")
        assert all(f" {number} " in output for number in ("12,345", "100.0", "23.4", "[48-63]")), width


def test_negatives_of_another_version_of_the_captions_are_reported_as_in_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"a {noun} stands beside the small {noun} house" for noun in NOUNS]
    file, captions = tmp_path / "negatives.jsonl", tmp_path / "captions.jsonl"
    write_jsonl(file, (negative(n, "add_object", f"a duck eats {text[2:]}") for n, text in enumerate(texts)))
    others = [f"two men play chess with {noun}s" for noun in NOUNS]
    half = len(NOUNS) // 2
    for far, warned in ((2 * half, True), (half + 1, True), (0, False), (half, False)):
        lines = [*others[:far], *texts[far : 2 * half]]
        write_jsonl(captions, (caption(n, text) for n, text in enumerate(lines)))
        caplog.clear()
        assert main(["negatives", "report", str(file), "--captions", str(captions)]) == 0
        join(read_captions(captions), read_jsonl(NegativeRecord, file))
        shown = f"'a duck eats {texts[0][2:]}' of caption '0', {lines[0]!r}"
        wanted = ForeignCheck.WARNING % shown
        messages = [each.getMessage() for each in caplog.records if "share few words" in each.getMessage()]
        assert messages == ([f"{file}: {wanted}", wanted] if warned else [])
    # A true text may share few words with its caption.
    write_jsonl(captions, (caption(n, text) for n, text in enumerate(others)))
    write_jsonl(
        file, [negative(n, "passive", text).model_copy(update={"kind": POSITIVE}) for n, text in enumerate(texts)]
    )
    assert main(["negatives", "report", str(file), "--captions", str(captions)]) == 0
    assert not any("share few words" in each.getMessage() for each in caplog.records)


def test_nothing_refused_is_no_table(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    negatives, captions = files
    for rows, has_table in ((NEGATIVES, True), (NEGATIVES[:1], False)):
        write_jsonl(negatives, rows)
        assert main(["negatives", "report", str(negatives), "--captions", str(captions)]) == 0
        assert ("Refused" in capsys.readouterr().out) == has_table


def test_nothing_inserted_is_no_table(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    negatives, captions = files
    for rows, has_table in ((NEGATIVES, True), (NEGATIVES[1:3], False)):
        write_jsonl(negatives, rows)
        page = tmp_path / "page.html"
        assert main(["negatives", "report", *map(str, (negatives, "--captions", captions, "--out", page))]) == 0
        assert ("Inserted words" in capsys.readouterr().out) == has_table
        assert ("Inserted words" in page.read_text(encoding="utf-8")) == has_table


def test_rows_of_other_captions_are_reported(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    negatives, captions = files
    others = [negative(number, "swap_nouns", "A b.") for number in (77, 77, 78)]
    write_jsonl(negatives, [*NEGATIVES, *others])
    assert main(["negatives", "report", str(negatives), "--captions", str(captions)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "3 rows not counted: caption ids missing from the captions file (77, 78, ...)" in output
    write_jsonl(negatives, [negative(77, "swap_nouns", "A b.")])
    assert main(["negatives", "report", str(negatives), "--captions", str(captions)]) == 2
    assert (
        f"{negatives}: no negative matches any caption. The first caption ids among the negatives: '77'"
        in capsys.readouterr().err
    )
    words = ["--captions", str(captions), "--sheet", str(negatives.with_name("s.tsv"))]
    assert main(["negatives", "report", str(negatives), *words]) == 2
    assert f"{negatives}: nothing to read: no accepted negative" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--captions", "{captions}"], "Give files of negatives with --captions, or filled sheets with --read"),
        (["{negatives}"], "Give files of negatives with --captions"),
        (["{negatives}", "{negatives}", "--captions", "{captions}"], "two files are named 'negatives'"),
        (["{negatives}", "--label", "a", "b", "--captions", "{captions}"], "--label gives 2 names for 1 file."),
        (["{negatives}", "--captions", "{captions}", "--out", "page.htm"], "must end in .html"),
        (["{negatives}", "--captions", "{captions}", "--sheet", "s.csv"], "must end in .tsv or .tab (--sheet)"),
        (["{negatives}", "--captions", "{captions}", "--samples", "-1"], "must be 0 or more"),
        (["{negatives}", "--captions", "{captions}", "--sheet", "s", "--out", "r.html"], "--sheet only writes sheets"),
    ],
)
def test_wrong_use_is_refused(
    files: tuple[Path, Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word.format(negatives=files[0], captions=files[1]) for word in words]
    assert main(["negatives", "report", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "distance", "put_in"),
    [
        ("A dog.", "a DOG", 0, ()),
        ("A dog runs.", "An ape runs.", 1, ("ape",)),
        ("A dog runs.", "A dog runs fast", 1, ("fast",)),
        ("A big dog runs.", "A dog runs", 1, ()),
        ("a cat on a mat", "a mat on a cat", 2, ()),
        ("a cat on a mat", "two mats on a dog", 3, ("two", "mats", "dog")),
        ("", "a cat", 2, ("a", "cat")),
        ("red cat sits", "big red cat fat sits", 2, ("big", "fat")),
    ],
)
def test_differences(first: str, second: str, distance: int, put_in: tuple[str, ...]) -> None:
    difference = measure_difference(first, second)
    assert difference.distance == distance
    assert Counter(difference.put_in) == Counter(put_in)


def test_marked_spans_are_the_texts_to_the_letter() -> None:
    random = Random(0)
    for _ in range(200):
        texts = ["  ".join(random.choices([*NOUNS, "the", ",", "isn't"], k=random.randrange(1, 9))) for _ in range(2)]
        for text, spans in zip(texts, mark_tokens(*texts), strict=True):
            assert "".join(span.text for span in spans) == text
    before, after = mark_tokens("A dog on a mat.", "A cat on a mat.")
    assert [span.text for span in before if span.changed] == ["dog"]
    assert [span.text for span in after if span.changed] == ["cat"]


def pairs_of(change: str, *, count: int, seed: int = 0) -> list[CaptionNegative]:
    random = Random(seed)
    pairs = []
    for number in range(count):
        first, second = random.sample(NOUNS, 2)
        text = f"a {first} near a {second}"
        if change == "none":  # which of the two is the caption was tossed up
            other = f"a {second} near a {first}"
        elif change == "purple":
            other = f"a purple {second} near a {first}"
        else:  # both texts of an image are of one word that comes with no other image
            word = "".join(random.choices("bcdfghjklmnp", k=6))
            text, other = f"a {word}x near a {second}", f"a {word}y near a {second}"
        pairs.append(CaptionNegative(text, other, image_id=str(number)))
    return pairs


def test_blind_test_finds_what_gives_away_and_nothing_else() -> None:
    blind = solve_blind(pairs_of("purple", count=200))
    assert blind is not None and blind.accuracy.share == 1.0 and blind.accuracy.low > 0.95
    assert any("purple" in cue for cue in blind.negative_cues)
    fair = solve_blind(pairs_of("none", count=600))
    assert fair is not None and fair.accuracy.low < 0.5 < fair.accuracy.high
    assert fair.accuracy.high - fair.accuracy.low < 0.12


def test_the_report_tests_each_rule_and_all_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {"plain": pairs_of("none", count=60), "adds": pairs_of("purple", count=60, seed=1)}
    listed = [pair for each in pairs.values() for pair in each]
    write_jsonl(tmp_path / "c.jsonl", [caption(at, pair.caption) for at, pair in enumerate(listed)])
    rows = [negative(at, "plain" if at < 60 else "adds", pair.negative) for at, pair in enumerate(listed)]
    write_jsonl(tmp_path / "n.jsonl", rows)
    (file,) = run_json(capsys, tmp_path / "n.jsonl", "--captions", tmp_path / "c.jsonl", "--out", tmp_path / "n.html")
    plain, adds = file["rules"]
    assert adds["blind"]["accuracy"]["share"] == 1.0 and plain["blind"]["accuracy"]["share"] < 0.8
    assert 0.5 < file["blind_all"]["accuracy"]["share"] < 1.0
    length, line = adds["gives_away"]["explained"][:2]
    assert length == "Length: the caption is the shorter text in 100 % of pairs."
    assert line.startswith("Words: they identify 100 %") and "purple" in line
    assert not any("Words" in sentence for sentence in plain["gives_away"]["explained"])


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_balanced_file_is_tested_by_its_halves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each two words stand once in either order in each half: the other pair of a half shows the reverse."""
    halves = [[str(number) for number in range(400) if half_of(str(number)) == half][:100] for half in (0, 1)]
    pairs = []
    for images in halves:
        for place, image in enumerate(images):
            texts = [f"a {side}{'bcdfghjklm'[place // 20]}{'aeiouvwxyz'[place // 2 % 10]}" for side in "pq"]
            pairs.append(CaptionNegative(*texts[:: 1 if place % 2 else -1], image_id=image))
    whole, by_halves = solve_blind(pairs), solve_blind(pairs, halves=True)
    assert whole is not None and whole.accuracy.high < 0.4
    assert by_halves is not None and by_halves.accuracy.low <= 0.5 <= by_halves.accuracy.high
    given_away = solve_blind(pairs_of("purple", count=80), halves=True)
    assert given_away is not None and given_away.accuracy.share == 1.0
    assert solve_blind(pairs[:100], halves=True) is None, "all of one half"
    for seed in range(8):  # Without a warning: a fold of either half chooses the penalty.
        assert solve_blind([*pairs[:5], *pairs[100:105]] * 4, seed=seed, halves=True) is not None
    write_jsonl(tmp_path / "c.jsonl", [caption(int(pair.image_id), pair.caption) for pair in pairs])
    write_jsonl(
        tmp_path / "n.jsonl",
        [negative(int(pair.image_id), rule, pair.negative) for pair in pairs for rule in ("one", "two")],
    )
    words = (tmp_path / "n.jsonl", "--captions", tmp_path / "c.jsonl")
    (file,) = run_json(capsys, *words)
    (tmp_path / "n.jsonl.manifest.json").write_text('{"balanced": {}}')
    (balanced,) = run_json(capsys, *words)
    for at in (lambda of: of["rules"][0]["blind"], lambda of: of["blind_all"]):
        assert at(file)["accuracy"]["high"] < 0.4 < at(balanced)["accuracy"]["share"]


def test_blind_test_does_not_learn_from_the_images_that_it_asks_about() -> None:
    """Each image has its own nonsense word in twenty pairs; only leakage could tell which side it is on."""
    random = Random(1)
    pairs = []
    for image in range(30):
        word = "".join(random.choices("bdgkmpt", k=8))
        sides = (f"{word} qu", f"{word} zu") if random.random() < 0.5 else (f"{word} zu", f"{word} qu")
        pairs += [
            CaptionNegative(f"{sides[0]} {NOUNS[place % 12]}", f"{sides[1]} {NOUNS[place % 12]}", str(image))
            for place in range(20)
        ]
    blind = solve_blind(pairs)
    leaking = solve_blind(
        [CaptionNegative(pair.caption, pair.negative, str(number)) for number, pair in enumerate(pairs)]
    )
    assert blind is not None and leaking is not None
    assert leaking.accuracy.share > 0.95
    assert blind.accuracy.share < 0.75
    # Twenty pairs of one image are worth about one.
    assert blind.accuracy.high - blind.accuracy.low > 0.15


def test_the_blind_test_is_that_of_a_slow_logistic_regression() -> None:
    random = Random(2)
    pairs, rows = [], []
    for number in range(60):
        one, other, new = random.sample(NOUNS, 3)
        article, more = random.choice(("a", "a", "two")), random.choice(("", "", f" x{number}y"))
        pairs.append(CaptionNegative(f"a {one} near a {other}", f"a {new} near {article} {other}{more}", str(number)))
        texts = [bag_of_words(text) for text in (pairs[-1].caption, pairs[-1].negative)]
        rows.append({name: texts[0][name] - texts[1][name] for name in texts[0] | texts[1]})
    names = [name for name in {name for row in rows for name in row} if sum(bool(row.get(name)) for row in rows) > 1]
    matrix = np.array([[row.get(name, 0) for name in names] for row in rows], dtype=float)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    order = sorted(map(str, range(60)))
    Random(0).shuffle(order)
    folds = np.array([order.index(pair.image_id) % 5 for pair in pairs])

    def fit(train: np.ndarray, penalty: float) -> np.ndarray:
        """By Newton's method."""
        rows, weights = matrix[train], np.zeros(len(names))
        for _ in range(30):
            wrong = 1 / (1 + np.exp(rows @ weights))
            slope = penalty * weights - rows.T @ wrong / len(rows)
            curve = penalty * np.eye(len(names)) + (rows.T * (wrong * (1 - wrong))) @ rows / len(rows)
            weights = weights - np.linalg.solve(curve, slope)
        return weights

    leads = blind_leads(pairs, features=bag_of_words)
    assert leads is not None
    for fold in range(5):
        test, tuning = folds == fold, folds == (fold + 1) % 5
        accuracy = {
            penalty: (matrix[tuning] @ fit(~test & ~tuning, penalty) > 0).mean() for penalty in (1e-1, 1e-2, 1e-3, 1e-4)
        }
        expected = matrix[test] @ fit(~test, max(accuracy, key=accuracy.__getitem__))
        assert leads[test] == pytest.approx(expected, rel=0.02, abs=0.02)


def test_blind_test_says_nothing_of_few_pairs_and_is_repeatable() -> None:
    assert solve_blind(pairs_of("purple", count=39)) is None
    assert solve_blind([CaptionNegative("a", "b", str(number % 5)) for number in range(100)]) is None
    pairs = pairs_of("none", count=100)
    assert solve_blind(pairs, seed=4) == solve_blind(pairs, seed=4)


def test_length_and_capitals() -> None:
    longer = [
        CaptionNegative(f"a {noun} {other}", f"a {noun} {other} x{number}y", str(number))
        for number, (noun, other) in enumerate((one, two) for one in NOUNS for two in NOUNS)
    ]
    blind = solve_blind(longer)
    assert blind is not None and blind.accuracy.share > 0.95 and "more words" in blind.negative_cues
    # CLIP's tokenizer sees neither capitals nor the number of spaces.
    same = solve_blind([CaptionNegative(pair.caption.upper(), f" {pair.caption}  ", pair.image_id) for pair in longer])
    assert same is not None and same.accuracy.share == 0.5


@pytest.mark.parametrize(
    ("count", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)]
)
def test_wilson(count: int, n: int, low: float, high: float) -> None:
    share = wilson(count, n)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_shares_of_items_that_hang_together() -> None:
    worth = np.tile([1.0, 0.0], 100)
    apart = clustered(worth, [str(number) for number in range(200)])
    together = clustered(np.sort(worth), [str(number // 20) for number in range(200)])
    assert apart.share == together.share == 0.5
    assert together.high - together.low > 3 * (apart.high - apart.low)
    agreed = clustered(np.ones(50), [str(number) for number in range(50)])
    assert agreed.high == 1.0 and 0.9 < agreed.low < 1.0


def test_reservoir_is_fair_and_seeded() -> None:
    times: Counter[int] = Counter()
    for seed in range(2000):
        sample = Reservoir[int](3, seed=str(seed))
        for number in range(12):
            sample.show(number)
        times.update(sample.items)
    assert all(420 < times[number] < 580 for number in range(12))  # 500 expected, standard deviation 19
    assert entropy(Counter("aabb")) == 1.0


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t"))


def fill(path: Path, verdicts: Sequence[tuple[str, str, str]]) -> None:
    header, *rows = read(path)
    with path.open("w", encoding="utf-8", newline="") as stream:
        filled = [[*row[:3], *verdict] for row, verdict in zip(rows, verdicts, strict=True)]
        csv.writer(stream, delimiter="\t").writerows([header, *filled])


def test_sheet_is_blind_and_its_verdicts_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = [caption(number, f"=A {noun} on a\tbig rug.") for number, noun in enumerate(NOUNS)]
    write_jsonl(tmp_path / "c.jsonl", captions)
    same = [negative(number, "replace_nouns", "A ghost on a big rug.") for number in range(12)]
    write_jsonl(tmp_path / "a.jsonl", [*same, *(negative(n, "add_object", f"A {NOUNS[n]}.") for n in range(12))])
    write_jsonl(tmp_path / "b.jsonl", [*same[::-1], negative(3, "swap_nouns", "no", "not_rule")])
    sheet = tmp_path / "deep" / "sheet.tsv"
    words = ["negatives", "report", *(str(tmp_path / name) for name in ("a.jsonl", "b.jsonl"))]
    words += ["--captions", str(tmp_path / "c.jsonl"), "--sheet", str(sheet), "--per-rule", "4", "--seed", "5"]
    assert main(words) == 0
    header, *rows = read(sheet)
    assert header == ["id", "caption", "negative", "different", "plausible", "note"]
    keys = read(key_path(sheet))
    rule_of = {row[0]: row[2] for row in keys[1:]}
    # The two files are read on the same captions, and what they share is read once.
    assert Counter(rule_of[row[0]] for row in rows) == {"replace_nouns": 4, "add_object": 4}
    assert all("\t" not in row[1] and row[3:] == ["", "", ""] for row in rows)
    assert all(row[1].startswith("'=A ") for row in rows)  # no formula for a spreadsheet
    assert not any(word in sheet.read_text() for word in ("a.jsonl", "rules", "replace_nouns", "add_object"))
    assert Counter((row[1], row[5]) for row in keys[1:]).most_common(1)[0][1] == 2
    assert Counter(row[1] for row in keys[1:]) == {"a": 8, "b": 4}

    assert main(words) == 2
    assert "already exists and may hold verdicts" in capsys.readouterr().err
    assert main(["negatives", "report", "--read", str(sheet)]) == 2
    assert "no verdicts yet" in capsys.readouterr().err

    verdicts = [("", "", "")] * len(rows)
    places = [place for place, row in enumerate(rows) if rule_of[row[0]] == "replace_nouns"]
    for place, verdict in zip(
        places, [("y", "y", ""), ("Y", "n", ""), ("n", "", "no sense"), ("no", "yes", "")], strict=True
    ):
        verdicts[place] = verdict
    fill(sheet, verdicts)
    assert main(["negatives", "report", "--read", str(sheet)]) == 0
    output = capsys.readouterr().out
    for file in ("a", "b"):
        assert f"| {file} | `replace_nouns` | 4 | 50 [15, 85] | 25 [5, 70] |" in output
    assert "Not read yet: a 4." in output and "A ghost on a big rug. (no sense)" in output
    (first, *_) = [each for each in run_json(capsys, "--read", sheet)["counts"] if each["rule"] == "add_object"]
    assert first["unread"] == 4 and first["different"]["share"] is None
    assert run_json(capsys, "--read", sheet, sheet) == run_json(capsys, "--read", sheet)

    fill(sheet, [("y", "", "")] * len(rows))
    assert main(["negatives", "report", "--read", str(sheet)]) == 2
    assert "line 2: incomplete verdict" in capsys.readouterr().err
    fill(sheet, [("maybe", "y", "")] * len(rows))
    assert main(["negatives", "report", "--read", str(sheet)]) == 2
    assert "column 'different' is 'maybe'. Write y, n or nothing" in capsys.readouterr().err
    key_path(sheet).unlink()
    fill(sheet, [("y", "y", "")] * len(rows))
    assert main(["negatives", "report", "--read", str(sheet)]) == 0
    assert "| all | **all** | 8 | 100 [68, 100] | 100 [68, 100] |" in capsys.readouterr().out


def test_rules_are_not_all_read_on_the_same_captions(tmp_path: Path) -> None:
    captions = [caption(number, f"A {noun} here.") for number, noun in enumerate(NOUNS)]
    rules = ("replace_nouns", "add_object")
    rows = [negative(number, rule, "A ghost here.") for number in range(len(NOUNS)) for rule in rules]
    with CaptionIndex(captions) as index:
        drawn = draw_sheet(rows, index, per_rule=4, seed=0, where=tmp_path)
    first, second = ({each.caption.number for each in drawn[rule]} for rule in rules)
    assert len(first) == len(second) == 4 and first != second


def test_two_readers_of_the_same_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text counts once, as good only if both say so; agreement is reported; the orders differ."""
    write_jsonl(tmp_path / "c.jsonl", [caption(number, f"A {noun} here.") for number, noun in enumerate(NOUNS)])
    write_jsonl(tmp_path / "n.jsonl", [negative(number, "replace_nouns", "A ghost here.") for number in range(12)])
    words = ["negatives", "report", str(tmp_path / "n.jsonl"), "--captions", str(tmp_path / "c.jsonl")]
    assert main([*words, "--sheet", str(tmp_path / "s.tsv"), "--readers", "2"]) == 0
    sheets = [tmp_path / "s.1.tsv", tmp_path / "s.2.tsv"]
    assert [key_path(sheet) for sheet in sheets] == [tmp_path / "s.key.tsv"] * 2
    orders = [[row[0] for row in read(sheet)[1:]] for sheet in sheets]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    # 12 texts: both yes 6, only the first 2, only the second 1, both no 3.
    answers = [dict(zip(orders[0], text, strict=True)) for text in ("yyyyyyyynnnn", "yyyyyynnynnn")]
    for sheet, order, own in zip(sheets, orders, answers, strict=True):
        fill(sheet, [(own[name], own[name], {"y": "fine", "n": "bad"}[own[name]]) for name in order])
    reading = run_json(capsys, "--read", *sheets)
    notes = Counter(miss["note"] for miss in reading["counts"][-1]["misses"])
    assert notes == {"bad": 3, "bad; bad": 3}, "those who found no fault say nothing of it"
    assert reading["counts"][-1]["different"]["count"] == 6 and reading["counts"][-1]["different"]["n"] == 12
    (different, plausible) = reading["agreement"]
    assert (different["n"], different["same"]) == (12, 9) and plausible["question"] == "plausible"
    # Chance: 8/12 x 7/12 + 4/12 x 5/12 = 76/144; (108 - 76) / (144 - 76).
    assert different["kappa"] == pytest.approx(32 / 68)
    assert main(["negatives", "report", "--read", *map(str, sheets)]) == 0
    assert "| s.1.tsv, s.2.tsv | different | 12 | 75 | 0.47 [" in capsys.readouterr().out

    rows = sheets[1].read_text().replace("A ghost", "A goat", 1)
    sheets[1].write_text(rows)
    assert main(["negatives", "report", "--read", *map(str, sheets)]) == 2
    assert "differs from another sheet of s.key.tsv" in capsys.readouterr().err


def test_sheets_named_by_a_year_have_their_key(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", CAPTIONS)
    write_jsonl(tmp_path / "n.jsonl", NEGATIVES)
    words = ["negatives", "report", str(tmp_path / "n.jsonl"), "--captions", str(tmp_path / "c.jsonl")]
    assert main([*words, "--sheet", str(tmp_path / "s.2026.tsv"), "--readers", "2"]) == 0
    assert key_path(tmp_path / "s.2026.1.tsv").is_file() and key_path(tmp_path / "s.2026.2.tsv").is_file()


def test_kappa_of_known_tables() -> None:
    """The interval equals statsmodels.stats.inter_rater.cohens_kappa; None if all answers are equal."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohen_kappa(pairs) == pytest.approx((0.4, 0.15109229047666, 0.64890770952334))
    assert cohen_kappa([(True, True)] * 9) == cohen_kappa([]) == (None, None, None)
    # Wilson's interval of 10 of 10 begins at 10 / (10 + z²); chance agrees in 0.7² + 0.3².
    low = (10 / (10 + 1.959964**2) - 0.58) / 0.42
    assert cohen_kappa([(True, True)] * 7 + [(False, False)] * 3) == pytest.approx((1.0, low, 1.0))


def test_kappa_of_readers_who_agree_on_few_texts_is_not_certain() -> None:
    """They would say "1.00 [1.00, 1.00]" in half of such readings."""
    generator = np.random.default_rng(0)
    chance = 0.892**2 + 0.108**2
    truth = (0.9802 - chance) / (1 - chance)  # Two readers, right in 99 of 100, of texts of which 90 are good.
    coverage = []
    for _ in range(400):
        good = generator.random(30) < 0.9
        first, second = (np.where(generator.random(30) < 0.99, good, ~good).tolist() for _ in range(2))
        kappa, low, high = cohen_kappa(list(zip(first, second, strict=True)))
        if kappa is not None and low is not None and high is not None:
            coverage.append(low <= truth <= high)
    assert np.mean(coverage) > 0.9


READINGS = Path(__file__).parents[2] / "docs" / "studies" / "negatives"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("reading-6.tsv", "| rules | **all** | 201 | 98 [94, 99] | 76 [69, 81] |"),
        ("reading-6.tsv", "| embedded | **all** | 194 | 96 [93, 98] | 74 [67, 79] |"),
        ("reading-7.tsv", "| server | **all** | 190 | 96 [92, 98] | 78 [71, 83] |"),
    ],
)
def test_committed_readings_give_the_figures_of_the_log(
    name: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old sheets with a rule column, from before two readers, are still counted."""
    assert main(["negatives", "report", "--read", str(READINGS / name)]) == 0
    assert line in capsys.readouterr().out


def test_the_reading_by_two_gives_the_figures_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    sheets = [str(READINGS / f"reading-8.{number}.tsv") for number in (1, 2)]
    assert main(["negatives", "report", "--read", *sheets]) == 0
    text = capsys.readouterr().out
    assert "| rules | **all** | 97 | 84 [75, 90] | 63 [53, 72] |" in text
    assert "| embedded | **all** | 93 | 77 [68, 85] | 63 [53, 73] |" in text
    assert "different | 153 | 95 | 0.83 [0.71, 0.95] |" in text and "plausible | 153 | 95 | 0.90 [0.82, 0.97] |" in text


def test_the_reading_of_true_texts_gives_the_figures_of_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    sheets = [str(READINGS / f"reading-9.{number}.tsv") for number in (1, 2)]
    assert main(["negatives", "report", "--read", *sheets]) == 0
    text = capsys.readouterr().out
    assert "grammatical and true, %" in text and "Not grammatical, or not true:" in text
    page = (READINGS.parents[1] / "negatives-balance.md").read_text(encoding="utf-8")
    figures = re.findall(r"^\| `(\w+)` \| (\d+ \[\d+, \d+\]) \|$", page, flags=re.MULTILINE)
    assert len(figures) == 7
    for rule, share in figures:
        assert f"| `{rule}` | 20 | {share} |" in text
    assert "**all** | 140 | 96 [91, 98] |" in text and "different | 140 | 99 | 0.91 [0.72, 1.00] |" in text
    assert "96 % [91, 98]" in page and "kappa 0.91 [0.72, 1.00]" in page


def test_a_sheet_without_a_key_is_counted_as_one_of_negatives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.tsv"
    sheet.write_bytes((READINGS / "reading-8.1.tsv").read_bytes())
    assert main(["negatives", "report", "--read", str(sheet)]) == 0
    assert "grammatical and really different, %" in capsys.readouterr().out


def test_a_note_that_begins_with_a_quotation_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text('id\tcaption\tnegative\tdifferent\tplausible\tnote\n1\tA dog.\tA cat.\tn\ty\t"cat" is odd\n')
    assert main(["negatives", "report", "--read", str(sheet)]) == 2
    message = capsys.readouterr().err
    assert "sheet.tsv line 2: invalid TSV" in message and "remove quotation marks from the note" in message


if OFFICIAL:

    @pytest.mark.parametrize(
        ("part", "low", "high"), [("swap_att", 0.58, 0.66), ("swap_obj", 0.62, 0.75), ("add_att", 0.98, 1)]
    )
    def test_blind_test_on_sugarcrepe(part: str, low: float, high: float) -> None:
        """The figures in docs/negatives-report.md for comparison."""
        items = json.loads((SHARED / "sugarcrepe" / f"{part}.json").read_text()).values()
        blind = solve_blind(
            [CaptionNegative(item["caption"], item["negative_caption"], item["filename"]) for item in items]
        )
        assert blind is not None and low <= blind.accuracy.share <= high
