"""What the texts alone tell stands beside every compositional number, and does not count as composition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rich.console import Console

from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entry, Metric, pair_question
from degla.evaluation.caveats import floor_notes
from degla.evaluation.forms import square_question
from degla.evaluation.neutral import find_floors, without_solvable
from degla.evaluation.report import report
from degla.evaluation.results import save_result
from degla.evaluation.run import Evaluation
from degla.evaluation.terminal import named_scores, render_result
from degla.evaluation.text_floors import COMPARED, SHORTER, TEXT_SOLVABLE, WORDS, _contradict, _worth, floor_verdicts
from degla.evaluation.verdicts import order_blind
from degla.records import ItemImage, PairItem
from degla.results import Result
from degla.shelf import BENCHMARKS
from degla.world import draw
from tests.evaluation.fake_encoders import spreading
from tests.evaluation.shelf_contract import paint
from tests.evaluation.test_floors import use
from tests.official import SHARED

RESULTS = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
_NOUNS = ("cat", "dog", "cow", "car", "cup", "hat")


def texts_of(kind: str, luck: Random) -> tuple[str, str]:
    """A true and a false text: longer, exchanged, or with a word that only false texts have."""
    one, other = luck.sample(_NOUNS, 2)
    true = f"a {one} on a {other}"
    return true, {
        "add": f"a {one} on a red {other}",
        "swap": f"a {other} on a {one}",
        "word": f"a {one} by a {other}",
    }[kind]


def items(kind: str, count: int, *, images: int = 12) -> list[PairItem]:
    luck = Random(kind)
    return [
        PairItem(
            id=f"gift/{kind}/{number}", benchmark="gift", part=kind, texts=texts_of(kind, luck), gold=((1, 0),),
            images=(ItemImage(path=f"{number % images}.png"),),
        )
        for number in range(count)
    ]  # fmt: skip


def benchmark(kinds: Sequence[str], count: int = 60) -> Benchmark:
    def read(root: Path) -> Iterator[Entry]:
        for kind in kinds:
            yield from items(kind, count)

    return Benchmark(
        name="gift", title="Gift", paper="-", licence="-", source="-", layout="N.png", citation="",
        parts=tuple(BenchmarkPart(name=kind, family=kind) for kind in kinds), items=read, annotations=(),
        averages=(Average("macro", of=tuple(kinds)), Average("micro", of=("*",), how="micro")),
        headline={"composition": "macro"},
    )  # fmt: skip


@pytest.fixture
def gift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use(benchmark(("add", "swap", "word")), monkeypatch)
    paint(tmp_path, [f"{number}.png" for number in range(12)])
    return tmp_path


def score(root: Path) -> Result:
    return Evaluation(["gift"], root, progress=False).score(spreading())


def test_length_and_words_are_seen_order_is_not() -> None:
    floors = find_floors(
        benchmark(("add", "swap", "word")), [*items("add", 60), *items("swap", 60), *items("word", 60)]
    )
    values = {
        floor: {name: rows[0].value for name, rows in scores.parts.items()} for floor, scores in floors.values.items()
    }
    assert values == {SHORTER: {"add": 1.0, "swap": 0.5, "word": 0.5}, WORDS: {"add": 1.0, "swap": 0.5, "word": 1.0}}
    assert floors.text_solvable == {"add": (SHORTER, WORDS), "word": (WORDS,)}
    assert floors.benchmark.headline == {"composition": "macro.neutral", TEXT_SOLVABLE: "text_solvable"}
    added = floors.benchmark.averages[2:]
    assert added == (Average("macro.neutral", of=("swap",)), Average("text_solvable", of=("add", "word")))


def test_a_part_whose_name_is_a_pattern_counts_in_composition() -> None:
    entries = [item.model_copy(update={"part": f"{item.part}[1]"}) for item in [*items("add", 60), *items("swap", 60)]]
    own = replace(benchmark(("add[1]", "swap[1]")), parts=(BenchmarkPart(name="*", family="own"),))
    floors = find_floors(own, entries)
    scores = {score.name: score.value for score in floors.values[SHORTER].averages}
    assert floors.benchmark.headline == {"composition": "macro.neutral", TEXT_SOLVABLE: "add[1]"}
    assert scores == {"macro": 0.75, "micro": 0.75, "macro.neutral": 0.5}


def test_a_model_that_ignores_order_can_reach_the_ceiling_and_no_more() -> None:
    entries = [*items("add", 60), *items("swap", 60), *items("word", 60)]
    whole = benchmark(("add", "swap", "word"))
    for tie, worth in (("strict", 0.0), ("half", 0.5), ("lenient", 1.0)):
        floors = find_floors(whole, entries, tie=tie)
        assert floors.ceiling is not None
        values = {name: rows[0].value for name, rows in floors.ceiling.parts.items()}
        assert values == {"add": 1.0, "swap": worth, "word": 1.0}
        averages = {score.name: score.value for score in floors.ceiling.averages}
        assert averages["macro.neutral"] == worth and averages["macro"] == pytest.approx((2 + worth) / 3)


def test_ceilings_of_other_forms() -> None:
    """Two images and two texts; two true texts and one false one, with the image and without."""
    place, images = ("gift", "swap"), ("a.png", "b.png")
    same, other = ("a cat, on a dog", "A dog on a cat."), ("a cat on a dog", "a cat on dogs")
    three = [(*same, "a cow"), ("a cat on a hat", *same)]
    rows = [square_question((*place, at), images, texts) for at, texts in enumerate((same, other))]
    rows += [
        pair_question((*place, 2 + number), pictures, texts, ((1, 1, 0),))
        for number, (texts, pictures) in enumerate((texts, shown) for texts in three for shown in (images[:1], ()))
    ]
    one = benchmark(("swap",))
    metrics = (Metric(), Metric(name="one", verdict="image_ok.1"))
    judged = order_blind(replace(one, parts=(replace(one.parts[0], metrics=metrics),)), rows)
    found = [{key: row.verdict.ok[key] for key in row.verdict.ok if not key.startswith("text_ok.")} for row in judged]
    square = ("text_ok", "image_ok", "group_ok")
    assert found[:2] == [dict.fromkeys(square, 0.0) | {"image_ok.1": 1.0}, dict.fromkeys((*square, "image_ok.1"), 1.0)]
    assert found[2:] == [{"text_ok": 1.0}, {"text_only_ok": 1.0}, {"text_ok": 0.0}, {"text_only_ok": 0.0}]


@pytest.mark.skipif(not (SHARED / "sugarcrepe").is_dir(), reason="the official files are not in ../shared/data")
def test_ceilings_of_the_official_files() -> None:
    """572 pairs of SugarCrepe have the same words (RAIVNLab/sugar-crepe, issue 10), and 271 valid ones of VALSE."""
    expected = {
        "sugarcrepe": {"swap_obj": (245 - 164) / 245, "swap_att": (666 - 408) / 666},
        "valse": {"actant-swap": (949 - 271) / 949},
        "cola": {"multi_object": 200 / 210},
    }
    for name, limits in expected.items():
        official = BENCHMARKS.load(name).BENCHMARK
        pairs = [entry for entry in official.items(SHARED) if isinstance(entry, PairItem) and entry.keep]
        for part, scores in aggregate(official, order_blind(official, pairs), draws=1).parts.items():
            assert scores[0].value == pytest.approx(limits.get(part, 1.0)), (name, part)


def test_an_average_of_averages_leaves_out_parts_that_text_solves() -> None:
    """As ARO's mean over four has the means of its orders."""
    parts = ("add/a", "add/b", "swap")
    averages = (Average("add", of=("add/*",)), Average("both", of=("add", "swap")))
    whole = replace(benchmark(parts), averages=averages, headline={"composition": "both"})
    one = without_solvable(whole, ["add/a"], parts)
    assert one.averages[2:] == (
        Average("add.neutral", of=("add/b",)),
        Average("both.neutral", of=("add.neutral", "swap")),
    )
    assert one.headline == {"composition": "both.neutral", TEXT_SOLVABLE: "add/a"}
    all_of_them = without_solvable(whole, parts[:2], parts)
    assert all_of_them.averages[2:] == (Average("both.neutral", of=("swap",)), Average("text_solvable", of=parts[:2]))
    # A column may be a part, which is text-solvable as a whole.
    columns = {"composition": "add", "swap": "swap", "order": "add/b"}
    assert without_solvable(replace(whole, headline=columns), ["swap"], parts).headline == {
        "composition": "add", TEXT_SOLVABLE: "swap", "order": "add/b",
    }  # fmt: skip


def test_nothing_is_learnt_from_the_item_that_is_asked() -> None:
    """Each false text has a word of its own: a classifier that saw it would know it."""
    luck = Random(0)
    rows = [
        PairItem(
            id=f"gift/own/{number}", benchmark="gift", part="own", images=(ItemImage(path=f"{number}.png"),),
            texts=tuple(f"a {''.join(luck.choices('abcdefgh', k=8))}" for _ in range(2)), gold=((1, 0),),
        )
        for number in range(80)
    ]  # fmt: skip
    verdicts = floor_verdicts(rows)[WORDS]
    assert np.mean([row.verdict.ok["text_ok"] for row in verdicts]) == pytest.approx(0.5, abs=0.15)


def test_nothing_is_learnt_from_other_items_of_the_image_that_is_asked_about() -> None:
    """All true texts of an image have its word, all false ones another: learning both would answer everything."""
    rows = [
        pair_question(("gift", "own", number), (f"{number % 20}.png",), (f"true{number % 20}", f"fake{number % 20}"),
                      ((1, 0),))
        for number in range(80)
    ]  # fmt: skip
    verdicts = floor_verdicts(rows)[WORDS]
    assert len(verdicts) == 80 and np.mean([row.verdict.ok["text_ok"] for row in verdicts]) == pytest.approx(0.5)


def test_a_wrong_answer_of_a_floor_is_the_option_it_prefers() -> None:
    """Not the first of the false options; options that look the same to it share the answer."""

    def asked(number: int, texts: tuple[str, ...], right: int) -> PairItem:
        gold = (tuple(int(place == right) for place in range(len(texts))),)
        return pair_question(("gift", "add", number), (f"{number}.png",), texts, gold)

    def answered(floor: str, items: Sequence[PairItem]) -> list[float]:
        last = floor_verdicts(items, further=[COMPARED])[floor][-1].verdict
        return [last.ok[f"mistake.{place}"] for place in range(1, 1 + len(items[-1].texts))]

    # "no" is the right word most often, then "yes".
    learnt = [asked(number, ("yes", "no", "zebra"), right) for number, right in enumerate([*[1] * 40, *[0] * 20, 2])]
    assert answered(WORDS, learnt) == [0, 1, 0]
    assert answered(SHORTER, [asked(0, ("hat", "cup", "a", "b"), 1)]) == [0, 0, 0.5, 0.5]
    options = ("a cat but no dog", "a cat", "no dog", "a dog but no cat")
    assert answered(COMPARED, [asked(0, options, 3)]) == [0, 0, 0, 0]
    assert answered(COMPARED, [asked(0, options, 0)]) == [0, 0, 0, 1]


def test_few_items_tell_nothing() -> None:
    """The shorter text is right four times of four by luck often enough; eight times of eight it is not."""
    small = benchmark(("add",))
    assert find_floors(small, items("add", 4)).text_solvable == {}
    assert find_floors(small, items("add", 8)).text_solvable == {"add": (SHORTER,)}
    # Of 43 items 30 may be luck at this level, 31 are not.
    # Of 300, 176 are none, but fewer than ten points above chance.
    for count, right, enough in ((43, 30, False), (43, 31, True), (300, 176, False)):
        pairs = items("add", count, images=9)  # Too few for words to be learnt.
        longer = [item.model_copy(update={"gold": ((0, 1),)}) for item in pairs[right:]]
        floors_of = find_floors(small, [*pairs[:right], *longer]).text_solvable
        assert floors_of == ({"add": (SHORTER,)} if enough else {}), (count, right)


def test_a_floor_that_compares_options_excludes_no_part() -> None:
    """It sees the options of a question together, which no scored model does."""
    options, gold = ("a cat but no dog", "a cat", "no dog", "a dog but no cat"), ((0, 0, 0, 1),)
    asked = [pair_question(("gift", "add", number), (f"{number}.png",), options, gold) for number in range(12)]
    floors = find_floors(replace(benchmark(("add",)), floors=(COMPARED,)), asked)
    assert floors.values[COMPARED].parts["add"][0].value == 1.0
    assert floors.text_solvable == {}


def test_one_order_of_texts_must_fit_all_images() -> None:
    assert _contradict(((1, 0), (0, 1))) and not _contradict(((1, 0, 0), (1, 1, 0)))
    pair = PairItem(
        id="gift/two/0", benchmark="gift", part="two", images=(ItemImage(path="0.png"), ItemImage(path="1.png")),
        texts=("short", "longer"), gold=((1, 0), (0, 1)),
    )  # fmt: skip
    (row,) = floor_verdicts([pair])[SHORTER]
    # Of each image alone it has an answer: the shorter text, right of the first and wrong of the second.
    alone = {"text_ok.1": 1.0, "text_ok.2": 0.0, "image_ok.1": 0.5, "image_ok.2": 0.5}
    assert row.verdict.ok == {"text_ok": 0.0, "image_ok": 0.25, "group_ok": 0.0} | alone


def test_equals_are_drawn_by_lot() -> None:
    assert _worth(np.array([[1.0, 2.0]])) == 1 and _worth(np.array([[1.0, -1.0]])) == 0
    assert _worth(np.array([[0.0]])) == 1 / 2 and _worth(np.array([[0.0, 0.0, 1.0]])) == 1 / 3
    # Two true ones and one false of one length: the false one is last in one of three orders.
    assert _worth(np.array([[0.0], [0.0]])) == pytest.approx(1 / 3)


def test_no_column_goes_without_its_floors(gift: Path, tmp_path: Path) -> None:
    result = score(gift)
    entry = result.benchmarks[0]
    assert entry.text_solvable == {"add": (SHORTER, WORDS), "word": (WORDS,)}
    scores = [*(part.scores[0] for part in entry.parts), *entry.averages]
    assert all(set(each.floors) == {SHORTER, WORDS} for each in scores)
    by_name = {each.name: each for each in scores}
    assert by_name["macro"].floors[SHORTER] == pytest.approx(2 / 3)
    assert by_name["macro.neutral"].value == by_name["swap"].value
    named = named_scores(result)
    assert named["composition"] == named["swap"] and named[TEXT_SOLVABLE] == (named["add"] + named["word"]) / 2
    save_result(result, tmp_path / "r.json")
    data = report([tmp_path / "r.json"], out=tmp_path / "report.html")
    assert [row["title"] for row in data["headline"]] == ["composition", TEXT_SOLVABLE]
    note = "add (shorter text 100.0, words only 100.0), word (words only 100.0)"
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_result(result))
    for shown in (page, text, " ".join(capture.get().split())):
        assert note in shown and "words only" in shown
    assert (
        '<tr class="floor"><th scope="row"><span>shorter text</span></th>' in page
        and "| *words only* |  | 50.0 | 100.0 |" in text
    )


def test_a_part_that_is_left_is_named_where_its_average_is_not_complete(gift: Path) -> None:
    (entry,) = score(gift).benchmarks
    lacking = entry.model_copy(update={"headline": {TEXT_SOLVABLE: "text_solvable"}})
    (note,) = floor_notes(lacking)
    assert "composition, which is not given, since of its other parts only swap is there: add (" in note
    gone = lacking.model_copy(update={"parts": tuple(part for part in entry.parts if part.name != "swap")})
    assert "no part is left: add (" in next(floor_notes(gone))


def test_floors_are_those_of_all_items_where_images_are_missing(gift: Path) -> None:
    for number in range(3, 12):
        (gift / f"{number}.png").unlink()
    result = Evaluation(["gift"], gift, allow_missing=True, progress=False).score(spreading())
    entry = result.benchmarks[0]
    assert entry.parts[0].scores[0].n == 15
    assert entry.text_solvable == {"add": (SHORTER, WORDS), "word": (WORDS,)}


def test_nothing_left_is_no_composition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(benchmark(("add",)), monkeypatch)
    paint(tmp_path, [f"{number}.png" for number in range(12)])
    result = score(tmp_path)
    assert result.benchmarks[0].headline == {TEXT_SOLVABLE: "add"}
    assert "composition" not in named_scores(result) and "macro" in named_scores(result)


def test_the_readmes_table_of_the_worlds_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "save_picture", lambda picture, file: None)
    monkeypatch.setattr(draw, "render", lambda scene: None)
    world = BENCHMARKS.load("world").BENCHMARK
    floors = find_floors(world, draw._items(tmp_path, split="test", count=1000, seed=0))
    assert floors.text_solvable == {f"{domain}/add_attribute": (SHORTER, WORDS) for domain in ("id", "ood")}
    for kind in (part.name.partition("/")[2] for part in world.parts if part.name.startswith("id/")):
        if kind == "order":  # A column of its own, no kind of composition.
            continue
        cells = [
            " / ".join(
                f"{100 * floors.values[floor].parts[f'{domain}/{kind}'][0].value:.1f}" for domain in ("id", "ood")
            )
            for floor in (SHORTER, WORDS)
        ]
        assert f"| {kind} | {cells[0]} | {cells[1]} |" in RESULTS, (kind, cells)
