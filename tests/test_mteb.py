"""Models of this package as mteb models, and reading of mteb's results."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import degla
from degla.cli import main
from degla.errors import InputError
from degla.evaluation.in_print import mteb_section
from degla.mteb import MtebScore, mteb_model, read_mteb_results
from tests.tiny import CAPTIONS


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the three names used from mteb, if mteb is not installed."""
    try:
        import mteb  # noqa: F401
    except ImportError:
        modules = {name: ModuleType(name) for name in ("mteb", "mteb.models")}
        encoder, meta = ModuleType("mteb.models.abs_encoder"), ModuleType("mteb.models.model_meta")
        encoder.AbsEncoder = type("AbsEncoder", (), {})  # type: ignore[attr-defined]
        meta.ModelMeta = SimpleNamespace(create_empty=lambda fields: SimpleNamespace(**fields))  # type: ignore[attr-defined]
        meta.ScoringFunction = SimpleNamespace(COSINE="cosine")  # type: ignore[attr-defined]
        for name, module in (modules | {encoder.__name__: encoder, meta.__name__: meta}).items():
            monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("stand_in")
def test_a_model_embeds_what_mteb_gives(tiny_model: Path, tiny_pairs: dict[str, Path]) -> None:
    from PIL import Image

    wrapper, model = mteb_model(str(tiny_model)), degla.load_model(str(tiny_model))
    pictures = [Image.open(path) for path in sorted(tiny_pairs["images"].glob("*.png"))[:4]]
    texts, images = degla.encode_captions(model, CAPTIONS[:4]), degla.encode_images(model, pictures)
    options: dict[str, Any] = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    embeddings = wrapper.encode([{"text": CAPTIONS[:3]}, {"text": CAPTIONS[3:4]}], **options)
    torch.testing.assert_close(embeddings, texts)
    torch.testing.assert_close(wrapper.encode([{"image": pictures}], **options), images)
    both = wrapper.encode([{"text": CAPTIONS[:4], "image": pictures}], batch_size=2, **options)
    torch.testing.assert_close(both, torch.nn.functional.normalize(texts + images, dim=-1))
    assert wrapper.mteb_model_meta.name == f"degla/{tiny_model.name}"
    assert wrapper.mteb_model_meta.revision == model.fingerprint[:16]
    with pytest.raises(InputError, match="has neither texts nor images, but audio"):
        wrapper.encode([{"audio": [1]}], **options)
    torch.testing.assert_close(mteb_model(tiny_model).encode([{"text": CAPTIONS[:4]}], **options), texts)
    with pytest.raises(InputError, match="mteb_model: NoneType is not a degla model"):
        mteb_model(None)  # type: ignore[arg-type]


def test_mteb_itself_scores_a_model(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb")
    import datasets
    from mteb.abstasks.image.image_text_pair_classification import AbsTaskImageTextPairClassification

    paths = sorted(tiny_pairs["images"].glob("*.png"))[:6]
    rows = {"image": [str(path) for path in paths], "caption": CAPTIONS[:6], "negative": [*CAPTIONS[1:6], CAPTIONS[0]]}
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())

    class Pairs(AbsTaskImageTextPairClassification):
        images_column_names = ("image",)
        texts_column_names = ("caption", "negative")
        metadata = mteb.get_task("SugarCrepe").metadata.model_copy(update={"name": "Pairs"})

        def load_data(self, **_: Any) -> None:
            self.dataset, self.data_loaded = datasets.DatasetDict({"test": dataset}), True

    result = mteb.evaluate(mteb_model(str(tiny_model)), tasks=[Pairs()], cache=mteb.ResultCache(tmp_path))
    model = degla.load_model(str(tiny_model))
    images = degla.encode_images(model, paths)
    true, false = (degla.encode_captions(model, rows[name]) for name in ("caption", "negative"))
    right = ((images * true).sum(1) >= (images * false).sum(1)).float().mean()
    (row,) = result.task_results[0].scores["test"]
    assert row["text_acc"] == pytest.approx(float(right))
    # Its results are read back and appear in a report.
    assert read_mteb_results(tmp_path) == [MtebScore("Pairs", "test", "default", row["main_score"])]
    (section,) = mteb_section({"tiny": tmp_path})
    assert f"| Pairs | test | default | {100 * row['main_score']:.1f} |" in section.markdown()


def _result(folder: Path, task: str, **scores: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{task}.json"
    file.write_text(json.dumps({"task_name": task, "mteb_version": "2.26", "scores": scores}))
    return file


def test_results_are_read_back(tmp_path: Path) -> None:
    row = {"hf_subset": "default", "languages": ["eng-Latn"], "main_score": 0.25, "accuracy": 0.3}
    _result(tmp_path / "results" / "model" / "revision", "Winoground", test=[row])
    (tmp_path / "results" / "model" / "revision" / "model_meta.json").write_text("{}")
    file = _result(tmp_path, "AROFlickrOrder", test=[row | {"main_score": 1}], dev=[row | {"hf_subset": "b"}, row])
    assert read_mteb_results(file) == [
        MtebScore("AROFlickrOrder", "dev", "b", 0.25),
        MtebScore("AROFlickrOrder", "dev", "default", 0.25),
        MtebScore("AROFlickrOrder", "test", "default", 1.0),
    ]
    assert [each.task for each in read_mteb_results(tmp_path)] == ["AROFlickrOrder"] * 3 + ["Winoground"]


def test_what_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has no mteb results"):
        read_mteb_results(tmp_path)
    file = tmp_path / "x.json"
    for content, error in (('{"a": 1}', "KeyError at 'scores'"), ('{"scores": {"test": [{}]}}', "KeyError at 'main_sc"),
                           ('{"scores": []}', "not an mteb result: AttributeError")):  # fmt: skip
        file.write_text(content)
        with pytest.raises(InputError, match=rf"x\.json: not an mteb result: .*{error.partition(': ')[2] or error}"):
            read_mteb_results(file)
    monkeypatch.setitem(sys.modules, "mteb.models.abs_encoder", None)
    with pytest.raises(InputError, match=r"which is not installed\. Install it: pip install 'degla\[mteb\]'"):
        mteb_model("world")


def test_results_stand_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"hf_subset": "default", "main_score": 0.25}
    _result(tmp_path / "base", "Winoground", test=[row])
    _result(tmp_path / "tuned", "Winoground", test=[row | {"main_score": 0.375}])
    _result(tmp_path / "tuned", "ARO", test=[row | {"main_score": 1}])
    _result(tmp_path / "tuned", "Cola", test=[row | {"main_score": math.nan}])
    (section,) = mteb_section({"base": tmp_path / "base", "tuned": tmp_path / "tuned"})
    assert "| Cola | test | default | – | – |" in section.markdown(), "undefined"
    text = section.markdown()
    assert "## Measured by mteb" in text and "| task | split | subset | base | tuned |" in text
    assert "| ARO | test | default | – | 100.0 |" in text and "| Winoground | test | default | 25.0 | 37.5 |" in text
    assert list(mteb_section({})) == []
    assert main(["report", str(tmp_path / "x.json"), "--mteb", str(tmp_path)]) == 2
    assert "must be LABEL=PATH" in capsys.readouterr().err
