"""What stands beside the scores: numbers in print, order-blind ceilings, the items that changed most."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from degla.errors import InputError
from degla.evaluation import results
from degla.evaluation.caveats import caveats_of, doubt_about
from degla.evaluation.changes import Direction, Gallery, ItemAnswers, ItemChange, ShownChange, largest_changes
from degla.evaluation.comparison import compare, floor_values, weighed_rows
from degla.evaluation.image_files import LARGEST, thumbnail
from degla.evaluation.in_print import tables_in_print
from degla.evaluation.item_difference import lead_over
from degla.evaluation.overlap import Leakage, Overlap
from degla.evaluation.report import report, result_files
from degla.evaluation.results import TracedResult, load_result, save_result
from degla.evaluation.run import Evaluation
from degla.evaluation.terminal import named_scores, render_result
from degla.pages.words import UNKNOWN
from degla.records import ItemImage, PairItem, write_jsonl
from degla.results import Result
from degla.shelf import BENCHMARKS
from degla.statistics.seeds import QuestionVariance
from tests.evaluation.fake_encoders import FakeEncoder, spread_row, spreading
from tests.evaluation.made_up import draw_result, published_scores

_FLOOR = {"activation": "none"}
"""As in the results of floors."""


def _save(folder: Path, result: Result) -> Path:
    path = folder / f"{result.model.label}-{result.training_seed}.json"
    save_result(result, path)
    return path


def _result_of(name: str, label: str, seed: int | None = None, *, parts: tuple[str, ...] = ()) -> Result:
    benchmark = BENCHMARKS.load(name).BENCHMARK
    benchmark = replace(benchmark, parts=tuple(map(benchmark.part, parts)) or benchmark.parts)
    return draw_result(label, (0.7,) * 4, seed, benchmark=benchmark, n=20)


def _world(folder: Path) -> list[Path]:
    """A baseline and a method with two seeds that moved three items, by different amounts."""
    parts = ("id/swap_noun", "id/order", "recognition/food", "retrieval/mixed")
    paths = [_save(folder, _result_of("world", "base", parts=parts))]
    moved = {"world/id/swap_noun/3": -0.5, "world/recognition/food/2": 0.3, "world/id/order/1": 0.2}
    for seed in (0, 1):
        result = _result_of("world", "tuned", seed, parts=parts)
        items = [
            row.model_copy(
                update={
                    "margin": 0.1 + moved.get(row.id, 0.0) * (0.5 + seed),
                    "ok": dict.fromkeys(row.ok, float(moved.get(row.id, 0.0) >= 0)),
                }
            )
            for row in result.items
        ]
        # A retrieval item moves most of all, and is not shown.
        items = [row.model_copy(update={"margin": 9.0}) if "@" in next(iter(row.ok)) else row for row in items]
        paths.append(_save(folder, result.model_copy(update={"items": tuple(items)})))
    return paths


def _root(folder: Path) -> Path:
    item = PairItem(
        id="world/id/swap_noun/3",
        benchmark="world",
        part="id/swap_noun",
        images=(ItemImage(path="images/id/3.png"),),
        texts=("a cat on a <hat>", "a hat on a cat"),
        gold=((1, 0),),
    )
    (folder / "images/id").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "images/id/3.png")
    write_jsonl(folder / "items.jsonl", [item])
    return folder


def test_published_rows_stand_beside_and_count_for_nothing(tmp_path: Path) -> None:
    paths = [_save(tmp_path, _result_of("sugarcrepe", label)) for label in ("one", "two")]
    data = report(paths, out=tmp_path / "with.html", baseline="one")
    without = report(paths, out=tmp_path / "without.html", baseline="one", published=False)
    assert without["published"] == []
    assert "not measured here" not in (tmp_path / "without.html").read_text()
    assert {key: data[key] for key in ("rows", "headline")} == {key: without[key] for key in ("rows", "headline")}
    for ending in ("html", "md"):
        text = (tmp_path / f"with.{ending}").read_text()
        assert re.search("ublished, not measured here", text)
        assert "arXiv 2504.16801, table 3" in text
    table = next(entry for entry in data["published"] if "table 3" in entry["source"])
    row = next(entry for entry in table["rows"] if entry["model"] == "DeGLA")
    assert row["values"] == pytest.approx(published_scores("sugarcrepe")["DeGLA, arXiv 2504.16801, table 3"])


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_best_beside_leakage_and_missing_images(tmp_path: Path) -> None:
    """278 items of 7,511, most of their images trained on: a large gain is shown, with what speaks against it."""
    sugarcrepe = BENCHMARKS.load("sugarcrepe").BENCHMARK
    paths = {}
    for label, level in (("base", 0.3), ("tuned", 0.9)):
        method = draw_result(label, (level,) * 4, None, benchmark=sugarcrepe, n=40)
        paths[label] = _save(tmp_path, method)
    clean = report(list(paths.values()), out=tmp_path / "clean.html", baseline="base", published=False)
    assert all(row["cells"]["tuned"]["gain"]["significant"] and row["cells"]["tuned"]["best"] for row in clean["rows"])
    assert 'class="up"' in (tmp_path / "clean.html").read_text()

    result = load_result(paths["tuned"], items=True)
    overlap = Overlap(benchmark="sugarcrepe", images=59, by_id=50, by_content=0, examples=("000000000139.jpg",))
    leakage = Leakage(captions=("train.json",), images=6000, overlaps=(overlap,))
    cases = {
        "trained on": result.model_copy(update={"leakage": leakage}),
        "missing": result.model_copy(
            update={"benchmarks": (result.benchmarks[0].model_copy(update={"missing_images": 1450}),)}
        ),
    }
    for reason, wrong in cases.items():
        save_result(wrong, paths["tuned"])
        data = report(list(paths.values()), out=tmp_path / "r.html", baseline="base", published=False)
        cells = [row["cells"]["tuned"] for row in (*data["rows"], *data["headline"])]
        assert not any(cell["best"] or cell["gain"]["significant"] for cell in cells)
        assert all(reason in cell["gain"]["doubt"] and cell["gain"]["value"] > 0.2 for cell in cells)
        page, text = (tmp_path / "r.html").read_text(), (tmp_path / "r.md").read_text()
        glance = page[page.index("<table") : page.index("</table>")]
        assert "<b>" not in glance and 'class="up"' not in glance and 'class="down"' not in glance
        assert f'<small class="doubt">{cells[0]["gain"]["doubt"]}' in glance
        assert "**" not in text[text.index("## At a glance") :].replace("**Bold**", "") and reason in text
    # It may also be the baseline that saw the images.
    save_result(result, paths["tuned"])
    save_result(load_result(paths["base"], items=True).model_copy(update={"leakage": leakage}), paths["base"])
    gain = compare(list(paths.values()), baseline="base").headline[0].cells["tuned"].gain
    assert gain is not None and "trained on" in gain.doubt and not gain.significant


def test_published_rows_are_of_the_same_parts(tmp_path: Path) -> None:
    result = _result_of("sugarcrepe", "one")
    entry = result.benchmarks[0]
    changes = {"add_obj": {"missing": 3}, "add_att": {"tie": "half"}, "swap_obj": {"published_n": 245}}
    parts = tuple(part.model_copy(update=changes.get(part.name, {})) for part in entry.parts)
    other = result.model_copy(update={"benchmarks": (entry.model_copy(update={"parts": parts}),)})
    table = tables_in_print(compare([_save(tmp_path, other)]))[0]
    assert set(table.measured) == {"replace_obj", "replace_att", "replace_rel", "swap_att"}
    assert tables_in_print(compare([_save(tmp_path, _result_of("world", "one"))])) == ()


def test_a_part_is_whole_though_its_own_metric_leaves_items_out(tmp_path: Path) -> None:
    """ARO's macro leaves out relations; its micro has every item, and so did the published score."""
    result = _result_of("aro", "one", parts=("vg_relation",))
    (entry,) = result.benchmarks
    macro, micro = entry.parts[0].scores
    scores = (macro.model_copy(update={"n": 15}), micro)
    for published_n, whole in ((25, True), (26, False)):
        part = entry.parts[0].model_copy(update={"scores": scores, "filtered": 5, "published_n": published_n})
        asked = entry.model_copy(update={"parts": (part,), "missing_images": 1})
        path = _save(tmp_path, result.model_copy(update={"benchmarks": (asked,)}))
        warnings = list(caveats_of([("one", load_result(path))]))
        assert not any("0 of 15" in warning for warning in warnings) and any("0 of 20" in each for each in warnings)
        assert any("the files have 25 items, the published ones 26" in warning for warning in warnings) is not whole
        assert [set(table.measured) for table in tables_in_print(compare([path]))] == [{"vg_relation"}] * 2 * whole


def test_ceilings_below_one_are_shown(tmp_path: Path) -> None:
    result = _result_of("colorswap", "one")
    entry = result.benchmarks[0]
    for ceiling, shown in ((12 / 300, True), (1.0, False), (1 - 1e-15, False), (None, False)):
        scores = tuple(score.model_copy(update={"ceiling": ceiling}) for score in entry.parts[0].scores)
        part = entry.parts[0].model_copy(update={"scores": scores})
        result_with_ceiling = result.model_copy(update={"benchmarks": (entry.model_copy(update={"parts": (part,)}),)})
        path = _save(tmp_path, result_with_ceiling)
        assert [row.ceiling for row in compare([path]).rows if row.kind == "part"] == [ceiling] * 3
        report([path], out=tmp_path / "r.html")
        page, text = (tmp_path / "r.html").read_text(), (tmp_path / "r.md").read_text()
        assert ("order-blind ceiling 4.0" in page) == ("| order-blind ceiling |" in text) == shown
        assert ("rder-blind ceiling: the best score" in page) == ("rder-blind ceiling: the best" in text) == shown
        console = Console(width=200, record=True, file=StringIO())
        console.print(render_result(load_result(path)))
        assert ("order-blind" in console.export_text()) == shown


def test_a_ceiling_of_one_tie_rule_is_not_that_of_two(tmp_path: Path) -> None:
    """A part has a row for each rule; an average has one for both."""
    result = _result_of("sugarcrepe", "strict")
    (entry,) = result.benchmarks
    averages = tuple(score.model_copy(update={"ceiling": 0.5}) for score in entry.averages)
    strict = entry.model_copy(update={"averages": averages})
    parts = tuple(part.model_copy(update={"tie": "lenient"}) for part in entry.parts)
    lenient = strict.model_copy(update={"parts": parts})
    paths = [
        _save(
            tmp_path,
            result.model_copy(
                update={"benchmarks": (each,), "model": result.model.model_copy(update={"label": label})}
            ),
        )
        for label, each in (("strict", strict), ("lenient", lenient))
    ]
    for files, ceiling in ((paths[:1], 0.5), (paths, None)):
        assert {row.ceiling for row in compare(files).rows if row.kind == "average"} == {ceiling}


def test_items_that_changed_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _world(tmp_path)
    changes = largest_changes(compare(paths, baseline="base"))["tuned"]
    assert [(change.id, round(change.change, 6)) for change in changes] == [
        ("world/id/swap_noun/3", -0.5),
        ("world/recognition/food/2", 0.3),
        ("world/id/order/1", 0.2),
    ]
    assert (changes[0].after.right, changes[0].after.seeds, changes[0].before.seeds) == (0, 2, 1)
    assert changes[0].after.words == "wrong" and replace(changes[0].after, right=1).words == "right in 1 of 2 seeds"
    assert changes[1].true == ("2",)
    monkeypatch.setattr("degla.evaluation.changes.COUNT", 2)
    assert largest_changes(compare(paths, baseline="base")) == {"tuned": changes[:2]}
    assert largest_changes(compare(paths)) == {}
    # One of the seeds was asked other questions.
    result = load_result(paths[1], items=True)
    entry = result.benchmarks[0].model_copy(update={"items_sha256": "b" * 64})
    save_result(result.model_copy(update={"benchmarks": (entry,)}), paths[1])
    assert largest_changes(compare(paths, baseline="base")) == {}


def test_a_gallery_shows_what_was_fixed_and_what_was_broken(tmp_path: Path) -> None:
    paths = _world(tmp_path)
    ids = ["world/id/swap_noun/3", "world/recognition/food/2", "world/id/order/1"]
    # The third ties in one of two seeds, which is not right: no more than half are, before and after.
    for path, right in ((paths[0], (1.0, 0.0, 0.0)), (paths[1], (0.0, 1.0, 0.5)), (paths[2], (0.0, 1.0, 1.0))):
        result, worth = load_result(path, items=True), dict(zip(ids, right, strict=True))
        items = [row.model_copy(update={"ok": dict.fromkeys(row.ok, worth.get(row.id, 1.0))}) for row in result.items]
        save_result(result.model_copy(update={"items": tuple(items)}), path)
    gallery = Gallery(paths)
    assert (gallery.baseline, gallery.labels, list(gallery.benchmarks)) == ("base", ("tuned",), ["world"])
    shown: dict[Direction, list[str]] = {"all": ids, "fixed": ids[1:2], "broken": ids[:1]}
    for direction, wanted in shown.items():
        changes, count = gallery.items("tuned", benchmark="world", direction=direction, count=9, side=64)
        assert ([change.id for change in changes], count) == (wanted, len(wanted))
    first, count = gallery.items("tuned", count=1, side=64)
    assert (first[0].id, len(first), count) == (ids[0], 1, 3)
    assert gallery.items("tuned", benchmark="sugarcrepe", count=9, side=64) == ((), 0)


def test_an_answer_is_right_by_its_parts_own_score(tmp_path: Path) -> None:
    """Of two images and two texts, the right text of each image is not both ways."""
    paths = []
    for label, image in (("base", 0.0), ("tuned", 1.0)):
        result = _result_of("colorswap", label)
        ok = {"text_ok": 1.0, "image_ok": image, "group_ok": image}
        items = [row.model_copy(update={"ok": ok, "margin": image}) for row in result.items]
        paths.append(_save(tmp_path, result.model_copy(update={"items": tuple(items)})))
    changes, count = Gallery(paths).items("tuned", direction="fixed", count=1, side=64)
    assert count == 20 and (changes[0].before.right, changes[0].after.right) == (0, 1)


def test_questions_with_a_verdict_of_the_first_few_are_shown_too(tmp_path: Path) -> None:
    """CREPE also asks if the true text is among the first three, as retrieval does, but of one image's own texts."""
    paths = []
    for label, margin in (("base", 0.1), ("tuned", 0.2)):
        result = _result_of("crepe", label)
        items = [row.model_copy(update={"margin": margin}) for row in result.items]
        assert any("text_ok@3" in row.ok for row in items)
        paths.append(_save(tmp_path, result.model_copy(update={"items": tuple(items)})))
    assert Gallery(paths).items("tuned", count=1, side=64)[1] == len(items)


def test_page_shows_texts_and_pictures_where_they_are(tmp_path: Path) -> None:
    paths, root = _world(tmp_path), _root(tmp_path / "root")
    (root / "recognition").mkdir()
    report(paths, out=tmp_path / "bare.html", baseline="base")
    bare = (tmp_path / "bare.html").read_text()
    assert "What changed most" in bare
    assert "<img" not in bare and "run degla report with --root FOLDER" in bare
    # The root lacks the recognition files: what was read before is not lost, and the page is written.
    report(paths, out=tmp_path / "full.html", baseline="base", root=root)
    full = (tmp_path / "full.html").read_text()
    assert full.count("<img") == 1 and "--root FOLDER" not in full
    assert all(len(address) <= LARGEST for address in re.findall(r"base64,([^\"]+)", full))
    assert "a cat on a &lt;hat&gt;" in full
    assert "a hat on a cat" in (tmp_path / "full.md").read_text()


def test_a_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The page advised to give a root although one was given."""
    comparison = compare(_world(tmp_path), baseline="base")
    with pytest.raises(InputError, match="nowhere: no such folder of the benchmarks' data"):
        largest_changes(comparison, root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="s3://b/x: benchmarks are read from a local folder"):
        largest_changes(comparison, root=Path("s3://b/x"))


def test_an_item_about_another_image_is_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths, root = _world(tmp_path), _root(tmp_path / "root")
    (row,) = (root / "items.jsonl").read_text().splitlines()
    (root / "items.jsonl").write_text(row.replace("images/id/3.png", "images/id/4.png") + "\n")
    (root / "images/id/3.png").rename(root / "images/id/4.png")
    (change, *_) = largest_changes(compare(paths, baseline="base"), root=root)["tuned"]
    assert (change.image, change.true, change.thumbnail) == ("images/id/3.png", (), "")
    assert "world/id/swap_noun/3: the item with this name" in caplog.text


@pytest.mark.parametrize(("count", "note"), [(3, None), (4, "and 1 more")])
def test_a_card_shows_three_false_texts_and_counts_the_others(count: int, note: str | None) -> None:
    answers = ItemAnswers(0.1, 1, 1)
    false = tuple(f"text {number}" for number in range(count))
    card = ShownChange(ItemChange("i", "b", "p", "x", 0.1, answers, answers, ("true",), false), "").__html__()
    assert card.count("text ") == 3 and re.findall("and . more", card) == [note] * bool(note)


def test_texts_of_another_version_are_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "own/images").mkdir(parents=True)
    rows = [{"image": f"{at}.png", "caption": f"a {at} cat", "negative": f"no {at} cat"} for at in range(4)]
    write = (tmp_path / "own/rows.jsonl").write_text
    write("".join(json.dumps(row) + "\n" for row in rows))
    for at in range(3):  # One image is not there.
        Image.new("RGB", (8, 8), (80 * at, 0, 0)).save(tmp_path / f"own/images/{at}.png")
    paths = []
    for label in ("base", "tuned"):
        text_row = lambda tokens, label=label: spread_row(f"{label}{tokens}".encode(), 24)  # noqa: E731
        model = FakeEncoder(spreading().image_row, text_row, name=label)
        paths.append(_save(tmp_path, Evaluation(["own"], tmp_path, allow_missing=True, progress=False).score(model)))

    def texts() -> set[tuple[str, ...]]:
        changes = largest_changes(compare(paths, baseline="base"), root=tmp_path)["tuned"]
        assert len(changes) == 3 and all(change.thumbnail for change in changes)
        return {change.true for change in changes}

    caplog.clear()
    assert texts() == {(f"a {at} cat",) for at in range(3)} and not caplog.records
    write("".join(json.dumps(row) + "\n" for row in rows).replace("a 1 cat", "a 1 dog"))
    assert texts() == {()}
    assert f"no texts of own: the files under {tmp_path} differ from those evaluated" in caplog.text


def test_missing_or_damaged_verdicts(tmp_path: Path) -> None:
    paths = _world(tmp_path)
    items = tmp_path / "tuned-1.items.jsonl"
    items.write_text("".join(items.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"tuned-1\.items\.jsonl: has \d+ items, but tuned-1\.json was made from"):
        largest_changes(compare(paths, baseline="base"))
    items.unlink()
    assert largest_changes(compare(paths, baseline="base")) == {}


def test_thumbnails_stay_small_and_inside(tmp_path: Path) -> None:
    root = _root(tmp_path / "root")
    (root / "broken.png").write_bytes(b"no picture")
    (tmp_path / "outside.png").write_bytes((root / "images/id/3.png").read_bytes())
    whole = thumbnail(ItemImage(path="images/id/3.png"), root=root)
    cut = thumbnail(ItemImage(path="images/id/3.png", crop=(0, 0, 20, 20)), root=root)
    assert whole is not None
    assert cut is not None
    assert whole != cut
    for path in ("broken.png", "none.png", "../outside.png", str(tmp_path / "outside.png")):
        assert thumbnail(ItemImage(path=path), root=root) is None


@pytest.mark.usefixtures("undrawn")
def test_the_joint_score_names_its_benchmarks_where_there_are_several(tmp_path: Path) -> None:
    paths = []
    for label in ("base", "tuned"):
        one, other = (_result_of(name, label) for name in ("winoground", "retrieval"))
        joined = {"benchmarks": one.benchmarks + other.benchmarks, "items": one.items + other.items}
        paths.append(_save(tmp_path, one.model_copy(update=joined)))
    report(paths, out=tmp_path / "report.html", baseline="base", published=False)
    title = "composition (Winoground) gained minus retrieval (Image-text retrieval) lost"
    assert title in (tmp_path / "report.html").read_text()
    text = (tmp_path / "report.md").read_text()
    assert "italics); where there is no difference, the 95 % interval over items, for one seed." in text
    assert f"Joint: {title}." in text and "gains and losses against **base**" in text
    # One that was asked for composition alone has no joint score, nor one of which no seed was asked for both.
    halves = [_save(tmp_path, _result_of("winoground", "half"))]
    halves += [
        _save(tmp_path, _result_of(name, "apart", seed)) for seed, name in enumerate(("winoground", "retrieval"))
    ]
    half = compare([*paths, *halves], baseline="base").joint
    assert half is not None and list(half.methods) == ["tuned"]
    report([*paths, *halves], out=tmp_path / "half.html", baseline="base", published=False)
    glance = (tmp_path / "half.md").read_text().split("| joint |")[1]
    joints = dict(re.findall(r"^\| (\w+) \|.* \| ([^|]*) \|$", glance.split("\n\n")[0], re.MULTILINE))
    assert (joints["base"], joints["half"], joints["apart"]) == ("0", UNKNOWN, UNKNOWN) and joints["tuned"][0] in "+−0"
    report(paths[:1], out=tmp_path / "report.html", baseline="base", published=False)
    assert "against" not in (tmp_path / "report.md").read_text().split("## Every part")[0].split("**Bold**")[0]


def test_what_a_blind_model_answers_is_named_where_it_is_above_chance() -> None:
    sugarcrepe = BENCHMARKS.load("sugarcrepe").BENCHMARK
    result = draw_result("blind", (0.9, 0.5, 0, 0), None, benchmark=sugarcrepe, n=100)
    floor = result.model_copy(update={"model": result.model.model_copy(update=_FLOOR | {"name": "blind"})})
    (warning,) = caveats_of([], floors=[("blind", floor)])
    assert "replace_rel 91 % (chance 50 %) and 2 more parts." in warning and "swap" not in warning


def test_a_name_of_two_benchmarks_is_of_the_first() -> None:
    one, other = (_result_of(name, "one") for name in ("sugarcrepe", "sugarcrepe_pp"))
    for first, second in ((one, other), (other, one)):
        both = first.model_copy(update={"benchmarks": (*first.benchmarks, *second.benchmarks)})
        assert named_scores(both) == named_scores(second) | named_scores(first)
    assert named_scores(one)["swap_obj"] != named_scores(other)["swap_obj"]


def test_a_column_of_each_benchmark_is_filled_by_its_own_average(tmp_path: Path) -> None:
    both = [_result_of(name, "base") for name in ("winoground", "sugarcrepe")]
    one, other = (each.benchmarks[0] for each in both)
    other = other.model_copy(update={"items_sha256": "b" * 64})
    path = _save(tmp_path, both[0].model_copy(update={"benchmarks": (one, other), "items": ()}))
    comparison = compare([path])
    # Two benchmarks ask two things, which is no reason to warn.
    assert not any("same questions" in warning for warning in comparison.warnings)
    names = {(row.benchmark, row.title): row.name for row in comparison.headline}
    wanted = {(name, column): source for name in ("winoground", "sugarcrepe")
              for column, source in BENCHMARKS.load(name).BENCHMARK.headline.items()}  # fmt: skip
    assert names == wanted and len({names[name, "composition"] for name in ("winoground", "sugarcrepe")}) == 2


def test_recognition_is_weighed_before_retrieval_of_whatever_benchmark(tmp_path: Path) -> None:
    """NegBench has retrieval beside its composition; what is recognised is asked by another benchmark."""
    row = compare([_save(tmp_path, _result_of("winoground", "base"))]).headline[0]
    composition, retrieval, recognition, other = (
        replace(row, title=title, benchmark=benchmark)
        for title, benchmark in (
            ("composition", "negbench"), ("retrieval", "negbench"), ("recognition", "zeroshot"),
            ("composition", "world"),
        )
    )  # fmt: skip
    own = replace(other, title="recognition")
    rows = [composition, retrieval, recognition]
    assert weighed_rows(rows) == [(composition, recognition)] and weighed_rows(rows[:2]) == [(composition, retrieval)]
    assert weighed_rows([*rows, other, own]) == [(composition, recognition), (other, own)]
    assert weighed_rows([composition]) == []


def test_each_result_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty benchmarks of ten models would be a gigabyte of verdicts, read twenty times."""
    for label in ("base", "tuned"):
        one, other = (_result_of(name, label) for name in ("winoground", "cola"))
        joined = {"benchmarks": one.benchmarks + other.benchmarks, "items": one.items + other.items}
        os.utime(_save(tmp_path, one.model_copy(update=joined)), (0, 0))
    names: list[str] = []
    numbers, verdicts = results.read_json, results.read_items
    monkeypatch.setattr(results, "read_json", lambda path, **how: (names.append(path.name), numbers(path, **how))[1])
    monkeypatch.setattr(results, "read_items", lambda path, *how: (names.append(path.stem), verdicts(path, *how))[1])
    report(result_files([tmp_path]), out=tmp_path / "report.html", baseline="base")
    assert sorted(names) == ["base-None", "base-None.json", "tuned-None", "tuned-None.json"]


def test_other_results_in_a_folder_are_left_out(tmp_path: Path) -> None:
    """The documentation writes those of attacks and of explanations beside those of evaluations."""
    path = _save(tmp_path, _result_of("winoground", "base"))
    attack = tmp_path / "attack.json"
    attack.write_text('{"models": [{"schema_version": 1}]}')
    assert result_files([tmp_path, path]) == [path] and result_files([attack]) == [attack]
    for text in ("{", '{"of": "another program"}'):
        (tmp_path / "torn.json").write_text(text)
        with pytest.raises(InputError, match=r"torn\.json"):
            result_files([tmp_path])


def test_results_of_a_study_are_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    models = ["base", "tuned [lr 1e-5]", "alpha", "alpha [b]"]
    labels = [
        "base",
        "tuned [lr 1e-5]",
        "tuned [lr 1e-5] [other scenes]",
        "alpha",
        "alpha [other scenes]",
        "alpha [b]",
        "later",
    ]
    paths = [_save(folder, _result_of("winoground", label)) for label in labels]
    assert result_files([folder]) == sorted(paths)
    study = tmp_path / "study.json"
    study.write_text(json.dumps({"models": [{"label": label} for label in models]}))
    monkeypatch.chdir(folder)
    for each in (folder, Path()):
        assert [load_result(path).model.label for path in result_files([each])] == labels
    for text in ("{", "[]", '{"models": [1]}', '{"models": [{"label": []}]}'):  # Of another program.
        study.write_text(text)
        assert result_files([folder]) == sorted(paths)


def test_one_model_in_two_files_is_refused_with_what_to_do(tmp_path: Path) -> None:
    paths = [_save(tmp_path, _result_of("winoground", "base")), tmp_path / "again.json"]
    save_result(_result_of("winoground", "base"), paths[1])
    with pytest.raises(InputError, match="each method its own label"):
        compare(paths)
    save_result(_result_of("retrieval", "base"), paths[1])
    with pytest.raises(InputError, match="name all of them in one degla evaluate call"):
        compare(paths)


def test_floors_say_what_they_answer_where_they_stand(tmp_path: Path) -> None:
    """Rows called `random` and `blind` stood below the first table without a word of what they are."""
    paths = [_save(tmp_path, _result_of("winoground", label)) for label in ("base", "eyeless", "dice")]
    for path, name in zip(paths[1:], ("blind", "random:3"), strict=True):
        result = load_result(path, items=True)
        save_result(result.model_copy(update={"model": result.model.model_copy(update=_FLOOR | {"name": name})}), path)
    report(paths, out=tmp_path / "report.html", published=False)
    glance, parts = (tmp_path / "report.md").read_text().split("## Every part")
    for section in (glance, parts):
        assert "eyeless: the shorter text; dice: a random direction for each image and text." in section
        assert "words only" not in section and "does not count" not in section
    # One that gains are counted from is a method.
    against = compare(paths, baseline="eyeless")
    assert [method.label for method in against.methods] == ["eyeless", "base"]
    assert [floor.label for floor in against.floors] == ["dice"]
    assert all(row.cells["base"].gain is not None for row in against.rows)
    # What a floor answered to other questions stands beside no score.
    dice = load_result(paths[2], items=True)
    others = tuple(entry.model_copy(update={"items_sha256": "b" * 64}) for entry in dice.benchmarks)
    save_result(dice.model_copy(update={"benchmarks": others}), paths[2])
    assert {name for row in compare(paths).rows for name in row.floors} == {"eyeless"}


def test_ties_of_a_floor_without_sight_are_no_news() -> None:
    """Their rule would be untrue, and neither word order nor precision is their cause."""
    drawn = _result_of("winoground", "clip")
    for name, shown in (("blindfold", True), ("blind", False), ("blind:gpt2", False)):
        result = TracedResult(**dict(drawn) | {"model": drawn.model.model_copy(update=_FLOOR | {"name": name})})
        assert any("tie exactly" in sentence for sentence in caveats_of([("clip", result)])) == shown


@pytest.mark.parametrize(("ties", "shown"), [(20, True), (19, False)])
def test_too_few_ties_to_change_a_printed_score_are_no_news(ties: int, shown: bool) -> None:
    """A card warned of one tie among 19,760 items."""
    drawn = _result_of("winoground", "ce-clip")
    (entry,) = drawn.benchmarks
    first, *scores = entry.parts[0].scores
    part = entry.parts[0].model_copy(update={"scores": (first.model_copy(update={"ties": ties, "n": 20_000}), *scores)})
    entry = entry.model_copy(update={"parts": (part,)})
    result = TracedResult(**dict(drawn) | {"benchmarks": (entry,)})
    assert any("tie exactly" in sentence for sentence in caveats_of([("ce-clip", result)])) == shown


def test_a_floor_is_the_mean_of_its_seeds() -> None:
    dice = [draw_result("dice", (level,) * 4, None, benchmark=BENCHMARKS.load("winoground").BENCHMARK, n=20)
            for level in (0.2, 0.8)]  # fmt: skip
    first, second = (result.benchmarks[0].parts[0] for result in dice)
    questions = {dice[0].benchmarks[0].items_sha256}
    values = floor_values({"dice": dice}, "winoground", questions=questions)
    key = ("part", first.name, first.scores[0].metric, first.family, first.tie)
    assert first.scores[0].value < second.scores[0].value
    assert values[key] == {"dice": pytest.approx((first.scores[0].value + second.scores[0].value) / 2)}
    assert floor_values({"dice": dice}, "winoground", questions={"of others"}) == {}


def test_any_result_with_seen_or_missing_images_of_the_benchmark_is_a_doubt() -> None:
    drawn = draw_result("one", (0.5,) * 4, None, benchmark=BENCHMARKS.load("winoground").BENCHMARK, n=20)
    clean = TracedResult(**drawn.model_dump())
    overlap = Overlap(benchmark="winoground", images=9, by_id=1, by_content=0, examples=("a.jpg",))
    leaked = clean.model_copy(update={"leakage": Leakage(captions=("c.json",), images=5, overlaps=(overlap,))})
    entry = clean.benchmarks[0].model_copy(update={"missing_images": 3})
    lacking = clean.model_copy(update={"benchmarks": (entry,)})
    enough = QuestionVariance(0.01, 100, 50, None)
    for wrong, reason in ((leaked, "trained on"), (lacking, "missing")):
        for both in ([wrong, clean], [clean, wrong]):
            assert reason in doubt_about(enough, both, {"winoground"})
            assert doubt_about(enough, both, {"sugarcrepe"}) == ""


def test_ties_are_the_most_of_any_seed(tmp_path: Path) -> None:
    paths = []
    for seed, ties in enumerate((1, 3, 2)):
        result = _result_of("winoground", "one", seed)
        entry = result.benchmarks[0]
        scores = tuple(score.model_copy(update={"ties": ties}) for score in entry.parts[0].scores)
        parts = (entry.parts[0].model_copy(update={"scores": scores}), *entry.parts[1:])
        counted = entry.model_copy(update={"parts": parts})
        paths.append(_save(tmp_path, result.model_copy(update={"benchmarks": (counted,)})))
    assert compare(paths).rows[0].cells["one"].ties == 3


def test_nothing_is_best_that_leads_all_but_one(tmp_path: Path) -> None:
    sugarcrepe = BENCHMARKS.load("sugarcrepe").BENCHMARK
    high, low = (draw_result("one", (level,) * 4, None, benchmark=sugarcrepe, n=40) for level in (0.9, 0.3))
    methods = [
        result.model_copy(update={"model": result.model.model_copy(update={"label": label})})
        for label, result in (("one", high), ("same", high), ("low", low))
    ]
    paths = [_save(tmp_path, result) for result in methods]
    assert not any(cell.best for row in compare(paths).rows for cell in row.cells.values())
    assert compare([paths[0], paths[2]]).headline[0].cells["one"].best


def test_averages_under_two_tie_rules_are_not_compared(tmp_path: Path) -> None:
    """Half of each tie against none of it would be a gain that no model made."""
    pair = [_result_of("winoground", label) for label in ("base", "tuned")]
    (entry,) = pair[1].benchmarks
    parts = tuple(part.model_copy(update={"tie": "half"}) for part in entry.parts)
    other = pair[1].model_copy(update={"benchmarks": (entry.model_copy(update={"parts": parts}),)})
    comparison = compare([_save(tmp_path, pair[0]), _save(tmp_path, other)], baseline="base")
    averages = [row for row in comparison.rows if row.kind == "average"]
    assert averages and all(set(row.cells) == {"base", "tuned"} and not row.comparable for row in averages)
    assert all(cell.gain is None and not cell.best for row in comparison.rows for cell in row.cells.values())
    assert "under different tie rules" in " ".join(comparison.warnings)


def test_seeds_that_answered_other_questions_have_no_interval_over_questions(tmp_path: Path) -> None:
    pair = [_result_of("winoground", "base", seed) for seed in (0, 1)]
    alike = compare([_save(tmp_path, result) for result in pair]).headline[0].cells["base"].interval
    assert alike is not None and alike.method == "t over 2 seeds and questions"
    items = tuple(row.model_copy(update={"id": f"{row.id}-other"}) for row in pair[1].items)
    paths = [tmp_path / "base-0.json", _save(tmp_path, pair[1].model_copy(update={"items": items}))]
    apart = compare(paths).headline[0].cells["base"].interval
    assert apart is not None and apart.method == "t over 2 seeds"


def test_a_lead_is_only_paired_over_the_same_items_drawn_with_the_same_images(tmp_path: Path) -> None:
    results = [_result_of("winoground", label) for label in ("one", "other")]
    key, paths = ("winoground", ("object", "group")), [_save(tmp_path, result) for result in results]
    first = results[1].items[0]
    assert lead_over([key], paths[:1], paths[1:]) is not None
    for odd in ({"id": f"{first.id}-x"}, {"same_as": results[1].items[1].image}):
        items = (first.model_copy(update=odd), *results[1].items[1:])
        path = _save(tmp_path, results[1].model_copy(update={"items": items, "training_seed": 1}))
        assert lead_over([key], paths[:1], [path]) is None and lead_over([key], paths[:1], [paths[1], path]) is None


def test_half_precision_is_not_reported_to_move_scores_by_points(tmp_path: Path) -> None:
    paths = [_save(tmp_path, _result_of("winoground", label)) for label in ("base", "half")]
    result = load_result(paths[1], items=True)
    update = {"precision": "bf16", "activation": "gelu"}
    save_result(result.model_copy(update={"model": result.model.model_copy(update=update)}), paths[1])
    warnings = {warning.partition(":")[0]: warning for warning in compare(paths).warnings}
    assert "by up to 0.6 points" in warnings["The results differ in the precision"]
    assert "This can change scores by points" in warnings["The results differ in the activation function"]
