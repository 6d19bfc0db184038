"""SPEC, SVO-Probes, EqBen, CREPE and CC-Neg: one of several texts or images, in the forms of their official files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.benchmarks import cc_neg, crepe, eqben, spec, svo_probes
from degla.evaluation.embed import Embedder
from degla.evaluation.image_files import decode_image, decode_item, read_image_file
from degla.evaluation.models import load_model
from degla.records import ItemImage, PairItem
from degla.shelf import BENCHMARKS
from tests.evaluation.fake_encoders import constant, knowing
from tests.evaluation.shelf_contract import (
    assert_constant_ties,
    assert_contract,
    literal_image,
    literal_text,
    paint,
    score,
    tiny_encoder,
    values_of,
)
from tests.odd_images import encoded

Truth = dict[str, list[str]]


def write_csv(file: Path, header: list[str], rows: list[list[object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def write_json(file: Path, rows: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))


def write_spec(root: Path) -> Truth:
    """Three scenes a subset; the right one stands last but one, and first."""
    truth: Truth = {}
    for subset in spec._COUNTS:
        names = [f"7/{place}.jpg" for place in range(3)]
        texts = [f"{subset} dog {place}" for place in range(3)]
        truth |= {f"spec/{subset}/{name}": [text] for name, text in zip(names, texts, strict=True)}
        i2t = [{"query": names[label], "keys": texts, "label": label} for label in (1, 0)]
        t2i = [{"query": texts[label], "keys": names, "label": label} for label in (1, 0)]
        write_json(root / "spec" / subset / "image2text.json", i2t)
        write_json(root / "spec" / subset / "text2image.json", t2i)
    return truth


SVO = ["sentence", "pos_triplet", "neg_triplet", "pos_url", "neg_url", "pos_image_id", "neg_image_id", "subj_neg"]
SVO += ["verb_neg", "obj_neg"]


def write_svo(root: Path) -> Truth:
    rows: list[list[object]] = []
    truth: Truth = {}
    flags = [(True, False, False), (False, True, False), (False, False, True), (True, True, False), (False,) * 3]
    for number, changed in enumerate(flags):
        rows.append([f"A girl, standing {number}.", "girl,stand,grass", "boy,stand,grass", "u", "u", 2 * number,
                     2 * number + 1, *changed])  # fmt: skip
        truth |= {f"svo_probes/images/{2 * number}.jpg": [f"A girl, standing {number}."]}
        truth |= {f"svo_probes/images/{2 * number + 1}.jpg": []}
    write_csv(root / "svo_probes" / "svo_probes.csv", SVO, rows)
    return truth


def write_eqben(root: Path) -> Truth:
    rows, truth = [], {}
    folders = ["eqbenag/a", "eqbengebc/b", "eqbenkubric/loc", "eqbenkubric_attr", "eqbenkubric/cnt", "eqbensd/c"]
    for number, folder in enumerate(folders):
        images = [f"{folder}/{number}_{side}.png" for side in (0, 1)]
        texts = [f"frame {number} {side}" for side in (0, 1)]
        captions: list[object] = [[text, "another"] if number == 0 else text for text in texts]
        rows.append({"image0": images[0], "image1": images[1], "caption0": captions[0], "caption1": captions[1]})
        truth |= {f"eqben/{image}": [text] for image, text in zip(images, texts, strict=True)}
    write_json(root / "eqben" / "all_select.json", rows)
    return truth


CREPE = ["image_id", "caption", "hard_negs", "x", "y", "width", "height"]


def write_crepe(root: Path) -> Truth:
    truth: Truth = {}
    for kind in crepe._COUNTS:
        for complexity in (4, 12):
            rows: list[list[object]] = []
            for number in range(2):
                text = f"{kind}'s dog {complexity} {number}"
                false = [f'a "{word}" {text}' for word in ("red", "blue", "old", *"abcdefghi")[: 11 + number]]
                rows.append([len(truth), text, repr(false), 1, 2, 20 + number, 15])
                truth[f"vg/{len(truth)}.jpg"] = [text]
            name = f"prod_vg_hard_negs_{kind}_complexity_{complexity}.csv"
            write_csv(root / "crepe" / kind / name, CREPE, rows)
    return truth


def write_cc_neg(root: Path) -> Truth:
    rows = [
        {"image": f"{number}.jpg", "caption": f"a man, {number}", "negative_caption": f"not, a man, {number}"}
        for number in range(3)
    ]
    (root / "cc_neg").mkdir(parents=True)
    (root / "cc_neg" / "cc_neg.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return {f"cc_neg/images/{row['image']}": [row["caption"]] for row in rows}


WRITERS = {
    "spec": write_spec,
    "svo_probes": write_svo,
    "eqben": write_eqben,
    "crepe": write_crepe,
    "cc_neg": write_cc_neg,
}


@pytest.mark.parametrize("name", ["eqben", "crepe", "cc_neg"])
def test_oracle_liar_and_constant(name: str, tmp_path: Path) -> None:
    truth = WRITERS[name](tmp_path)
    assert_contract(name, tmp_path, truth, paint(tmp_path, truth))


@pytest.mark.parametrize("name", ["spec", "svo_probes"])
def test_oracle_and_liar_on_one_text(name: str, tmp_path: Path) -> None:
    truth = WRITERS[name](tmp_path)
    colours = paint(tmp_path, truth)
    for lying, worth in ((False, 1.0), (True, 0.0)):
        values = values_of(score(knowing(truth, colours, lying=lying), name, tmp_path).benchmarks[0])
        assert set(values.values()) == {worth}
    if name == "svo_probes":
        assert_constant_ties(name, tmp_path)
        return
    tied = score(constant(), name, tmp_path).benchmarks[0]  # a half for each of two others
    assert {row.value for part in tied.parts for row in part.scores} == {0.25}


@pytest.mark.parametrize("name", WRITERS)
def test_equals_a_literal_reading(name: str, tmp_path: Path) -> None:
    """Every image and text by itself; the best of a row or of a column, crops as the files have them."""
    paint(tmp_path, WRITERS[name](tmp_path), size=(40, 30))
    encoder = tiny_encoder()
    benchmark = BENCHMARKS.load(name).BENCHMARK
    expected = {}
    for item in benchmark.items(tmp_path):
        assert isinstance(item, PairItem)
        if not item.keep:
            continue
        boxes = [(c[0], c[1], c[0] + c[2], c[1] + c[3]) if (c := image.crop) else None for image in item.images]
        images = [
            literal_image(encoder, tmp_path / image.path, box) for image, box in zip(item.images, boxes, strict=True)
        ]
        s = np.array([[float(image @ literal_text(encoder, text)) for text in item.texts] for image in images])
        gold = np.array(item.gold)
        rows = all(gold[at, s[at].argmax()] for at in range(len(s)))
        columns = all(gold[s[:, at].argmax(), at] for at in range(s.shape[1]))
        expected[item.id] = {"text_ok": rows} if len(s) == 1 else {"image_ok": columns}
        if name == "crepe":
            place = sorted(s[0], reverse=True).index(s[0, 0])
            expected[item.id] |= {f"text_ok@{k}": place < k for k in (3, 5, 10)}
        if s.shape[1] > 1 and len(s) > 1:
            expected[item.id] |= {"text_ok": rows, "group_ok": rows and columns}
    result = score(encoder, name, tmp_path)
    assert {item.id: item.ok for item in result.items} == expected and len(expected) > 2


def test_chance_of_one_text_is_one_image_of_all(tmp_path: Path) -> None:
    paint(tmp_path, write_spec(tmp_path))
    result = score(constant(), "spec", tmp_path).benchmarks[0]
    assert [row.chance for part in result.parts for row in part.scores] == pytest.approx([1 / 3] * 12)
    # Which of several images is asked, no text tells.
    assert {part.name.split("/")[0] for part in result.parts if part.scores[0].floors} == {"i2t"}


@pytest.mark.parametrize("beginning", ["", "tenth/"])
def test_both_sets_of_eqben_have_a_composition(beginning: str, tmp_path: Path) -> None:
    truth = write_eqben(tmp_path)
    folder = tmp_path / "eqben"
    rows = json.loads((folder / "all_select.json").read_text())
    rows.append(rows[-1] | {"image0": "eqbenyoucook2/0.png", "image1": "eqbenyoucook2/1.png"})
    (folder / "all_select.json").unlink()
    write_json(folder / ("eqben_subset_10percent_final.json" if beginning else "all_select.json"), rows)
    paint(tmp_path, [*truth, *(f"eqben/eqbenyoucook2/{side}.png" for side in (0, 1))])
    result = score(tiny_encoder(), "eqben", tmp_path).benchmarks[0]
    assert result.headline == {"composition": "mean5.there"}
    names = [score.name for score in result.averages]
    assert names == [*(["kubric", "mean5"] if not beginning else []), "kubric.there", "mean5.there"]
    kubric = [result.named[f"{beginning}eqbenkubric_{kind}"].value for kind in ("loc", "attr", "cnt")]
    others = [result.named[f"{beginning}eqben{name}"].value for name in ("ag", "youcook2", "gebc", "sd")]
    assert result.named["mean5.there"].value == pytest.approx((sum(kubric) / 3 + sum(others)) / 5)


def test_recall_is_among_the_first_of_all_texts(tmp_path: Path) -> None:
    """As CREPE prints it, beside chance and floors: one true text among 12 or 13."""
    paint(tmp_path, write_crepe(tmp_path))
    atom = score(constant(), "crepe", tmp_path, tie="half").benchmarks[0].parts[0]
    scores = {row.metric: row for row in atom.scores}
    for k in (3, 5, 10):
        share = (k / 12 + k / 13) / 2
        row = scores[f"recall@{k}"]
        assert (row.value, row.chance) == pytest.approx((share, share))
        assert [row.floors[name] for name in ("shorter text", "longer text")] == [1.0, 0.0]
    strict, lenient = (score(constant(), "crepe", tmp_path, tie=tie).benchmarks[0] for tie in ("strict", "lenient"))
    assert set(values_of(strict).values()) == {0.0} and set(values_of(lenient).values()) == {1.0}


def test_texts_that_are_cut_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """CREPE's captions of twelve parts may be longer than CLIP's 77 tokens, 75 of them of the text."""
    texts = [" ".join(["dog"] * count) for count in (75, 76, 90)]
    rows = [{"image": "1.jpg", "caption": text, "negative_caption": "a cat"} for text in texts]
    (tmp_path / "cc_neg").mkdir()
    (tmp_path / "cc_neg" / "cc_neg.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    paint(tmp_path, ["cc_neg/images/1.jpg"])
    score(tiny_encoder(), "cc_neg", tmp_path)
    assert "2 texts are longer than the 77 tokens of tiny, which does not read the end, for example 'dog" in caplog.text
    assert caplog.text.rstrip().endswith("...'.")


@pytest.mark.parametrize("letter", ["犬", "!"])
def test_a_text_without_spaces_that_is_cut_is_told(
    letter: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embedder = Embedder(load_model("world"), root=tmp_path)
    embedder.embed([], [letter * 200])
    assert "1 text is longer than the 32 tokens of world" in caplog.text
    caplog.clear()
    embedder.embed([], [letter])
    assert not caplog.text


def test_published_counts(tmp_path: Path) -> None:
    def sums(benchmark: Benchmark, beginning: str = "") -> int:
        return sum(part.n or 0 for part in benchmark.parts if part.name.startswith(beginning))

    assert (sums(spec.BENCHMARK, "i2t"), sums(spec.BENCHMARK, "t2i")) == (15000, 15000)
    assert sums(eqben.BENCHMARK) == 251048 and sums(crepe.BENCHMARK) == 42406 and sums(cc_neg.BENCHMARK) == 40000
    for name, part in (("spec", "i2t/absolute_size"), ("eqben", "eqbenag"), ("crepe", "atom"), ("cc_neg", "test")):
        WRITERS[name](tmp_path)
        with pytest.raises(InputError, match=rf"'{part}' under .* has \d items?, the published one has [\d,]+"):
            score(constant(), name, tmp_path, allow_missing=False)


def test_rows_of_svo_with_two_changes_are_left_out(tmp_path: Path) -> None:
    write_svo(tmp_path)
    items = [item for item in svo_probes.BENCHMARK.items(tmp_path) if isinstance(item, PairItem)]
    assert [item.part for item in items if item.keep] == ["subject", "verb", "object"]
    assert [item.reason for item in items if not item.keep] == [
        f"{count} of subject, verb and object are changed" for count in (2, 0)
    ]
    assert items[0].gold == ((1,), (0,)) and items[0].meta["neg_triplet"] == "boy,stand,grass"


def test_eqben_reads_frames_blue_first_and_the_light_version(tmp_path: Path) -> None:
    pixels = np.zeros((8, 6, 3), dtype=np.uint8)
    pixels[:, :, 0], pixels[0, 0] = 250, (1, 2, 3)
    frames = [f"eqbenyoucook2/{side}.npy" for side in (0, 1)]
    for frame in frames:
        (tmp_path / "eqben" / frame).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "eqben" / frame, pixels)
    light = tmp_path / "eqben" / "eqbensd" / "1.jpg"
    light.parent.mkdir()
    Image.new("RGB", (8, 8)).save(light)
    row = {"image0": frames[0], "image1": frames[1], "caption0": "a", "caption1": "b"}
    other = row | {"image0": "eqbensd/1.png", "image1": "eqbensd/2.png"}
    write_json(tmp_path / "eqben" / "eqben_subset_10percent_final.json", [row, other])
    first, second = (item for item in eqben.BENCHMARK.items(tmp_path) if isinstance(item, PairItem))
    assert (first.part, second.part) == ("tenth/eqbenyoucook2", "tenth/eqbensd")
    assert [image.path for image in second.images] == ["eqben/eqbensd/1.jpg", "eqben/eqbensd/2.png"]
    path = first.images[0].path
    picture = decode_image(read_image_file(tmp_path, path), tmp_path, path)
    assert (picture.size, picture.getpixel((3, 3)), picture.getpixel((0, 0))) == ((6, 8), (0, 0, 250), (3, 2, 1))
    for wrong in (pixels[:, :, 0], pixels.astype(float)):
        np.save(tmp_path / path, wrong)
        with pytest.raises(InputError, match=r"0\.npy: the image is an array .* not \[height, width, 3\]"):
            read_image_file(tmp_path, path)
    np.save(tmp_path / path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"0\.npy: the image is not a saved numpy array"):
        read_image_file(tmp_path, path)


def test_crepe_crops_and_groups(tmp_path: Path) -> None:
    write_crepe(tmp_path)
    items = {item.id: item for item in crepe.BENCHMARK.items(tmp_path) if isinstance(item, PairItem)}
    item = items["crepe/swap/12/1"]
    assert item.images == (ItemImage(path="vg/7.jpg", crop=(1, 2, 21, 15)),)
    assert (len(item.texts), item.group) == (13, {"complexity": "12"})


def test_a_crop_that_begins_before_its_image_is_black_there() -> None:
    """Visual Genome has such boxes (ranjaykrishna/visual_genome_python_driver, issue 21), CREPE cuts by torchvision."""
    from torchvision.transforms.functional import crop

    picture = Image.fromarray(np.random.default_rng(0).integers(1, 255, (5, 6, 3), dtype=np.uint8))
    content = encoded(picture, "PNG")
    image = decode_item(content, Path(), ItemImage(path="vg/7.png", crop=(-1, -2, 4, 5)))
    assert (np.asarray(image) == np.asarray(crop(picture, top=-2, left=-1, height=5, width=4))).all()
    assert not np.asarray(image)[:2].any() and np.asarray(image)[2:, 1:].all()
    for box in ((-4, 0, 4, 4), (0, -900, 4, 4), (0, 0, 0, 4)):
        with pytest.raises(InputError, match=r"7\.png: crop .* with a part of the image in it"):
            decode_item(content, Path(), ItemImage(path="vg/7.png", crop=box))


def test_commas_of_false_captions_alone_go(tmp_path: Path) -> None:
    write_cc_neg(tmp_path)
    (item, *_) = (item for item in cc_neg.BENCHMARK.items(tmp_path) if isinstance(item, PairItem))
    assert item.texts == ("a man, 0", "not a man 0")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "cc_neg").mkdir()
    (tmp_path / "cc_neg" / "ccneg_preprocessed.pt").write_bytes(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
    with pytest.raises(InputError, match=r"ccneg_preprocessed\.pt: is a pickle(.|\n)*cc_neg\.jsonl"):
        list(cc_neg.BENCHMARK.items(tmp_path))


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("spec", "spec/absolute_size/image2text.json", '[{"query": "a", "keys": ["b", "c"], "label": 2}]',
         r"image2text\.json item 0: .*label 2 is out of range for 2 keys"),
        ("spec", "spec/absolute_size/image2text.json", '[{"query": "a", "keys": ["b", ""], "label": 1}]',
         r"image2text\.json item 0: field 'keys\.1'"),
        ("svo_probes", "svo_probes/svo_probes.csv", "sentence,pos_image_id,neg_image_id,subj_neg,verb_neg,obj_neg\n"
         "a,1,2,yes?,False,False\n", r"svo_probes\.csv line 2: field 'subj_neg'"),
        ("eqben", "eqben/all_select.json", '[{"image0": "x/1.png", "image1": "x/2.png", "caption0": "a", '
         '"caption1": "b"}]', r"all_select\.json item 0: field 'image0': 'x/1\.png' starts with none of eqbenag"),
        ("eqben", "eqben/all_select.json", '[{"image0": "x/1.png", "image1": "x/2.png", "caption0": [], '
         '"caption1": "b"}]', r"all_select\.json item 0: field 'caption0'"),
        ("crepe", "crepe/atom/prod_vg_hard_negs_atom_complexity_4.csv", "image_id,caption,hard_negs,x,y,width,height\n"
         "1,a,open('x'),0,0,5,5\n", r"complexity_4\.csv line 2: column 'hard_negs' must be a Python list of texts"),
        ("crepe", "crepe/atom/prod_vg_hard_negs_atom_complexity_4.csv", "image_id,caption,hard_negs,x,y,width,height\n"
         "1,a,['b'],0,0,0,5\n", r"complexity_4\.csv line 2: field 'width'"),
        ("crepe", "crepe/atom/prod_vg_hard_negs_atom_complexity_4.csv", "image_id,caption,hard_negs,x,y,width,height\n"
         "1,a,[''],0,0,5,5\n", r"complexity_4\.csv line 2: field 'hard_negs' has no text"),
        ("crepe", "crepe/atom/prod_vg_hard_negs_atom_complexity_x.csv", "",
         r"complexity_x\.csv: the file name must end"),
        ("cc_neg", "cc_neg/cc_neg.jsonl", '{"image": "a", "caption": "b"}', r"jsonl line 1: field 'negative_caption'"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(name: str, file: str, content: str, message: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS.load(name).BENCHMARK
    with pytest.raises(InputError) as caught:
        list(benchmark.items(tmp_path))
    assert benchmark.source in str(caught.value) and benchmark.layout in str(caught.value)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        list(benchmark.items(tmp_path))
