"""`degla study --rehearse`: with no files, with some files; every cell of the published tables is marked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from degla.cli import main
from degla.data.columns import Columns
from degla.data.sources import read_captions
from degla.errors import InputError
from degla.evaluation.data_sets import NAMES, data_set
from degla.evaluation.in_print import published_tables
from degla.evaluation.questions import ask
from degla.evaluation.results import ModelProvenance, Result, items_name, save_result
from degla.model.load import load_encoder
from degla.records import PairItem
from degla.results import BenchmarkResult, PartResult, Score
from degla.shelf import BENCHMARKS
from degla.study.conduct import _jobs, conduct
from degla.study.grid import expand
from degla.study.jobs import Job, Measure, StudyQuestions
from degla.study.materials import CurrentQuestions, digest_questions, prepare
from degla.study.plan import Plan, read_plan
from degla.study.record import RehearsalRecord, RehearsedPart, load_study
from degla.study.rehearsal import plan as rehearsal_plan
from degla.study.rehearsal.made import draw_image
from degla.study.rehearsal.plan import lay_pairs
from degla.study.rehearsal.questions import lay_questions
from degla.study.study import _kind
from tests.official import write_own
from tests.tiny import write_pairs, write_small_world

PAPER = Path(__file__).parents[2] / "docs" / "studies" / "plans" / "paper.yaml"
NEEDED = ("sugarcrepe", "valse", "aro", "zeroshot")


def _kinds(parts: list[RehearsedPart]) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for part in parts:
        kinds.setdefault(part.benchmark, set()).add(part.kind)
    return kinds


def test_without_options_every_part_is_scored_in_its_official_form(tmp_path: Path) -> None:
    root = tmp_path / "root"
    parts = lay_questions((*NEEDED, "retrieval"), at_hand=tmp_path / "nothing", root=root)
    assert _kinds(parts) == {name: {"made"} for name in (*NEEDED, "retrieval")}
    for name in (*NEEDED, "retrieval"):
        benchmark = BENCHMARKS.load(name).BENCHMARK
        questions = ask(benchmark, root, allow_missing=True)
        wanted = {part.name for part in benchmark.parts if part.n is not None or part.name in NAMES}
        assert set(questions.counts) == wanted == {part.part for part in parts if part.benchmark == name}
        assert not questions.absent
    # The filter of VALSE has something to leave out, and each of ARO's pairs of attributes is large enough.
    assert set(ask(BENCHMARKS.load("valse").BENCHMARK, root, allow_missing=True).filtered.values()) == {1}
    first = next(iter(BENCHMARKS.load("sugarcrepe").BENCHMARK.items(root)))
    assert isinstance(first, PairItem) and first.texts[0] != first.texts[1]


def test_classes_are_those_of_the_data_sets(tmp_path: Path) -> None:
    lay_questions(("zeroshot",), at_hand=tmp_path / "nothing", root=tmp_path)
    for entry in BENCHMARKS.load("zeroshot").BENCHMARK.items(tmp_path):
        classes = data_set(entry.part).classes
        assert len(set(entry.labels)) == min(6, len(classes)) and max(entry.labels) == len(classes) - 1
        assert entry.classes == tuple(classes.values())


def test_the_same_is_laid_at_any_time_so_that_nothing_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for hour in ("one", "two"):
        monkeypatch.setattr("time.asctime", lambda *_, hour=hour: hour)
        lay_questions(("zeroshot",), at_hand=tmp_path / "nothing", root=tmp_path / hour)
        digests.add(digest_questions(("zeroshot",), tmp_path / hour))
    assert len(digests) == 1


def test_what_is_at_hand_is_used_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    at_hand = write_own(tmp_path / "data")
    dogs = at_hand / "zeroshot" / "dtd" / "test" / "banded"
    dogs.mkdir(parents=True)
    for number in range(30):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(dogs / f"{number}.png")
    # The photographs of one piece of VALSE are missing, and one file of SugarCrepe.
    shutil.rmtree(at_hand / "swig", ignore_errors=True)
    (at_hand / "sugarcrepe" / "add_att.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in at_hand.rglob("*")}
    parts = lay_questions(NEEDED, at_hand=at_hand, root=tmp_path / "root")
    kinds = {(part.benchmark, part.part): part.kind for part in parts}
    assert kinds["sugarcrepe", "replace_obj"] == "items" and kinds["sugarcrepe", "add_att"] == "made"
    assert kinds["valse", "existence"] == "items" and kinds["valse", "actant-swap"] == "pictures"
    assert kinds["zeroshot", "dtd"] == "items" and kinds["zeroshot", "pets"] == "made"
    assert kinds["aro", "vg_relation"] == "made"
    assert before == {path: path.stat().st_mtime_ns for path in at_hand.rglob("*")}
    questions = ask(BENCHMARKS.load("valse").BENCHMARK, tmp_path / "root", allow_missing=True)
    assert {entry.part for entry in questions.entries} == {part.part for part in parts if part.benchmark == "valse"}
    # 24 of the 30 images, in the published layout.
    listed = tmp_path / "root" / "zeroshot" / "dtd" / "dtd" / "dtd" / "labels" / "test1.txt"
    assert len(listed.read_text().split()) == 24


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("winoground", "has no file of Winoground, and a rehearsal can generate files only for sugarcrepe, .*"),
        ("own", "Get them from captions of your own, by degla negatives or by hand, or remove own from"),
        ("world", "is drawn, not read from official files, so it cannot be rehearsed. Remove world from the plan"),
    ],
)
def test_a_benchmark_that_cannot_be_made_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lay_questions((name,), at_hand=tmp_path / "nothing", root=tmp_path / "root")


def test_pairs_are_the_plans_own_or_those_at_hand_or_drawn(tmp_path: Path) -> None:
    drawn = lay_pairs(Path("none.json"), Path("none"), format="auto", at_hand=Path("none"), folder=tmp_path / "drawn")
    assert drawn.origin == "64 drawn pairs" and drawn.captions.name == "captions_train2014.json"
    content = json.loads(drawn.captions.read_text())
    assert len(content["images"]) == 32 and len(list(drawn.images.iterdir())) == 32
    # Drawn pairs as the plan's own, with one image missing.
    (drawn.images / content["images"][0]["file_name"]).unlink()
    again = lay_pairs(drawn.captions, drawn.images, format="coco", at_hand=Path("none"), folder=tmp_path / "own")
    assert again.origin == f"62 pairs of {drawn.captions}" and again.images == drawn.images
    # With all columns of the plan's own captions: some recipes read nothing else.
    units = tmp_path / "units.jsonl"
    row = {
        "id": "0",
        "image": content["images"][1]["file_name"],
        "text": "a dog",
        "image_id": "1",
        "concepts": ["a dog"],
    }
    units.write_text(json.dumps(row) + "\n")
    brought = lay_pairs(units, drawn.images, format="auto", at_hand=Path("none"), folder=tmp_path / "brought")
    assert json.loads(brought.captions.read_text()) == row
    root = tmp_path / "root"
    shutil.copytree(drawn.images, root / "coco" / "val2017")
    (root / "coco" / "annotations").mkdir()
    shutil.copy(drawn.captions, root / "coco" / "annotations" / "captions_val2017.json")
    pairs = lay_pairs(Path("none"), Path("none"), format="auto", at_hand=root, folder=tmp_path / "found")
    assert pairs.origin.startswith("62 pairs of ") and pairs.images == root / "coco" / "val2017"


def test_the_papers_plan_is_rehearsed_and_its_page_has_every_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal_plan, "MODEL", str(write_small_world(tmp_path / "small")))
    values = yaml.safe_load(PAPER.read_text())
    values["arms"] = [arm for arm in values["arms"] if arm["recipe"] == "degla"]
    values["printed"] = {label: values["printed"][label] for label in ("base", "degla")}
    plan = tmp_path / "paper.yaml"
    plan.write_text(yaml.safe_dump(values, sort_keys=False))
    out = tmp_path / "out"
    words = ["study", str(plan), "--out", str(out), "--rehearse", "--set", "seeds=1", "--processes", "1"]
    assert main(words) == 0
    record = load_study(out / "study.json")
    assert record.rehearsal is not None and record.rehearsal.base == "ViT-B-32-quickgelu:openai"
    assert record.rehearsal.negatives == "made by the plan's rules" and record.rehearsal.pairs == "64 drawn pairs"
    page = (out / "study.md").read_text()
    assert "A rehearsal: 4 steps of 8 pairs on the small model" in page and "## The published tables, rehearsed" in page
    tables = [table for table in published_tables() if table.source.startswith("arXiv 2504.16801")]
    assert len(tables) == 4
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in page.splitlines() if "here:" in line}
    assert set(cells) == {"here: base", "here: degla"}
    for table in tables:
        columns = list(dict.fromkeys(column for row in table.row for column in row.percents))
        start = page.index(f"**{table.title}**. {table.source}")
        block = page[start:].split("\n\n")[1]
        own = [line.split("|")[2:-1] for line in block.splitlines() if "here:" in line]
        assert len(own) == 2 and all(len(row) == len(columns) for row in own)
        assert all(re.fullmatch(r" \d+\.\d °°° ", cell) for row in own for cell in row), table.title
    # Every row of every table, whether it is run or not.
    assert all(f"| {row.model}" in page for table in tables for row in table.row)
    assert "here: degla" in (out / "study.html").read_text()
    assert main(["study", str(plan), "--out", str(out), "--list"]) == 0
    assert "degla, seed 0" in capsys.readouterr().out


@pytest.mark.parametrize(("arm", "origin"), [("clip", "made by the plan's rules"), ("negclip", "")])
def test_negatives_that_every_arm_brings_are_not_listed_as_made(tmp_path: Path, arm: str, origin: str) -> None:
    own = {"data.negatives": str(write_pairs(tmp_path / "own")["negatives"])}
    plan = _plan(tmp_path, {"recipe": "degla"} | own, {"recipe": arm} | ({} if origin else own))
    assert rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")[1].negatives == origin


def test_a_photograph_that_came_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand = write_own(tmp_path / "data")
    photograph = min((at_hand / "coco" / "val2017").iterdir())
    plan = _plan(tmp_path, {"recipe": "clip"}, benchmarks={"names": ["sugarcrepe"], "root": str(at_hand)})

    def asked() -> StudyQuestions:
        rehearsed, _ = rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")
        runs = expand(rehearsed, where="plan")
        bases, _ = _jobs(runs, prepare(rehearsed, runs, out=tmp_path), CurrentQuestions(), out=tmp_path, rehearsed=True)
        return bases[0].questions

    photograph.rename(tmp_path / "away")
    before = asked()
    assert asked() == before, "nothing is measured again"
    (tmp_path / "away").rename(photograph)
    after = asked()
    assert after != before
    monkeypatch.setattr("degla.shelf.Shelf.digests", lambda shelf, names: {"benchmarks/own.py": "changed"})
    assert asked() != after, "a benchmark of the user's own"


def test_a_rehearsal_replaces_no_runs_of_the_plan_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(InputError, match=r"has results that are not rehearsed .* Use another --out\."):
        rehearsal_plan.rehearse(_plan(tmp_path, {"recipe": "clip"}), out=tmp_path, where="plan")
    (tmp_path / "results").rename(tmp_path / "runs")
    with pytest.raises(InputError, match=r"has runs that are not rehearsed .* Use another --out\."):
        rehearsal_plan.rehearse(_plan(tmp_path, {"recipe": "clip"}), out=tmp_path, where="plan")
    (tmp_path / "rehearsal").mkdir()  # The runs are rehearsed.
    rehearsal_plan.rehearse(_plan(tmp_path, {"recipe": "clip"}), out=tmp_path, where="plan")
    plan = _plan(tmp_path, {"recipe": "clip"})
    with pytest.raises(InputError):  # The plan itself fails before its runs replace any.
        conduct(plan, out=tmp_path, where="plan")
    rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")
    results = [tmp_path / "results" / f"clip-{number}.json" for number in range(3)]
    results[0].parent.mkdir()
    model = ModelProvenance(name="clip", label="clip", fingerprint="0", activation="gelu", precision="fp32")
    score = Score(name="all", metric="accuracy", value=0.0, n=1, ties=0)
    benchmark = BenchmarkResult(
        name="own", title="", paper="", licence="", annotation_sha256={}, items_sha256="", text_solvable={},
        parts=(PartResult(name="all", scores=(score,), family="", tie="strict"),), averages=(), headline={},
    )  # fmt: skip
    result = Result(model=model, date="", versions={}, benchmarks=(benchmark,), image_reading="upright")
    for path in results:
        save_result(result, path)
        items_name(path).touch()
    questions = StudyQuestions(("retrieval",), tmp_path, "")
    base, job = (Job("clip", "world", None, {}, (Measure("clip", 1.0, results[at]),), questions) for at in (2, 0))
    monkeypatch.setattr("degla.study.conduct.prepare", lambda *_, **__: [])
    monkeypatch.setattr("degla.study.conduct._jobs", lambda *_, **__: ([base], [job]))
    monkeypatch.setattr("degla.study.conduct.CurrentQuestions.require_scores", lambda *_, **__: None)
    monkeypatch.setattr("degla.study.conduct.run_chains", lambda *_, **__: pytest.fail("begun"))
    with pytest.raises(pytest.fail.Exception, match="begun"):
        conduct(plan, out=tmp_path, where="plan")
    assert not list(results[0].parent.iterdir()), "the plan's are to come"
    others = sorted(path.name for path in (results[1], items_name(results[1])))
    assert sorted(path.name for path in (tmp_path / "removed").iterdir()) == others, "of no model of the plan"
    with pytest.raises(InputError, match="has runs and results that are not rehearsed"):
        rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")


def test_a_plan_without_its_benchmarks_fails_before_its_runs_and_is_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own" / "images").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "own" / "images" / "a.png")
    row = {"id": "1", "image": "a.png", "text": "a cat", "image_id": "1"}
    (tmp_path / "own" / "captions.jsonl").write_text(json.dumps(row))
    plan, out = _plan(tmp_path, {"recipe": "clip", "train.steps": 1}), tmp_path / "out"
    monkeypatch.setattr("degla.study.conduct.run_chains", lambda *_, **__: pytest.fail("begun"))
    with pytest.raises(InputError, match=r"^none: no such folder of the benchmarks' data\. Give the one that holds"):
        conduct(plan, out=out, where="plan")
    rehearsal_plan.rehearse(plan, out=out, where="plan")


def test_a_study_of_the_user_in_a_folder_named_rehearsal_stays(tmp_path: Path) -> None:
    own = tmp_path / "rehearsal" / "study.json"
    own.parent.mkdir()
    own.touch()
    plan = _plan(tmp_path, {"recipe": "clip"})
    with pytest.raises(InputError, match="rehearsal: was not made by a rehearsal, which would replace it"):
        rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")
    rehearsal_plan.forget_rehearsal(tmp_path)
    assert own.exists()


def _plan(folder: Path, *arms: dict[str, Any], **changes: Any) -> Plan:
    pairs = {"data.captions": str(folder / "own" / "captions.jsonl"), "data.images": str(folder / "own" / "images")}
    benchmarks = {"names": ["retrieval"], "root": "none"}
    return Plan.model_validate({"base": "world", "benchmarks": benchmarks, "set": pairs, "arms": arms} | changes)


def test_files_of_an_arm_that_are_not_there_are_made_too(tmp_path: Path) -> None:
    files = write_pairs(tmp_path / "own")
    own = {"data.negatives": str(files["negatives"]), "data.neighbours": str(files["neighbours"])}
    missing = {"data.negatives": str(tmp_path / "by a server.jsonl")}
    drawn = {"data.captions": str(tmp_path / "none.json"), **own}
    plan = _plan(tmp_path, *({"recipe": "negclip", "label": str(number)} | arm
                             for number, arm in enumerate((own, missing, drawn))),
                 seeds=[4, 5, 6], replicates=[{"negatives_seed": 1}], scorer="standardised")  # fmt: skip
    rehearsed, record = rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")
    assert rehearsed.seeds == (4, 5) and not rehearsed.replicates and rehearsed.scorer == "cosine"
    first, second, third = (arm.fields for arm in rehearsed.arms)
    assert record.pairs == f"24 pairs of {files['captions']} and 64 drawn pairs"
    assert first["data.negatives"] == own["data.negatives"] and "data.negatives" not in second
    # Negatives of other captions, and neighbours outside the few pairs, would match nothing.
    assert not {"data.negatives", "data.neighbours"} & third.keys() and "data.neighbours" not in first
    assert record.negatives == "made by the plan's rules"
    assert first["data.captions"] == second["data.captions"] != third["data.captions"]


def test_columns_of_other_names_are_read_and_laid_under_the_usual_ones(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_pairs(tmp_path / "own")["captions"].read_text().splitlines()]
    file = tmp_path / "own" / "captions.csv"
    table = "".join(f"{row['id']},{row['image']},{row['text']}\n" for row in rows)
    file.write_text("key,file,sentence\n" + table)
    names = {"data.id_column": "key", "data.image_column": "file", "data.text_column": "sentence"}
    plan = _plan(tmp_path, {"recipe": "clip"})
    plan = plan.model_copy(update={"set": plan.set | names | {"data.captions": str(file)}})
    (arm,) = rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")[0].arms
    laid = read_captions(Path(str(arm.fields["data.captions"])))
    assert [(row.id, row.text) for row in laid] == [(row["id"], row["text"]) for row in rows]
    assert not names.keys() & arm.fields.keys()


def test_named_splits_are_read_and_laid_without_splits(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_pairs(tmp_path / "own")["captions"].read_text().splitlines()]
    images = [{"filename": row["image"], "split": f"{n % 3}", "sentences": [{"raw": row["text"], "sentid": n}]}
              for n, row in enumerate(rows)]  # fmt: skip
    (file := tmp_path / "own" / "dataset_coco.json").write_text(json.dumps({"images": images}))
    plan = _plan(tmp_path, {"recipe": "clip"})
    plan = plan.model_copy(update={"set": plan.set | {"data.captions": str(file), "data.split": "0 2"}})
    (arm,) = rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")[0].arms
    laid = read_captions(Path(str(arm.fields["data.captions"])))
    assert [int(row.id) for row in laid] == [n for n in range(len(rows)) if n % 3 != 1]
    assert "data.split" not in arm.fields


def test_pictures_inside_a_parquet_file_are_the_plans_own(tmp_path: Path) -> None:
    file = tmp_path / "own.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": [draw_image("a")], "text": ["a dog"]}), file)
    plan = _plan(tmp_path, {"recipe": "clip"})
    plan = plan.model_copy(update={"set": {"data.captions": str(file), "data.images": None}})
    rehearsed, record = rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")
    assert record.pairs == f"1 pair of {file}" and rehearsed.arms[0].fields["data.images"] == str(tmp_path)


def test_pairs_that_are_not_the_plans_own_get_what_a_recipe_reads_of_captions(tmp_path: Path) -> None:
    plan = _plan(tmp_path, {"recipe": "c2lip"}, base="ViT-B-16-SigLIP:webli")
    (arm,) = rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")[0].arms
    laid = Path(str(arm.fields["data.captions"]))
    rows = list(read_captions(laid, columns=Columns(optional=("concepts",))))
    assert len(rows) == 64 and all(row.concepts for row in rows)
    assert {row.image for row in rows} == {file.name for file in Path(str(arm.fields["data.images"])).iterdir()}


@pytest.mark.parametrize(
    ("base", "recipe", "biased"),
    [("nobody/knows", "clip", False), ("nobody/knows", "c2lip", True), ("ViT-B-16-SigLIP:webli", "clip", True)],
)
def test_a_model_of_the_sigmoid_loss_has_a_stand_in_with_a_bias(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, base: str, recipe: str, biased: bool
) -> None:
    monkeypatch.setattr(rehearsal_plan, "MODEL", str(tiny_model))
    plan = _plan(tmp_path, {"recipe": recipe}, base=base)
    stand_in = load_encoder(rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")[0].base)
    assert (stand_in.bias is not None) == biased
    if biased:  # Such a model folder is recognised by its configuration, without reading its weights.
        shutil.copytree(stand_in.name, tmp_path / "base")
        (tmp_path / "base" / "open_clip_model.safetensors").write_bytes(b"")
        plan = _plan(tmp_path, {"recipe": "clip"}, base=str(tmp_path / "base"))
        assert load_encoder(rehearsal_plan.rehearse(plan, out=tmp_path, where="plan")[0].base).bias is not None


def test_a_plan_of_the_world_needs_no_rehearsal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"world": {"scenes": 10}, "arms": [{"recipe": "clip"}]}))
    assert main(["study", str(plan), "--out", str(tmp_path / "out"), "--rehearse"]) == 2
    assert "--rehearse requires a plan with 'benchmarks'" in capsys.readouterr().err


def test_printed_names_arms_and_rows_that_exist() -> None:
    plan = read_plan(PAPER)
    assert set(plan.printed) == {"base", *(arm.name for arm in plan.arms)} - {"clip"}
    fields = {"benchmarks": {"names": ["valse"], "root": "."}, "set": {"data.captions": "c", "data.images": "i"},
              "arms": [{"recipe": "degla"}]}  # fmt: skip
    for printed, message in (({"degal": "DeGLA"}, "names 'degal'"), ({"degla": "DeGAL"}, "has a row 'DeGAL'")):
        with pytest.raises(ValueError, match=message):
            Plan(**fields, printed=printed)  # type: ignore[arg-type]


def test_a_column_has_the_mark_of_all_that_it_averages() -> None:
    parts = tuple(
        RehearsedPart(benchmark="mmvp_vlm", part=part.name, kind="items" if part.name == "writing" else "pictures")
        for part in BENCHMARKS.load("mmvp_vlm").BENCHMARK.parts
    )
    record = RehearsalRecord(base="photo", steps=1, batch_size=1, pairs="", negatives="", parts=parts)
    assert _kind(record, "mmvp_vlm", "text") == "pictures"
