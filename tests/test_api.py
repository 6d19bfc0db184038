"""The Python API: everything that `import degla` offers, without torch until it is needed."""

from __future__ import annotations

import inspect
import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from torch import Tensor

import degla
from degla.cli import main
from degla.data.sources import read_negatives
from degla.errors import DeglaError, InputError
from degla.evaluation.benchmark import (
    Average,
    Benchmark,
    BenchmarkPart,
    Classification,
    Metric,
    image_question,
    pair_question,
)
from degla.evaluation.embed import Embedder
from degla.evaluation.neutral import declared_by
from degla.evaluation.results import TracedResult
from degla.model import fast_paths
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.llm.server import ServerModel
from degla.recipes.negclip import negclip
from degla.records import ItemImage, PairItem
from tests.negatives.flaky_server import Received, Response, completion, serving
from tests.tiny import CAPTIONS, CONFIG, write_classes, write_model

Pairs = dict[str, Path]


def test_what_is_public_is_there_and_documented() -> None:
    for name in degla.__all__:
        member = getattr(degla, name)
        if callable(member):
            assert "Args:" in (inspect.getdoc(member) or ""), name
            hints = inspect.signature(member)
            assert all(each.annotation is not inspect.Parameter.empty for each in hints.parameters.values()), name
    assert set(degla.__all__) == set(dir(degla))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = degla.trian


def test_importing_it_and_making_negatives_needs_no_torch() -> None:
    code = (
        "import sys, degla; dir(degla); degla.losses, degla.errors.InputError; assert 'torch' not in sys.modules;"
        "sys.modules['torch'] = None;"
        "assert degla.generate_negatives(['a black dog chases a white cat'])[0]"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_worker_that_makes_negatives_imports_no_torch() -> None:
    """Looking up words before loading the tagger is the hard case: both import spaCy, which would import torch."""
    code = (
        "import sys; from degla.negatives.checks import check_caption; from degla.negatives.grammar import phrases;"
        "check_caption('A dog runs.'); phrases.parse(['A dog runs.']); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_thread_can_import_torch_while_another_loads_the_tagger() -> None:
    code = (
        "import importlib; from concurrent.futures import ThreadPoolExecutor; from degla.tagger import _WithoutTorch\n"
        "pool = ThreadPoolExecutor(1)\n"
        "with _WithoutTorch():\n"
        "    try: import torch\n"
        "    except ImportError: pool.submit(importlib.import_module, 'torch').result()\n"
        "    else: raise SystemExit('torch was not hidden')\n"
        "import torch"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_embeddings_of_pictures_and_texts(tiny_model: Path, tmp_path: Path) -> None:
    model = degla.load_model(str(tiny_model))
    assert isinstance(model, Encoder)
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    picture.save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned by 90 degrees clockwise.
    picture.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)

    rows = degla.encode_images(model, [tmp_path / "plain.png", str(tmp_path / "turned.png"), picture], batch_size=2)
    assert rows.shape == (3, 16) and not rows.requires_grad
    torch.testing.assert_close(rows, rows[:1].expand(3, -1))
    torch.testing.assert_close(rows[:1], load_encoder(str(tiny_model)).encode_images(model.transform(picture)[None]))
    with Image.open(tmp_path / "turned.png") as opened:
        torch.testing.assert_close(degla.encode_images(model, [opened]), rows[:1])

    halved = degla.encode_images(degla.load_model(str(tiny_model)).half(), [picture])  # type: ignore[attr-defined]
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, rows[:1], rtol=0, atol=2e-2)

    texts = degla.encode_captions(model, CAPTIONS, batch_size=4)
    assert texts.shape == (len(CAPTIONS), 16)
    torch.testing.assert_close(texts, degla.encode_captions(model, iter(CAPTIONS)))
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(len(CAPTIONS)))


def test_wrong_input_is_reported_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    model = degla.load_model(str(tiny_model))
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "captions.csv").write_text("id,image,text\n1,1.jpg,a dog\n")
    closed = Image.new("RGB", (8, 8))
    closed.close()
    calls: dict[str, Callable[[], object]] = {
        r"text\.jpg": lambda: degla.encode_images(model, [tmp_path / "text.jpg"]),
        r"gone\.jpg": lambda: degla.encode_images(model, [tmp_path / "gone.jpg"]),
        "no images were given": lambda: degla.encode_images(model, []),
        "'a cat' is a single str. Give a list": lambda: degla.encode_captions(model, "a cat"),
        "item 2 is of type float; it must be str": lambda: degla.encode_captions(model, ["a", float("nan")]),  # type: ignore[list-item]
        "write_negatives: captions: expected a path, got list": lambda: degla.write_negatives(["a"], "n.jsonl"),  # type: ignore[arg-type]
        "write_negatives: per_rule: expected an integer, got str": lambda: degla.write_negatives(
            "a", "n.jsonl", per_rule="2"
        ),  # type: ignore[arg-type]
        "read_captions: expected a path, got NoneType": lambda: degla.read_captions(None),  # type: ignore[arg-type]
        "read_captions: split: 'all' is a single str. Give a list": lambda: degla.read_captions("a.json", split="all"),
        "read_captions: format and names of columns: expected a text, got NoneType": lambda: degla.read_captions(
            "a.csv",
            format=None,  # type: ignore[arg-type]
        ),
        "write_negatives: format and names of columns: expected a text, got int": lambda: degla.write_negatives(
            "a.csv",
            "n.jsonl",
            id_column=0,  # type: ignore[arg-type]
        ),
        "evaluate: label: expected a text, got int": lambda: degla.evaluate("blind", ["own"], tmp_path, label=0),  # type: ignore[arg-type]
        "report: baseline: expected a text, got int": lambda: degla.report(["a.json"], "a.html", baseline=1),  # type: ignore[arg-type]
        "unknown file format 'xml'": lambda: degla.read_captions(Path(__file__), format="xml"),
        "evaluate: root: expected a path": lambda: degla.evaluate(model, ["world"], None),  # type: ignore[arg-type]
        "report: out: expected a path, got int": lambda: degla.report(["a.json"], 3),  # type: ignore[arg-type]
        r"train: fields must be like {\"optim\.lr\": 1e-5}, not \['a'\]": lambda: degla.train("clip", ["a"]),  # type: ignore[arg-type]
        r'train: fields must be like {"optim\.lr": 1e-5}, not {1: 2}': lambda: degla.train("clip", {1: 2}),  # type: ignore[dict-item]
        r"train: fields must be like .*, not \(\)": lambda: degla.train("clip", ()),  # type: ignore[arg-type]
        "generate_negatives: per_rule: expected an integer, got bool": lambda: degla.generate_negatives(
            ["a"], per_rule=True
        ),
        r"encode_captions: b'a cat' is a single bytes\. Give a list": lambda: degla.encode_captions(model, b"a cat"),  # type: ignore[arg-type]
        r"device 'True' cannot be used: .* must be torch\.device, not bool\. Use cpu": lambda: degla.load_model(
            "world",
            device=True,  # type: ignore[arg-type]
        ),
        r"'a\.png' is a single str. Give a list": lambda: degla.encode_images(model, "a.png"),
        "is a single Image. Give a list": lambda: degla.encode_images(model, Image.new("RGB", (8, 8))),  # type: ignore[arg-type]
        "item 1 is of type Tensor; it must be str or Path or Image": lambda: degla.encode_images(
            model, torch.zeros(1, 3, 8, 8)
        ),
        r"image nope\.jpg is missing\. Give the path of an image": lambda: degla.encode_images(model, ["nope.jpg"]),
        "image 1 cannot be read: it has no pixels": lambda: degla.encode_images(model, [Image.new("RGB", (0, 0))]),
        "image 1 is damaged or cut off: Operation on closed image": lambda: degla.encode_images(model, [closed]),
        "'world' is the name of a model": lambda: degla.encode_images("world", [closed]),  # type: ignore[arg-type]
        "encode_captions: CLIP is not a degla model": lambda: degla.encode_captions(model.clip, ["a"]),  # type: ignore[attr-defined]
        "evaluate: NoneType is not a degla model": lambda: degla.evaluate(None, ["own"], tmp_path),  # type: ignore[arg-type]
        r"weights are torch\.float16\. Load them in float32": lambda: degla.evaluate(
            degla.load_model(str(tiny_model)).half(),
            ["zeroshot"],
            write_classes(tmp_path / "data", images=1),  # type: ignore[attr-defined]
        ),
        "rules: 'swap_nouns' is a single str": lambda: degla.generate_negatives(["a"], rules="swap_nouns"),
        r"name at least one rule, and each only once \(got none\)": lambda: degla.generate_negatives(["a"], rules=[]),
        r"per_rule \(0\) must be 1 or more": lambda: degla.generate_negatives(["a"], per_rule=0),
        "benchmarks: 'own' is a single str": lambda: degla.evaluate(model, "own", tmp_path),
        "a result's name must end in .json": lambda: degla.evaluate(model, ["own"], tmp_path, out="before/scoring"),
        r"captions.csv is not a folder. Choose another --out": lambda: degla.evaluate(
            model, ["own"], tmp_path, out=tmp_path / "captions.csv" / "before-scoring.json"
        ),
        "device 'gpu' cannot be used": lambda: degla.load_model(str(tiny_model), device="gpu"),
        "is a folder. Choose a file for the negatives": lambda: degla.write_negatives(
            tmp_path / "captions.csv", tmp_path.root
        ),
        r"n.txt: one JSON record per line is written, so the name must end in .jsonl": lambda: degla.write_negatives(
            tmp_path / "captions.csv", tmp_path / "n.txt"
        ),
        "report: 'a.json' is a single str": lambda: degla.report("a.json", tmp_path / "report.html"),
        "batch_size: expected an integer, got float": lambda: degla.encode_captions(model, ["a"], batch_size=1.5),  # type: ignore[arg-type]
        "batch_size is 0": lambda: degla.encode_captions(model, ["a cat"], batch_size=0),
        "unknown rule 'swap_noun'. Did you mean 'swap_nouns'": lambda: degla.generate_negatives(
            ["a"], rules=["swap_noun"]
        ),
        r"caption 2: field 'text' \(caption id '1'\) has no text": lambda: degla.generate_negatives(["a", ""]),
        r"caption 1: field 'text' \(caption id '0'\) has no text": lambda: degla.generate_negatives([" \t"]),
        "unknown field 'optim.rl'": lambda: degla.train("degla", {"optim.rl": 1}),
        r"--model is Encoder; it must be a string\.$": lambda: degla.train("degla", {"model": model}),
        "field 'optim.lr': --optim.lr is 'fast'": lambda: degla.train("degla", {"optim.lr": "fast"}),
        "load_model: expected the name or path of a model, got NoneType": lambda: degla.load_model(None),  # type: ignore[arg-type]
        "encode_captions: None is a single NoneType. Give a list": lambda: degla.encode_captions(model, None),  # type: ignore[arg-type]
        "is not a configuration. Give a recipe name or what": lambda: degla.train(negclip),  # type: ignore[arg-type]
        "unknown recipe 'dgla'": lambda: degla.train("dgla"),
        "no captions: give --data.captions": lambda: degla.train("degla"),
        "unknown benchmark": lambda: degla.evaluate(model, ["worlds"], tmp_path),
        "no results were given": lambda: degla.report([], tmp_path / "report.html"),
    }
    for message, call in calls.items():
        with pytest.raises(DeglaError, match=message) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


def test_a_benchmark_may_be_an_object(tiny_model: Path, tmp_path: Path) -> None:
    colours = ("red", "green", "blue", "white")
    for colour in colours:
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    texts = {colour: f"a {colour} square" for colour in colours}
    pairs = list(combinations(colours, 2))
    questions = [
        pair_question(
            ("mine", "groups", n), [f"{one}.png" for one in pair], [texts[one] for one in pair], ((1, 0), (0, 1))
        )
        for n, pair in enumerate(pairs)
    ]
    groups = BenchmarkPart("groups", "swap", metrics=(Metric("group", "group_ok"),))
    mine = Benchmark(name="mine", title="Mine", parts=(groups,), items=lambda root: iter(questions))

    model = degla.load_model(str(tiny_model))
    files = [tmp_path / f"{colour}.png" for colour in colours]
    cosines = degla.encode_images(model, files) @ degla.encode_captions(model, list(texts.values())).T
    blocks = [cosines[[[i], [j]], [i, j]] for i, j in combinations(range(4), 2)]
    right = [bool(torch.stack([b[0, 0], b[1, 1]]).min() > torch.stack([b[0, 1], b[1, 0]]).max()) for b in blocks]
    result = degla.evaluate(model, [mine, mine], tmp_path, out=tmp_path / "mine.json")
    (score,) = result.benchmarks[0].parts[0].scores
    assert [item.ok["group_ok"] for item in result.items] == right and score.value == pytest.approx(fmean(right))
    page = tmp_path / "report.html"
    degla.report([result, degla.evaluate("random", [mine], tmp_path)], page)
    assert "Mine" in page.read_text()

    other = degla.evaluate(str(write_model(tmp_path / "other", seed=5)), [mine], tmp_path, label="other")
    table = degla.report([result, other], page)
    (row,) = [row for row in table["rows"] if row["name"] == "groups"]
    assert row["cells"]["other"]["gain"]["interval"] is not None, "over questions"
    before = {item.id: item.ok["group_ok"] for item in result.items}
    assert table["changed"]["other"]
    for change in table["changed"]["other"]:
        assert change["before"]["right"] == before[change["id"]], "the part's own verdict, not the first"

    listed = replace(mine, parts=[replace(groups, metrics=[*groups.metrics])])  # type: ignore[arg-type]
    assert degla.evaluate(model, [listed], tmp_path).benchmarks == result.benchmarks
    with pytest.raises(InputError, match=r"^Mine: .mine/groups/0. is of benchmark .mine.\. Give .* .other.\.$"):
        degla.evaluate(model, [replace(mine, name="other")], tmp_path)
    for name, others in {"own": [], "mine": [mine]}.items():
        with pytest.raises(InputError, match=rf"'Other': another one has the name '{name}'\. Rename yours\.$"):
            degla.evaluate(model, [*others, replace(mine, name=name, title="Other")], tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parts": BenchmarkPart("all", "swap")}, r"parts must be a tuple of BenchmarkPart, with a comma .*\.\.\.\."),
        ({"parts": ["all"]}, r"benchmark 'mine': parts must be a tuple of BenchmarkPart, .* It is \['all'\]\."),
        ({"averages": Average("swap", ("all",))}, r"benchmark 'mine': averages must be a tuple of Average, .*"),
        ({"annotations": "rows.jsonl"}, r"benchmark 'mine': annotations must be a tuple of str, .*"),
        (
            {"annotations": ("/data/rows.jsonl",)},
            r"annotations has '/data/rows.jsonl'; give names relative to the root.*",
        ),
        ({"annotations": ("",)}, r"annotations has ''; give names relative to the root folder\."),
        ({"items": []}, r"benchmark 'mine': items must be a function of the root folder .*; it is of type list\."),
        ({"headline": {"swap": "no"}}, r"headline fills column 'swap' with 'no', which is the name of neither .*"),
        ({"headline": ["all"]}, r"headline must be like \{'composition': 'macro'\}, .*; it is \['all'\]\."),
        ({"headline": None}, r"headline must be like .*; it is None\."),
        (
            {"parts": [BenchmarkPart("all", "swap"), BenchmarkPart("one", "swap"), BenchmarkPart("all", "add")]},
            r"benchmark 'mine': parts and averages: 'all' is the name of two\. Rename one\.",
        ),
        (
            {"averages": [Average("mean", ("all",)), Average("mean", ("*",))]},
            r"'mean' is the name of two\. Rename one\.",
        ),
        ({"averages": [Average("all", ("*",))]}, r"parts and averages: 'all' is the name of two\. Rename one\."),
    ],
)
def test_a_wrong_field_of_a_benchmark_object_is_one_line(fields: dict[str, Any], message: str) -> None:
    given = {"name": "mine", "title": "Mine", "parts": [BenchmarkPart("all", "swap")], "items": list} | fields
    with pytest.raises(InputError, match=rf"\A.*{message}\Z"):
        Benchmark(**given)
    with pytest.raises(InputError, match=r"\Apart 'all': metrics must be a tuple of Metric, .* is Metric\(.*\.\.\.\Z"):
        BenchmarkPart("all", "swap", metrics=Metric())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\Apart 'all': metrics: 'accuracy' is the name of two\. Rename one\.\Z"):
        BenchmarkPart("all", "swap", metrics=(Metric(), Metric(verdict="image_ok")))
    with pytest.raises(InputError, match=r"\Aaverage 'swap': of must be a tuple of str, .* It is 'all'\.\Z"):
        Average("swap", "all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"items": lambda root: None}, r"items must return or yield PairItem, .*; got None\."),
        ({"items": lambda root: [{"id": "one"}]}, r"items must return .*; got \{'id': 'one'\}\."),
        ({"parts": [BenchmarkPart("all", "swap", metrics=())]}, r"field 'parts\.0\.metrics': List .* at least 1 .*"),
        ({"parts": [BenchmarkPart("all", "swap", metrics=(Metric(chance=3),))]}, r"field '.*\.0\.chance': .*"),
        ({"parts": [BenchmarkPart("all", "swap", tie="x")]}, r"field 'parts\.0\.tie': .*"),  # type: ignore[arg-type]
    ],
)
def test_what_a_benchmark_object_cannot_be_scored_with_is_one_line(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = {"name": "mine", "title": "Mine", "parts": [BenchmarkPart("all", "swap")], "items": lambda root: []}
    with pytest.raises(InputError, match=rf"\Abenchmark 'mine': {message}\Z"):
        degla.evaluate("random", [Benchmark(**given | fields)], tmp_path)


@pytest.mark.parametrize(
    ("images", "texts", "gold", "message"),
    [
        ("a.png", ["a"], ((1,),), r"images is a single str\. Put it into a list\."),
        (Path("a.png"), ["a"], ((1,),), r"images is a single \w*Path\. Put it into a list\."),
        (ItemImage(path="a.png"), ["a"], ((1,),), r"images is a single ItemImage\. Put it into a list\."),
        (["a.png"], "a", ((1,),), r"texts is a single str\. Put it into a list\."),
        (["a.png"], None, ((1,),), r"texts is a single NoneType\. Put it into a list\."),
        (["a.png"], ["a", "b"], ((1,),), r"gold must be 1 row of 2 entries \(got .*\)"),
        (["a.png"], ["a", "b"], ((0, 0),), r"every row of gold that has a negative needs a positive \(got .*\)"),
        ([3], ["a", "b"], ((1, 0),), r"field 'images\.0': Input should be a valid dictionary \(got 3\)"),
    ],
)
def test_a_wrong_question_of_ones_own_is_one_line(images: Any, texts: Any, gold: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"\Aitem 'mine/all/1': {message}\Z"):
        pair_question(("mine", "all", 1), images, texts, gold)


@pytest.mark.parametrize("place", ["mine/all/1", ("mine", "all")])
def test_a_wrong_place_of_a_question_is_one_line(place: Any) -> None:
    with pytest.raises(InputError, match=r"\Aitem .*mine.*: its place must be \(benchmark, part, key\)\.\Z"):
        image_question(place, "a.png", ["a"], ["b"])
    with pytest.raises(InputError, match=r"\Amine/all/1: true and false are lists of texts; .*\Z"):
        image_question(("mine", "all", 1), "a.png", ["a"], None)  # type: ignore[arg-type]


def test_a_benchmark_whose_groups_are_all_left_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")

    def evaluate(metric: Metric, *questions: PairItem | Classification) -> TracedResult:
        part = BenchmarkPart("all", "swap", metrics=(metric,))
        mine = Benchmark(name="mine", title="Mine", parts=(part,), items=lambda root: iter(questions))
        return degla.evaluate("random", [mine], tmp_path)

    first, *others = (
        image_question(
            ("mine", "all", n), "red.png", ["A red square."], ["A blue square."], group={"relation": relation}
        )
        for n, relation in enumerate(["on", "on", "under"])
    )
    named = Classification(
        benchmark="mine",
        part="all",
        images=(ItemImage(path="red.png"),),
        labels=(0,),
        classes=("a", "b"),
        templates=("{}",),
    )
    two = Metric(group="relation", minimum=2)
    assert evaluate(two, first, *others).items
    message = r"\AMine: no part has a score: .* leave out every group .*\Z"
    with pytest.raises(InputError, match=message):
        evaluate(Metric("top1", "top1", group="class", minimum=2), named)
    monkeypatch.setattr(Embedder, "embed", lambda *_: pytest.fail("it is embedded"))
    for metric in (two, replace(two, minimum=1, exclude=frozenset({"on", "under"}))):
        with pytest.raises(InputError, match=message):
            evaluate(metric, first, others[-1])


def test_images_of_a_question_may_be_paths() -> None:
    one, other = (image_question(("mine", "all", 1), path, ["a"], ["b"]) for path in ("x/a.png", Path("x/a.png")))
    assert one == other


def test_a_benchmark_object_may_have_parts_of_a_subclass(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Noted(BenchmarkPart):
        note: str = "mine"

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    item = image_question(("mine", "all", 0), "red.png", ["A red square."], ["A blue square."])
    mine = Benchmark(name="mine", title="Mine", parts=(Noted("all", "swap"),), items=lambda root: iter([item]))
    result = degla.evaluate("random", [mine], tmp_path)
    assert declared_by(result.benchmarks[0]).parts == (BenchmarkPart("all", "swap"),)


def test_items_of_a_benchmark_object_may_be_a_data_set_of_torch(tmp_path: Path) -> None:
    class Squares(torch.utils.data.Dataset[PairItem]):
        def __getitem__(self, index: int) -> PairItem:
            return [image_question(("mine", "all", 0), "red.png", ["A red square."], ["A blue square."])][index]

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    mine = Benchmark(
        name="mine",
        title="Mine",
        parts=(BenchmarkPart("all", "swap"),),
        items=lambda root: Squares(),  # type: ignore[arg-type,return-value]
    )
    assert len(degla.evaluate("random", [mine], tmp_path).items) == 1


def test_averages_of_other_parts_are_not_paired(tiny_model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    parts = (BenchmarkPart("one", "swap"), BenchmarkPart("two", "swap"))
    items = [
        image_question(("mine", part.name, n), "red.png", ["A red square."], [f"A blue {n}."])
        for part in parts
        for n in range(2)
    ]
    results = []
    for of in (("one", "two"), ("one",)):
        mine = Benchmark(
            name="mine", title="Mine", parts=parts, items=lambda root: iter(items), averages=(Average("all", of),)
        )
        model = degla.load_model(str(tiny_model))
        results.append(degla.evaluate(model, [mine], tmp_path, label=" ".join(of)))
    degla.report(results, tmp_path / "report.html", paper=True)
    assert "mine,all,average" in (tmp_path / "report.csv").read_text()


def test_the_seed_of_a_random_floor_stands_in_its_result(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", images=1)
    floor = degla.load_model("random:7")
    assert degla.evaluate("random:7", ["zeroshot"], root).training_seed == 7
    assert degla.evaluate(floor, ["zeroshot"], root).training_seed == 7
    assert degla.evaluate("blind", ["zeroshot"], root).training_seed is None


def test_a_model_may_be_named_by_its_path(tiny_model: Path, tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", images=1)
    by_path, by_name = (degla.evaluate(name, ["zeroshot"], root) for name in (tiny_model, str(tiny_model)))
    assert repr(by_path) == str(by_path) == f"TracedResult({str(tiny_model)!r}; zeroshot: recognition 33.3)"
    assert by_path.model == by_name.model and by_path.benchmarks == by_name.benchmarks


def test_negatives_in_memory_are_those_of_the_file(tmp_path: Path) -> None:
    texts = ["a black dog chases a white cat", "two red apples on a wooden table", "no"]
    table = tmp_path / "captions.csv"
    table.write_text("id,image,text\n" + "".join(f"{n},{n}.jpg,{text}\n" for n, text in enumerate(texts)))
    assert [row.text for row in degla.read_captions(table)] == texts
    own = tmp_path / "own.txt"
    own.write_text(json.dumps({"number": 7, "file": "7.jpg", "words": texts[0], "scene": "a"}) + "\n")
    columns = {"id_column": "number", "image_column": "file", "text_column": "words", "image_id_column": "scene"}
    (row,) = degla.read_captions(own, format="jsonl", **columns)
    assert (row.id, row.image, row.text, row.image_id) == ("7", "7.jpg", texts[0], "a")
    images = [
        {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": text}]}
        for n, (split, text) in enumerate(zip(("train", "test", "restval"), texts, strict=True))
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    rows = degla.read_captions(tmp_path / "dataset.json", split=["restval", "train"])
    assert [row.text for row in rows] == [texts[0], texts[2]]
    assert degla.write_negatives(tmp_path / "dataset.json", tmp_path / "k.jsonl", split=["train"]).captions == 1
    assert degla.write_negatives(own, tmp_path / "o.jsonl", format="jsonl", **columns).captions == 1
    summary = degla.write_negatives(table, tmp_path / "negatives.jsonl")
    negatives = degla.generate_negatives(texts)
    assert summary.captions == 3 and len(negatives) == 3 and negatives[2] == []
    assert repr(summary) == f"Summary(3 captions, {sum(map(len, negatives))} accepted texts; the counts: .plain())"
    accepted = [row for row in read_negatives(tmp_path / "negatives.jsonl") if row.accepted]
    assert [row for rows in negatives for row in rows] == accepted and len(accepted) > 5
    # The command goes on with the same file, and makes the same one.
    assert main(["negatives", str(table), "--out", str(tmp_path / "negatives.jsonl")]) == 0
    assert main(["negatives", str(table), "--out", str(tmp_path / "command.jsonl")]) == 0
    assert (tmp_path / "command.jsonl").read_bytes() == (tmp_path / "negatives.jsonl").read_bytes()


def test_negatives_of_a_function_are_those_of_a_server(tmp_path: Path) -> None:
    """Same messages, same reading of answers (thinking, refusals, choices by number), same checks and records."""
    texts = ["a black dog chases a white cat", "two red apples on a wooden table", "a man in a blue hat rides a horse"]
    sent: list[list[list[Any]]] = [[], []]

    def answer(received: Received, by: int) -> str:
        if not received.choices:
            sent[by].append(received.body["messages"])
        if "apples" in received.caption:
            return "2" if received.choices and not by else received.choices[1] if received.choices else "I'm sorry, no."
        return (
            received.choices[-1] if received.choices else f"<think>so</think>{received.caption}".replace("blue", "tan")
        )

    def mine(chats: list[list[dict[str, str]]]) -> list[str]:
        return [answer(Received("", {}, {"messages": chat}, 0), 0) for chat in chats]

    table = tmp_path / "captions.csv"
    table.write_text("id,image,text\n" + "".join(f"{n},{n}.jpg,{text}\n" for n, text in enumerate(texts)))
    with serving(lambda received: Response(body=completion(answer(received, 1)))) as server:
        words = ["negatives", str(table), "--out", str(tmp_path / "negatives.jsonl"), "--llm", "openai", "--model", "m"]
        assert main([*words, "--base-url", server.url]) == 0
    rows = [row for negatives in degla.generate_negatives(texts, llm=mine) for row in negatives]
    accepted = [row for row in read_negatives(tmp_path / "negatives.jsonl") if row.accepted]
    assert {row.form for row in rows} == {"write", "choose", "grammar"}
    assert {(row.form, row.source) for row in rows if row.form != "grammar"} == {
        ("write", "python:mine"), ("choose", "python:mine"),
    }  # fmt: skip
    assert [row.model_dump(exclude={"source"}) for row in rows] == [
        row.model_dump(exclude={"source"}) for row in accepted
    ]
    assert sorted(map(str, sent[0])) == sorted(map(str, sent[1])) and sent[0]


def test_answers_of_a_function_are_stored_with_a_file(tmp_path: Path) -> None:
    texts = [f"a {colour} dog chases a white cat in the snow" for colour in ("black", "brown", "grey", "tan", "red")]
    (tmp_path / "captions.csv").write_text(
        "id,image,text\n" + "".join(f"{n},{n}.jpg,{t}\n" for n, t in enumerate(texts))
    )
    asked: list[str] = []
    fails = False

    def mine(chats: list[list[dict[str, str]]]) -> list[str]:
        if fails and asked:
            raise RuntimeError("out of memory")
        asked.extend(map(str, chats))
        return [chat[-1]["content"].replace("dog", "horse") for chat in chats]

    whole, halved = (tmp_path / f"{name}.jsonl" for name in ("whole", "halved"))
    degla.write_negatives(tmp_path / "captions.csv", whole, llm=mine)
    once, asked[:] = sorted(asked), []
    fails = True
    with pytest.raises(RuntimeError):
        degla.write_negatives(tmp_path / "captions.csv", halved, llm=mine)
    fails = False
    assert 0 < len(asked) < len(once)
    degla.write_negatives(tmp_path / "captions.csv", halved, llm=mine)
    assert sorted(asked) == once and halved.read_bytes() == whole.read_bytes()
    assert "python:mine" in whole.read_text()
    for nameless in (lambda chats: mine(chats), partial(mine)):
        with pytest.raises(InputError, match=r"llm: .* under the function's name, and a lambda or partial has none\."):
            degla.write_negatives(tmp_path / "captions.csv", whole, llm=nameless)


@pytest.mark.parametrize(
    ("llm", "message"),
    [
        (ScriptedModel, r"^llm: ScriptedModel is a class\. Give an object of it: llm=ScriptedModel\(\.\.\.\)\.$"),
        ("embedded", r"llm: expected a function from chats to answers, got str\."),
        (
            lambda chats: "text",
            r"llm: python:<lambda> must return a list of 1 text, one per chat; it returned 'text'\.",
        ),
        (lambda chats: [], r"it returned \[\]\."),
        (lambda chats: [{"text": "a"}], r"it returned \[\{'text': 'a'\}\]\."),
        (lambda chats: None, r"it returned None\."),
    ],
)
def test_a_function_that_gives_no_texts_is_named(llm: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        degla.generate_negatives(["a black dog chases a white cat"], rules=["swap_nouns"], llm=llm)


def test_an_answer_that_no_file_could_hold_is_malformed(tmp_path: Path) -> None:
    """As of JSON that was cut off within an escape; it ended the call with a UnicodeEncodeError."""

    def mine(chats: list[list[dict[str, str]]]) -> list[str]:
        return ["a white dog chases a black cat \ud83d"] * len(chats)

    text = "a black dog chases a white cat"
    (tmp_path / "captions.csv").write_text(f"id,image,text\n0,0.jpg,{text}\n")
    rules = ["replace_nouns", "replace_adjectives"]
    assert degla.generate_negatives([text], rules=rules, llm=mine) == [[]]
    counts = degla.write_negatives(tmp_path / "captions.csv", tmp_path / "out.jsonl", rules=rules, llm=mine).plain()
    assert not counts["accepted"] and counts["refused"] == {f"{rule}: model_malformed": 2 for rule in rules}


def test_negatives_of_any_language_model(tmp_path: Path) -> None:
    text, false = "a black dog chases a white cat", "a black dog chases a white horse"
    (tmp_path / "captions.csv").write_text(f"id,image,text\n0,0.jpg,{text}\n")
    closed: list[str] = []

    class Closing(ScriptedModel):
        def close(self) -> None:
            closed.append(self.name)

    model = Closing({(text, "replace_nouns"): false})
    ((row,),) = degla.generate_negatives([text], rules=["replace_nouns"], llm=model)
    degla.write_negatives(tmp_path / "captions.csv", tmp_path / "out.jsonl", rules=["replace_nouns"], llm=model)
    assert (row.text, row.source, row.form) == (false, "scripted", "write")
    assert list(read_negatives(tmp_path / "out.jsonl")) == [row] and closed == ["scripted"] * 2


def test_requests_without_an_answer_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    gone = ServerModel(["http://127.0.0.1:9/v1"], model="gone", retries=0, backoff=0.01)
    assert degla.generate_negatives(["a black dog chases a white cat"], rules=["swap_nouns"], llm=gone) == [[]]
    assert caplog.messages[-1] == "generate_negatives: the language model gave no answer to 1 request"


def test_integers_may_be_of_numpy(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("id,image,text\n0,0.jpg,a black dog chases a white cat\n")
    files = []
    for kind in (int, numpy.int64):
        files.append(tmp_path / f"{kind.__name__}.jsonl")
        degla.write_negatives(tmp_path / "captions.csv", files[-1], per_rule=kind(2), seed=kind(3), workers=kind(1))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_model_is_trained_by_a_recipe_or_a_configuration(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    fields = {"model": str(tiny_model), "data.captions": tiny_pairs["captions"], "data.images": tiny_pairs["images"],
              "data.negatives": tiny_pairs["negatives"], "data.negatives_per_caption": 1, "train.batch_size": 4,
              "train.steps": 1, "optim.lr": 1e-3, "tracking.progress": False}  # fmt: skip
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(InputError, match="Leave that block, and set --train"),
    ):
        degla.train("negclip", {**fields, "out": str(tmp_path / "first")})
    with torch.inference_mode():  # As a notebook may have it.
        outcome = degla.train("negclip", {**fields, "out": str(tmp_path / "first")})
    again = degla.train(negclip(), {**fields, "out": tmp_path / "second"})
    assert outcome.finished and outcome.step == 1
    first, second, start = (load_encoder(str(path)).fingerprint for path in (outcome.folder, again.folder, tiny_model))
    assert first == second != start
    tuned = degla.load_model(outcome.folder)  # A path, as every function takes them.
    assert isinstance(tuned, Encoder) and tuned.name == str(outcome.folder) and tuned.fingerprint == first
    root = write_classes(tmp_path / "data", images=1)
    assert degla.evaluate(outcome.folder, ["zeroshot"], root).model.fingerprint == first
    with pytest.raises(InputError, match="holds a run"):
        degla.train("negclip", {**fields, "out": str(tmp_path / "first")})


def test_loading_a_model_leaves_what_is_global_as_it_was(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    before = torch.get_rng_state()
    assert degla.load_model(tiny_model, device=torch.device("cpu")).device.type == "cpu"
    degla.evaluate(tiny_model, ["zeroshot"], write_classes(tmp_path / "data", images=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.getLogger().handlers == [], "a program's own logging.basicConfig would have no effect"


def test_what_the_caller_has_set_changes_neither_a_model_nor_its_embeddings(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fast_paths, "_messages", set())
    plain, picture = degla.load_model(tiny_model), Image.effect_noise((40, 30), 90).convert("RGB")
    wanted = degla.encode_images(plain, [picture]), degla.encode_captions(plain, CAPTIONS)
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            model = degla.load_model(tiny_model)
        assert torch.get_default_dtype() == torch.bfloat16 and torch.get_default_device().type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert isinstance(model, Encoder) and model.fingerprint == plain.fingerprint and not caplog.messages
    assert not any(each.is_inference() for each in model.parameters())
    model.train()
    torch.set_default_dtype(torch.bfloat16)  # Pixels would be rounded to it.
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rows = degla.encode_images(model, [picture]), degla.encode_captions(model, CAPTIONS)
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(row, own) for row, own in zip(rows, wanted, strict=True)) and model.training


class OwnModel:
    """A model of another library, as the page of the Python API describes it: here one of ours, not normalised."""

    name, fingerprint, activation, precision, trims, scale = "mine", "1", "quick_gelu", "fp32", False, None
    device = torch.device("cpu")

    def __init__(self, inner: Encoder) -> None:
        self.clip = [inner]  # A name that our own models have, too.
        self.tokenize, self.transform, self.context_length = inner.tokenize, inner.transform, inner.context_length

    def encode_images(self, images: Tensor) -> Tensor:
        return 3 * self.clip[0].encode_images(images)

    def encode_captions(self, tokens: Tensor) -> Tensor:
        return 2 * self.clip[0].encode_captions(tokens)


def test_a_model_of_ones_own_is_embedded_and_evaluated(tiny_model: Path, tmp_path: Path) -> None:
    inner, root = load_encoder(str(tiny_model)), write_classes(tmp_path / "data", images=3)
    mine, picture = OwnModel(inner), Image.effect_noise((40, 30), 90).convert("RGB")
    torch.testing.assert_close(degla.encode_images(mine, [picture]), degla.encode_images(inner, [picture]))
    torch.testing.assert_close(degla.encode_captions(mine, CAPTIONS), degla.encode_captions(inner, CAPTIONS))
    results = [
        degla.evaluate(model, ["zeroshot"], root, training_seed=seed) for seed, model in enumerate((inner, mine))
    ]
    assert [row.ok for row in results[0].items] == [row.ok for row in results[1].items] and results[0].items
    assert [result.training_seed for result in results] == [0, 1]


@pytest.mark.parametrize(
    ("attribute", "wrong", "message"),
    [
        ("tokenize", lambda texts: {"input_ids": texts}, "tokenize returned a dict; .* for example its 'input_ids'"),
        ("encode_images", lambda images: (images, None), r"returned a tuple; .* one tensor, \[batch, dimension\]"),
        ("encode_images", lambda images: torch.ones(len(images), 3), "returned images of 3 dimensions and texts of "),
        (
            "transform",
            lambda image: {"pixel_values": image},
            r"transform returned a dict; .* its 'pixel_values' without",
        ),
        (
            "transform",
            lambda image: torch.ones(1, 3, 8, 8),
            r"transform returned shape \(1, 3, 8, 8\); .* the one image",
        ),
        ("tokenize", lambda texts: torch.ones(7), r"tokenize returned shape \(7,\); .* tensor \[\d+, context_length\]"),
    ],
)
def test_a_wrong_output_of_a_model_of_ones_own_is_named(
    attribute: str, wrong: Callable[[Any], Any], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    mine = OwnModel(load_encoder(str(tiny_model)))
    setattr(mine, attribute, wrong)
    with pytest.raises(DeglaError, match=f"^model 'mine'.*{message}"):
        degla.evaluate(mine, ["zeroshot"], write_classes(tmp_path / "data", images=1))


@pytest.mark.parametrize(
    ("attribute", "wrong", "message"),
    [
        ("transform", lambda image: {"pixel_values": image}, "transform returned a dict"),
        ("transform", lambda image: torch.ones(1, 3, 8, 8), r"transform returned shape \(1, 3, 8, 8\)"),
        (
            "encode_images",
            lambda images: torch.ones(len(images)),
            r"returned shape \(1,\) for 1 input; expected one row",
        ),
        ("tokenize", lambda texts: {"input_ids": texts}, "tokenize returned a dict; "),
        ("encode_captions", lambda tokens: torch.ones(2, 3), r"returned shape \(2, 3\) for 1 input; expected one row"),
    ],
)
def test_a_wrong_output_of_a_model_of_ones_own_is_named_as_it_embeds(
    attribute: str, wrong: Callable[[Any], Any], message: str, tiny_model: Path
) -> None:
    mine = OwnModel(load_encoder(str(tiny_model)))
    setattr(mine, attribute, wrong)
    with pytest.raises(DeglaError, match=rf"\Amodel 'mine'.*{message}.*\Z"):
        degla.encode_images(mine, [Image.new("RGB", (8, 8))])
        degla.encode_captions(mine, ["a"])


def test_images_of_several_sizes_from_a_model_of_ones_own_are_named(tiny_model: Path) -> None:
    mine = OwnModel(load_encoder(str(tiny_model)))
    mine.transform = lambda image: torch.ones(3, *image.size)
    message = r"transform returned shape \(3, 8, 8\) for one image and shape \(3, 9, 8\) for another; it must"
    with pytest.raises(DeglaError, match=message):
        degla.encode_images(mine, [Image.new("RGB", (width, 8)) for width in (8, 9)])


def test_tokens_of_a_model_of_ones_own_may_be_lists(tiny_model: Path) -> None:
    inner = load_encoder(str(tiny_model))
    mine = OwnModel(inner)
    mine.tokenize = lambda texts: inner.tokenize(texts).tolist()
    torch.testing.assert_close(degla.encode_captions(mine, CAPTIONS), degla.encode_captions(inner, CAPTIONS))


def test_tokens_of_a_model_of_ones_own_may_be_padded_to_the_longest_text_of_a_call(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = OwnModel(load_encoder(str(tiny_model)))
    context, whole = mine.context_length, mine.tokenize

    def shorter(texts: list[str]) -> Tensor:
        tokens: Tensor = whole(texts)
        return tokens[:, : int((tokens != 0).sum(dim=1).max())]

    inner = mine.encode_captions
    mine.tokenize = shorter
    mine.encode_captions = lambda tokens: inner(  # type: ignore[method-assign]
        torch.nn.functional.pad(tokens, (0, context - tokens.shape[1]))
    )
    Embedder(mine, root=tmp_path).embed([], ["a dog", "a cat in a hat"])
    assert not caplog.text
    Embedder(mine, root=tmp_path).embed([], ["a dog", "a dog " * context])
    assert f"1 text is longer than the {context} tokens of mine" in caplog.text
    mine.tokenize = lambda texts: torch.ones(len(texts), min(7, len(texts)))
    with pytest.raises(
        DeglaError, match=r"\Amodel 'mine': tokenize returned 7 tokens a text in one call and 1 in .*\Z"
    ):
        Embedder(mine, root=tmp_path).embed([], [f"{number}" for number in range(4097)])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_an_embedding_that_is_zero_or_not_finite_is_named_as_in_evaluation(
    value: float, tiny_model: Path, tmp_path: Path
) -> None:
    def spoilt(rows: Tensor) -> Tensor:
        return torch.cat([rows[:1], torch.full_like(rows[1:], value)])

    mine, inner = OwnModel(load_encoder(str(tiny_model))), load_encoder(str(tiny_model))
    mine.encode_images = lambda images: spoilt(inner.encode_images(images))  # type: ignore[method-assign]
    mine.encode_captions = lambda tokens: spoilt(inner.encode_captions(tokens))  # type: ignore[method-assign]
    pictures = [Image.effect_noise((40, 30), 90).convert("RGB") for _ in range(3)]
    pictures[1].save(tmp_path / "one.png")
    message = (
        r"\Amodel 'mine': the embedding of {} is zero or not finite \(2 of 3 in its batch\)\. Load it in fp32, .*\Z"
    )
    with pytest.raises(DeglaError, match=message.format("'image 2'")):
        degla.encode_images(mine, pictures)
    with pytest.raises(DeglaError, match=message.format(r"'.*one\.png'")):
        degla.encode_images(mine, [pictures[0], tmp_path / "one.png", pictures[2]])
    with pytest.raises(DeglaError, match=message.format("'a cat'")):
        degla.encode_captions(mine, ["a dog", "a cat", "a cup"])
    with pytest.raises(DeglaError, match=message.format("'a cat'")):
        Embedder(mine, root=tmp_path).embed([], ["a dog", "a cat", "a cup"])
    assert degla.encode_captions(mine, ["a dog", "a cat"], batch_size=1).shape[0] == 2


def test_what_a_model_of_ones_own_lacks_is_named_at_once(tiny_model: Path, tmp_path: Path) -> None:
    mine = OwnModel(load_encoder(str(tiny_model)))
    del mine.tokenize, mine.context_length
    with pytest.raises(InputError, match=r"OwnModel is not a degla model: it has no context_length, tokenize\. Load"):
        degla.evaluate(mine, ["zeroshot"], tmp_path)


@pytest.mark.parametrize("attribute", ["name", "activation", "precision", "fingerprint"])
def test_a_wrong_description_of_a_model_of_ones_own_is_named_at_once(
    attribute: str, tiny_model: Path, tmp_path: Path
) -> None:
    mine = OwnModel(load_encoder(str(tiny_model)))
    setattr(mine, attribute, None)
    assert degla.encode_captions(mine, CAPTIONS).shape[0] == len(CAPTIONS), "nothing records it"
    mine.encode_images = mine.encode_captions = lambda *_: pytest.fail("it is embedded")  # type: ignore[method-assign]
    with pytest.raises(InputError, match=rf"^evaluate: OwnModel\.{attribute}: expected a text, got NoneType\.$"):
        degla.evaluate(mine, ["zeroshot"], write_classes(tmp_path / "data", images=1))


def test_a_named_model_is_loaded_on_a_device(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, devices = write_classes(tmp_path / "data", images=1), []

    def load(name: str, *, device: str | torch.device) -> Encoder:
        devices.append(device)
        return load_encoder(name)

    monkeypatch.setattr("degla.evaluation.run.load_model", load)
    for device in (None, "cuda:1", torch.device("cuda")):
        degla.evaluate(tiny_model, ["zeroshot"], root, cache=tmp_path / "cache", device=device)
    assert devices == ["cpu", "cuda:1", torch.device("cuda")]
    with pytest.raises(
        InputError, match=r"^evaluate: device: .* is loaded already\. Move it there, and omit device\.$"
    ):
        degla.evaluate(load_encoder(str(tiny_model)), ["zeroshot"], root, device="cpu")


def test_a_cache_is_read_and_filled_for_models_by_name_only(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object with another forward pass than its weights' would read, and write, rows of the plain model."""
    root, cache = write_classes(tmp_path / "data", images=3), tmp_path / "cache"
    monkeypatch.chdir(tmp_path)
    plain = degla.evaluate(tiny_model, ["zeroshot"], root)
    for model in (OwnModel(load_encoder(str(tiny_model))), load_encoder(str(tiny_model))):
        with pytest.raises(InputError, match=r"^evaluate: cache: .* is a \w+ object, .*name or path, or omit cache\.$"):
            degla.evaluate(model, ["zeroshot"], root, cache=cache)
    for wrong, message in ((3, "evaluate: cache: expected a path, got int"), ("s3://bucket/x", "only a local path")):
        with pytest.raises(InputError, match=message):
            degla.evaluate(tiny_model, ["zeroshot"], root, cache=wrong)  # type: ignore[arg-type]
    assert not cache.exists() and not Path("s3:").exists()
    assert degla.evaluate(tiny_model, ["zeroshot"], root, cache=cache).benchmarks == plain.benchmarks
    assert list(cache.glob("*.sqlite"))
    for name in ("encode_images", "encode_captions"):
        monkeypatch.setattr(Encoder, name, lambda *_: pytest.fail("it is in the cache"))
    again = degla.evaluate(str(tiny_model), ["zeroshot"], root, cache=str(cache))
    assert (again.benchmarks, again.items) == (plain.benchmarks, plain.items)


@pytest.mark.usefixtures("undrawn")
def test_a_report_takes_results_as_their_files(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    root, files = write_classes(tmp_path / "data", images=6), [tmp_path / "one.json", tmp_path / "two.json"]
    labels = ["one", "two"]
    models = [tiny_model, write_model(tmp_path / "other", seed=1)]
    results = [
        degla.evaluate(model, ["zeroshot"], root, label=label, out=file)
        for model, label, file in zip(models, labels, files, strict=True)
    ]
    pages = tmp_path / "of_results.html", tmp_path / "of_files.html"
    tables = degla.report(results, pages[0]), degla.report(files, pages[1])
    assert tables[0].pop("written") != tables[1].pop("written")
    names = [[method.pop("files") for method in table["methods"]] for table in tables]
    assert names == [[["in-memory-1.json"], ["in-memory-2.json"]], [["one.json"], ["two.json"]]]
    assert tables[0] == tables[1]
    assert tables[0]["changed"]["two"], "the items are there, too"
    written = degla.report(results, pages[0], root=root, paper=True)["written"]
    assert [Path(file).suffix for file in written] == [".html", ".md", ".tex", ".csv"]
    shown, bare_page = (page.read_text().count("data:image/") for page in pages)
    assert shown > bare_page, "only the root has the images"
    mixed = degla.report([files[1], results[0]], pages[0], baseline="one")
    assert [method["label"] for method in mixed["methods"]] == labels
    with pytest.raises(InputError, match=r"\Ain-memory-2.json: label 'one' .* is already in in-memory-1.json\."):
        degla.report([results[0], results[0]], pages[0])
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder: no results in this folder\. Make one with"):
        degla.report([tmp_path / "folder"], pages[0])
    for file in tmp_path.glob("one.*"):
        file.rename(tmp_path / "folder" / file.name)
    (tmp_path / "folder" / "attack.json").write_text('{"models": []}')
    of_folder = degla.report([str(tmp_path / "folder"), results[1]], pages[0])
    assert [method["files"] for method in of_folder["methods"]] == [["one.json"], ["in-memory-2.json"]]
    bare = TracedResult.model_validate_json(results[0].model_dump_json())
    with pytest.raises(InputError, match=r"^report: 'one' was read without its items\. Give its JSON file instead\.$"):
        degla.report([bare], pages[0])
    assert not list((tmp_path / "temporary").iterdir())


def test_a_result_as_flat_rows_has_every_score(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", images=3)
    plain = json.loads(degla.evaluate("random:7", ["zeroshot"], root, label="floor").model_dump_json())
    plain["benchmarks"][0]["parts"][0]["scores"][0]["floors"] = {"shorter text": 0.25, "words only": 0.5, "other": 0.0}
    (saved,), rows = plain["benchmarks"], TracedResult.model_validate(plain).rows()
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    assert len({tuple(row) for row in rows}) == 1, "the columns of all rows are the same"
    of_parts = [(part, score) for part in saved["parts"] for score in part["scores"]]
    expected = [("part", part["family"], part["tie"], score) for part, score in of_parts]
    expected += [("average", "", "", score) for score in saved["averages"]]
    assert len(of_parts) > 1 and len(expected) > len(of_parts)
    for row, (kind, family, tie, score) in zip(rows, expected, strict=True):
        ends = score["interval"] or {"low": None, "high": None}
        assert row == {
            **{"label": "floor", "training_seed": 7, "benchmark": "zeroshot", "kind": kind, "name": score["name"]},
            **{"metric": score["metric"], "family": family, "tie": tie, "value": score["value"]},
            **{"low": ends["low"], "high": ends["high"], "chance": score["chance"], "ceiling": score["ceiling"]},
            **{"floor": max(score["floors"].values(), default=None), "n": score["n"], "ties": score["ties"]},
        }


def test_embeddings_of_a_model_in_training_mode_are_those_of_evaluation(tmp_path: Path) -> None:
    vision = CONFIG["vision_cfg"] | {"patch_dropout": 0.5}
    model = degla.load_model(write_model(tmp_path / "model", vision_cfg=vision))
    assert isinstance(model, Encoder)
    pictures = [Image.effect_noise((40, 30), 90).convert("RGB") for _ in range(4)]
    rows = degla.encode_images(model, pictures)
    assert torch.equal(degla.encode_images(model.train(), pictures), rows) and model.training


def test_a_run_leaves_what_is_global_as_it_was(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a search that draws a learning rate before each run would draw the same one again and again."""
    fields = {
        "model": str(tiny_model),
        "data.captions": tiny_pairs["captions"],
        "data.images": tiny_pairs["images"],
        "train.batch_size": 4,
        "train.steps": 1,
        "tracking.progress": False,
        "train.precision": "fp32",
    }
    for kind in (AcceleratorState, GradientState):
        monkeypatch.setattr(kind, "_shared_state", {})
    mine = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=4)
    draws = []
    for number in range(2):
        degla.train("clip", {**fields, "out": tmp_path / str(number)})
        draws.append((random.random(), numpy.random.random(), torch.rand(()).item()))
    assert all(one != other for one, other in zip(*draws, strict=True))
    assert mine.mixed_precision == "bf16" and mine.gradient_accumulation_steps == 4
    AcceleratorState._reset_state()
    degla.train("clip", {**fields, "train.precision": "bf16", "out": tmp_path / "halved"})
    assert Accelerator(cpu=True, mixed_precision="no").mixed_precision == "no"


def test_a_run_computes_in_float32_whatever_the_callers_default_type_is(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """New weights would be made in it."""
    data = {
        "adapter.text_map": True,
        "model": str(tiny_model),
        "data.captions": tiny_pairs["captions"],
        "data.images": tiny_pairs["images"],
    }
    fields = {**data, "train.batch_size": 4, "train.steps": 1, "tracking.progress": False}
    wanted = degla.train("clip", {**fields, "out": tmp_path / "wanted"})
    torch.set_default_dtype(torch.bfloat16)
    try:
        actual = degla.train("clip", {**fields, "out": tmp_path / "actual"})
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
    assert actual.values == wanted.values


def test_a_resume_with_other_fields_is_refused_by_name(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    """Fields are given with every call; a run resumed with other fields would be neither run."""
    fields = {"model": str(tiny_model), "data.captions": tiny_pairs["captions"], "data.images": tiny_pairs["images"],
              "train.batch_size": 4, "train.steps": 2, "tracking.progress": False, "out": tmp_path / "run"}  # fmt: skip
    outcome = degla.train("clip", fields)
    with pytest.raises(InputError, match=r"cannot change a resumed run: --optim.lr was .* and is now 0\.5"):
        degla.train("clip", fields | {"optim.lr": 0.5}, resume=True)
    again = degla.train("clip", fields | {"checkpoint.keep": 7}, resume=True)
    assert again.finished and again.folder == outcome.folder


def test_results_are_not_written_to_a_folder_named_like_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.jsonl").write_text('{"id": "1", "image": "a.jpg", "text": "a black dog chases a white cat"}\n')
    with pytest.raises(InputError, match=r"^s3://bucket/n\.jsonl: only a local path can be written here\."):
        degla.write_negatives("c.jsonl", "s3://bucket/n.jsonl")
    with pytest.raises(InputError, match=r"^memory://bucket/r\.json: only a local path can be written here\."):
        degla.evaluate("world", ["world"], tmp_path / "world", out="memory://bucket/r.json")
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]
