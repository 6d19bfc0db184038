"""Files that a later version reads have the number of their form: a newer one is refused in one line, and one without
a number, as written before there was one, is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from degla.config.fields import from_plain, read_fields, to_plain, to_record
from degla.config.run import recipe_config
from degla.errors import InputError
from degla.evaluation.trainings import TrainedPairs, Training, Trainings
from degla.model.checkpoint import save_encoder
from degla.model.integrity import read_state
from degla.model.load import load_encoder
from degla.model.onnx_folder import OnnxModel
from degla.negatives.files.pack import MANIFEST_KEY, read_manifest
from degla.negatives.run.output import write_manifest
from degla.parse import FORM, NewerFormError, require_form
from degla.study.tuning import _Record
from degla.systems.record import load_record
from tests.tiny import ALL_TOKENS, write_model

TRAINED = Trainings(data=(Training(data=TrainedPairs(captions="captions.jsonl")),))
RECORDED: dict[str, Any] = {"made_from": {"train": {"steps": 3}}, "finished": True}


def _packed_manifest(file: Path) -> dict[str, Any] | None:
    table = pyarrow.table({"rule": ["a"]}).replace_schema_metadata({MANIFEST_KEY: file.read_bytes()})
    pyarrow.parquet.write_table(table, file.with_name("n.parquet"))
    return read_manifest(file.with_name("n.parquet"))


Reader = Callable[[Path], object]
OLD: dict[str, tuple[dict[str, Any], Reader]] = {
    "n.jsonl.manifest.json": ({"rules": ["negation"]}, lambda file: read_manifest(file.with_name("n.jsonl"))),
    "packed.json": ({"rules": ["negation"]}, _packed_manifest),
    "config.json": ({"recipe": "clip", "optim": {"lr": 3e-5}}, read_fields),
    "config.yaml": ({"recipe": "clip", "optim": {"lr": 3e-5}}, read_fields),
    "degla_training.json": (TRAINED.model_dump(exclude={"schema_version"}), lambda file: Trainings.read(file.parent)),
    "record.json": (RECORDED, lambda file: _Record.read(file.parent)),
}
"""Content without a number, and what reads it."""
NEWER: dict[str, Reader] = {name: reader for name, (_, reader) in OLD.items()} | {
    "state.json": lambda file: read_state(file.parent),
    "degla_onnx.json": lambda file: OnnxModel(file.parent, name="graphs"),
}


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_form_is_refused_in_a_line_that_names_file_and_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps({"schema_version": 2, "versions": {"degla": "7.0"}, "new": 1}))
    shown = "n.parquet" if name == "packed.json" else name
    message = rf"^\S*/{shown}: field 'schema_version' is 2, but this version of degla reads 1\. "
    with pytest.raises(NewerFormError, match=rf"{message}A newer version wrote it \(degla 7\.0\): update degla\.\Z"):
        NEWER[name](tmp_path / name)


@pytest.mark.parametrize("name", OLD)
def test_a_file_without_a_number_has_the_first_form(name: str, tmp_path: Path) -> None:
    content, read = OLD[name]
    (tmp_path / name).write_text(json.dumps(content))
    old = read(tmp_path / name)
    (tmp_path / name).write_text(json.dumps(FORM | content))
    new = read(tmp_path / name)
    assert old == (content if "rules" in content else new), "a manifest comes back as it is"
    assert new not in (None, (None, {}), _Record()), "the file is not passed over"


@pytest.mark.parametrize("name", [name for name in NEWER if name != "record.json"])
@pytest.mark.parametrize("number", ["1", 0, None])
def test_a_number_of_no_version_is_refused_with_another_remedy(name: str, number: object, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps({"schema_version": number, "degla": "0.1"}))
    with pytest.raises(InputError, match=rf"field 'schema_version' is {number!r}, but .* reads 1\.") as refused:
        NEWER[name](tmp_path / name)
    assert "newer version wrote it (" not in str(refused.value) and not isinstance(refused.value, NewerFormError)


def test_a_newer_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "system.json").write_text('{"format": 2, "degla": "7.0"}')
    message = r"system\.json: field 'format' is 2, but .* reads 1\. A newer version wrote it \(degla 7\.0\): update"
    with pytest.raises(NewerFormError, match=message):
        load_record(tmp_path, system="ugcl")


def test_a_newer_model_folder_is_refused_and_one_without_a_number_is_read(tiny_model: Path, tmp_path: Path) -> None:
    model = load_encoder(str(tiny_model))  # Its configuration is open_clip's own, without a number.
    save_encoder(model, tmp_path)
    file = tmp_path / "open_clip_config.json"
    content = json.loads(file.read_text())
    assert content["degla_schema_version"] == 1 and load_encoder(str(tmp_path)).fingerprint == model.fingerprint
    file.write_text(json.dumps(content | {"degla_schema_version": 2}))
    message = r"open_clip_config\.json: field 'degla_schema_version' is 2, but .* reads 1\. A newer .*: update degla\.$"
    with pytest.raises(NewerFormError, match=message):
        load_encoder(str(tmp_path))


def test_a_newer_model_of_the_hub_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    stored, revision = tmp_path / "hub" / "models--org--tiny", "0" * 40
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text(revision)
    folder = write_model(stored / "snapshots" / revision, text_cfg=ALL_TOKENS)
    assert load_encoder("hf-hub:org/tiny").fingerprint == load_encoder(str(folder)).fingerprint
    file = folder / "open_clip_config.json"
    # Before open_clip reads it, or the weights: it knows as little of a newer form.
    file.write_text('{"degla_schema_version": 2, "model_cfg": {"towers": []}}')
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(NewerFormError, match=r"open_clip_config\.json: field 'degla_schema_version' is 2, .* degla\.$"):
        load_encoder("hf-hub:org/tiny")


def test_what_this_version_writes_has_the_number_first(tmp_path: Path) -> None:
    TRAINED.write(tmp_path)
    _Record(**RECORDED).write(tmp_path)
    write_manifest(tmp_path / "n.jsonl", {"rules": []})
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    for file in files:
        assert next(iter(json.loads(file.read_text()).items())) == ("schema_version", 1), file


def test_a_recorded_configuration_comes_back_with_and_without_its_number() -> None:
    config = recipe_config("negclip")
    record = to_record(config)
    assert next(iter(record.items())) == ("schema_version", 1)
    assert from_plain(record, where="file") == from_plain(to_plain(config), where="file") == config


@pytest.mark.parametrize("number", [True, 1.0, [1] * 10_000, "1\n" * 1000, -1, float("nan"), {"a": 1}])
def test_any_other_value_is_one_short_line(number: object) -> None:
    """Also those that Python takes for equal to 1: a manifest with one would hand it on."""
    with pytest.raises(InputError, match=r"\Afile: field 'schema_version' is [^\n]{,80}, but .* Again\.\Z") as refused:
        require_form({"schema_version": number}, where="file", remedy="Again.")
    assert not isinstance(refused.value, NewerFormError)


def test_a_newer_form_is_one_short_line_whatever_its_writer() -> None:
    with pytest.raises(NewerFormError, match=r"\Afile: [^\n]{,500}: update degla\.\Z"):
        require_form({"schema_version": 10**4000, "degla": "7\n" * 1000}, where="file")


def test_what_is_no_number_is_not_compared() -> None:
    require_form({}, where="file")
    with pytest.raises(
        InputError, match=r"^file: field 'format' is None, but this version of degla reads 2\. Again\.$"
    ):
        require_form({}, where="file", remedy="Again.", field="format", reads=2)
