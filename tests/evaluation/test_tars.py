"""WebDataset tars of a user's own classes: read in place; whatever is wrong with one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from degla.errors import InputError
from degla.evaluation.run import Evaluation
from tests.evaluation.fake_encoders import spreading
from tests.evaluation.published_layouts import COLOURS, encoded, write_tar
from tests.evaluation.test_data_sets import read


def test_webdataset_itself_writes_what_is_read(tmp_path: Path) -> None:
    import webdataset

    folder = tmp_path / "zeroshot" / "mine"
    folder.mkdir(parents=True)
    with webdataset.TarWriter(str(folder / "shard-000.tar")) as writer:
        for number, colour in enumerate(COLOURS):
            writer.write({"__key__": f"r{number}", "png": Image.new("RGB", (6, 6), colour), "cls": number % 2})
    with pytest.raises(InputError, match=r"classnames\.txt is missing"):
        read(tmp_path)
    (folder / "classnames.txt").write_text("cat\ndog\n")
    (folder / "classes.json").write_text('{"templates": ["a drawing of a {}."]}')
    (entry,) = read(tmp_path)
    assert (entry.part, entry.labels, entry.classes) == ("mine", (0, 1, 0), ("cat", "dog"))
    assert entry.templates == ("a drawing of a {}.",)
    result = Evaluation(["zeroshot"], tmp_path, progress=False).score(spreading())
    assert result.benchmarks[0].parts[0].scores[0].n == 3


def test_the_prompts_that_clip_benchmark_writes_beside_tars_are_used(tmp_path: Path) -> None:
    for name, classes in (("mine", "cat\ndog\n"), ("food101", "")):
        folder = tmp_path / "zeroshot" / name
        write_tar(folder / "test" / "0.tar", {"a.png": encoded(COLOURS[0], kind="PNG"), "a.cls": b"1"})
        (folder / "zeroshot_classification_templates.txt").write_text("a drawing of a {c}.\nthe {c}.\n")
        if classes:
            (folder / "classnames.txt").write_text(classes)
    assert [entry.templates for entry in read(tmp_path)] == [("a drawing of a {}.", "the {}.")] * 2
    classes_file = tmp_path / "zeroshot" / "mine" / "classes.json"
    for content, templates in (
        ('{"classes": ["cat", "dog"]}', ("a drawing of a {}.", "the {}.")),
        ('{"templates": ["my {}."]}', ("my {}.",)),
    ):
        classes_file.write_text(content)
        assert [entry.templates for entry in read(tmp_path)][1] == templates
    classes_file.unlink()
    (classes_file.parent / "zeroshot_classification_templates.txt").write_text("a {c}.\n\nno place\n")
    with pytest.raises(InputError, match=r"templates\.txt: every line needs exactly one \{c\}.*'no place'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"x"}, r"record 'a' has no label"),
        ({"a.cls": b"0"}, r"record 'a' has no image"),
        ({"a.jpg": b"x", "a.cls": b"cat"}, r"'a\.cls' must be a class number.*'cat'"),
        ({"a.jpg": b"x", "a.cls": b"7"}, r"label 7; with 2 classes the largest is 1"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"1"}, r"two members for its image"),
        ({"readme.txt": b"x"}, r"has no images"),
    ],
)
def test_wrong_tars_are_named(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "zeroshot" / "mine"
    write_tar(folder / "0.tar", members)
    (folder / "classnames.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path)
    assert str(folder) in str(caught.value)


def test_class_names_that_differ_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "zeroshot" / "mine"
    write_tar(folder / "0.tar", {"a.png": encoded(COLOURS[0], kind="PNG"), "a.cls": b"1"})
    (folder / "classnames.txt").write_text("cat\ndog\n")
    for same in ('["cat", "dog"]', '{"0": "cat", "1": "dog"}'):
        (folder / "classes.json").write_text(f'{{"classes": {same}}}')
        assert read(tmp_path)[0].classes == ("cat", "dog")
    (folder / "classes.json").write_text('{"classes": {"0": "tabby cat", "1": "dog"}}')
    with pytest.raises(InputError, match=r"classes\.json: field 'classes': differs from classnames\.txt"):
        read(tmp_path)


def test_tars_that_are_cut_or_packed_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "zeroshot" / "mine"
    members = {"a.png": encoded(COLOURS[0], kind="PNG") * 300, "a.cls": b"1"}
    write_tar(folder / "0.tar", members)
    (folder / "classnames.txt").write_text("cat\ndog\n")
    whole = (folder / "0.tar").read_bytes()
    (folder / "0.tar").write_bytes(whole[:2000])
    with pytest.raises(InputError, match=r"0\.tar"):
        read(tmp_path)
    write_tar(folder / "0.tar", members, mode="w:gz")
    with pytest.raises(InputError, match=r"0\.tar: cannot be read as an uncompressed tar"):
        read(tmp_path)
