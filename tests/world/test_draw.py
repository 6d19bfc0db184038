from __future__ import annotations

import hashlib
from base64 import b64decode
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from degla.errors import InputError
from degla.evaluation.benchmark import Classification, Retrieval
from degla.evaluation.benchmarks.world import BENCHMARK
from degla.model.load import load_encoder
from degla.records import CaptionRecord, PairItem, read_jsonl
from degla.world import draw
from degla.world.captions import LONG_TEMPLATE, Claim, Phrase, full_claim, say
from degla.world.draw import MARKER, benchmark_scenes, draw_benchmark, draw_pairs
from degla.world.items import FAMILIES
from degla.world.scenes import sample_scene_of, stream
from degla.world.vocabulary import WORDINGS

_DRAWN = (
    "iY+JsLTCT0SDWFxvvaOfOGZSyLenTysoobO6X3FBu6SOTVgfaTxJYzgsSBkuz/DGX6Poz77qFC48UTtI5J6ngYpJ9sjOiZhggtHg5+KPv7jlzcW3"
    "Tho5IRMbq4Cdgzpmh4ijimVYxqx+k49xaGVlqEp9hnqyeYVftY2cgIBhl8ShpojBU0VpoI6Yg054tZ51GENQtbTNYCZAQ0hQOCkxTXEWsZqqu7KB"
    "coSAKStB4vLWM00eV0k4OEdPWjk9hYyKQ00aqqCNmoWGQT46gzxIpd+T0dLOa31NrObFc1aEXk9lp8/OiNVk3P3JLUk82ufTKzMSXYiCW3U2VX+A"
    "gz0+q6+oKhQCys/pjId6TkRgn8+Jf31cmY2XWGVMpZVH0bWdtpmUi4M2vNHD1pZ2Rh4KQjsZv7Zvm51zc5ecyKettHWS6bzMPDhQSSZB3NHRx7zc"
    "wN3HrqvzIGAgzr7oj46HRClMXy8mrn984c3Xvrehp6/H2rHnO05kpqhtZbJRND8io2WnvOrdfZyHvra2ulp6UZBxdpajuz1PVqSt6rcziaKim2CI"
    "qVRhvyUZ9sfmxYdmdjGKpkZJns3llZ7BnZvWRXSHi8jbgFdseJDNxtXcFxsyXJjsvXd19e/gw6qX0MToepOgZm5+rYVscD0+t5nUucut5KWVaZO5"
    "E0Rk7da/vcGffj0+sbewo7GuKipFq6GCSTZAI1lMmYmrxrLX4bfGsb+Rh1h+TXRef5quqbjMSidKk4G5M1N7qc6aKiEwa5KLVkplWHdfRSUxRVI6"
    "pmmtTnBYdmqRm9HJkn/KYnyBi3pthlyBKBUboqiWVUpjvcGbN0BJj3GJPVFQts+4RWpfgnCZ"
)
"""Of the pictures below, in the order of their names: three means each, base64."""


def fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "validation"
    return draw_benchmark(str(folder), split="validation", items_per_part=6, images_per_class=1, retrieval_images=20)


def test_pairs_are_drawn_once_and_the_same_everywhere(tmp_path: Path) -> None:
    drawn = draw_pairs(tmp_path / "a", count=12, seed=5, captions_per_image=3)
    records = list(read_jsonl(CaptionRecord, drawn.captions))
    assert len(records) == 36
    assert len({record.id for record in records}) == 36
    assert len({record.image_id for record in records}) == 12
    for record in records:
        assert Image.open(drawn.images / record.image).size == (64, 64)
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*")}
    assert draw_pairs(str(tmp_path / "a"), count=12, seed=5, captions_per_image=3) == drawn
    assert stamps == {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*")}
    draw_pairs(tmp_path / "b", count=12, seed=5, captions_per_image=3)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


def test_long_captions_are_true_of_what_is_drawn_and_whole_for_the_model(tmp_path: Path) -> None:
    plain = list(read_jsonl(CaptionRecord, draw_pairs(tmp_path / "plain", count=12, captions_per_image=2).captions))
    drawn = draw_pairs(tmp_path / "contexts", count=12, captions_per_image=2, contexts=True)
    records = list(read_jsonl(CaptionRecord, drawn.captions))
    assert [each.model_copy(update={"positives": ()}) for each in records] == plain
    by_words = {
        f"{claim.subject} is {words} {claim.object}": (claim, number)
        for number in range(12)
        for scene in (sample_scene_of("train", stream("pairs", 0, number)),)
        for claim in (full_claim(scene), full_claim(scene).turned)
        for words in WORDINGS[claim.relation][:2]
    }
    for record in records:
        (text,) = record.positives
        (one, number), (other, _) = (by_words[sentence] for sentence in text.rstrip(".").split(". "))
        assert int(record.image_id) == number and one.turned == other
    assert len({record.positives for record in records}) > 12
    thing = Phrase("triangle", "purple", "striped")
    longest = Claim(thing, "left", thing)
    text = " ".join(f"{say(claim, template=LONG_TEMPLATE)}." for claim in (longest, longest.turned))
    assert load_encoder("world").tokenize([text])[0, -1] == 0, "nothing is cut"


def test_other_settings_are_refused(tmp_path: Path) -> None:
    draw_pairs(tmp_path, count=2)
    with pytest.raises(InputError, match=MARKER):
        draw_pairs(tmp_path, count=3)


def test_numbers_and_splits_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    for wrong in ({"count": 0}, {"count": "2"}, {"captions_per_image": -1}, {"seed": 0.5}):
        ((name, value),) = wrong.items()
        with pytest.raises(InputError, match=rf"pairs: {name} is {value!r}; it must be an int"):
            draw_pairs(tmp_path / "pairs", **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"retrieval_images is 0; it must be an int of 1 or more\.$"):
        draw_benchmark(tmp_path / "benchmark", retrieval_images=0)
    with pytest.raises(InputError, match=r"split is 'train'; it must be 'validation' or 'test'\.$"):
        draw_benchmark(tmp_path / "benchmark", split="train")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: Not a directory\. Choose another --out\."):
        draw_pairs(tmp_path / "file" / "pairs", count=1)


def test_interrupted_folder_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("degla.world.draw.write_jsonl", Mock(side_effect=KeyboardInterrupt))
        draw_pairs(tmp_path, count=3)
    with pytest.raises(InputError, match=r"begun.*'count': 3.*'count': 2.*Use another folder"):
        draw_pairs(tmp_path, count=2)  # Images that these settings do not draw may be there.
    drawn = draw_pairs(tmp_path, count=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["captions.jsonl", "images", MARKER]
    assert len(list(drawn.images.iterdir())) == 3


def test_benchmark_reads_what_was_drawn(benchmark: Path) -> None:
    entries = list(BENCHMARK.items(benchmark))
    pairs = [entry for entry in entries if isinstance(entry, PairItem)]
    assert len(pairs) == 2 * 6 * len(FAMILIES)
    classified = [entry for entry in entries if isinstance(entry, Classification)]
    assert len(classified) == 9
    retrieval = [entry for entry in entries if isinstance(entry, Retrieval)]
    assert [len(entry.images) for entry in retrieval] == [20, 20]
    for entry in entries:
        assert BENCHMARK.part(entry.part).name == entry.part
        for image in entry.images:
            assert (benchmark / image.path).exists()
    for entry in retrieval:
        assert {owner for owners in entry.owners for owner in owners} == set(range(20))


def test_parts_and_averages_fit(benchmark: Path) -> None:
    names = [part.name for part in BENCHMARK.parts] + [average.name for average in BENCHMARK.averages]
    assert len(names) == len(set(names))
    assert {entry.part for entry in BENCHMARK.items(benchmark)} == {part.name for part in BENCHMARK.parts}
    assert set(BENCHMARK.headline.values()) <= set(names)
    for average in BENCHMARK.averages:
        assert set(average.of) <= set(names)


def test_order_blind_models_tie_on_swaps_and_orders(benchmark: Path) -> None:
    for entry in BENCHMARK.items(benchmark):
        if isinstance(entry, PairItem):
            positive, negative = (sorted(text.split()) for text in entry.texts)
            assert (positive == negative) == (entry.part.partition("/")[2].partition("_")[0] in ("swap", "order"))


def test_what_a_version_draws_stays(benchmark: Path, tmp_path: Path) -> None:
    """Figures of one WORLD_VERSION are compared, so its texts must stay identical, and its images except for edges.

    Per image: the mean of red, of green in the left half, of blue in the upper half.
    """
    drawn = draw_pairs(tmp_path, count=12, partners=True)
    captions = (benchmark / "retrieval" / "mixed.jsonl", benchmark / "retrieval" / "scenes.jsonl", drawn.captions)
    lines = [
        *(f"{row.id} {row.texts} {row.meta} {row.group}" for row in read_jsonl(PairItem, benchmark / "items.jsonl")),
        *(
            f"{row.id} {row.image} {row.text} {row.distractor_text}"
            for file in captions
            for row in read_jsonl(CaptionRecord, file)
        ),
    ]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == "1f0e83224a6d5d35"
    files = [file for folder in (benchmark, tmp_path) for file in sorted(folder.rglob("*.png"))]
    pictures = [np.asarray(Image.open(file), dtype=float) for file in files]
    means = [(one[:, :, 0].mean(), one[:, :32, 1].mean(), one[:32, :, 2].mean()) for one in pictures]
    assert np.abs(np.array(means) - np.frombuffer(b64decode(_DRAWN), dtype=np.uint8).reshape(-1, 3)).max() < 1.5


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"items\.jsonl"):
        list(BENCHMARK.items(tmp_path))


def test_tested_scenes_are_never_trained_on() -> None:
    trained = {sample_scene_of("train", stream("pairs", 0, number)).content for number in range(1500)}
    for split in ("validation", "test"):
        tested = {scene.content for scene in benchmark_scenes(split, domain="id", count=300, seed=0)}
        assert not trained & tested


def test_another_seed_draws_other_scenes_of_the_split() -> None:
    drawn = [[scene.content for scene in benchmark_scenes("test", domain="id", count=20, seed=seed)] for seed in (0, 1)]
    assert len({*drawn[0]} & {*drawn[1]}) < 5
    assert drawn[0] == [scene.content for scene in benchmark_scenes("test", domain="id", count=20, seed=0)]


def test_more_different_scenes_than_there_are_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = sample_scene_of("test", stream("one"), vocabulary=draw.IN_DOMAIN)
    monkeypatch.setattr(draw, "sample_scene_of", lambda *_, **__: one)
    monkeypatch.setattr(draw, "_FRUITLESS", 20)
    with pytest.raises(InputError, match="retrieval_images is 2, but the test split has about 1 different scene"):
        draw_benchmark(tmp_path / "b", split="test", items_per_part=1, images_per_class=1, retrieval_images=2)


def test_an_empty_file_of_questions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").touch()
    with pytest.raises(InputError, match=r"items\.jsonl: has no questions"):
        list(BENCHMARK.items(tmp_path))
