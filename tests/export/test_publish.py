"""Uploads to, and models from, a stand-in for the hub; failures are one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.models import load_model
from degla.evaluation.trainings import Trainings
from degla.export.publish import publish
from degla.export.run import export
from degla.model.checkpoint import save_encoder
from degla.model.hub import ALLOWED
from degla.model.load import load_encoder
from degla.parse import NewerFormError
from degla.training.loop import train
from tests.export.hub_server import FakeHub, fake_hub
from tests.export.made import write_clip
from tests.model.test_load_transformers import write_tokenizer
from tests.tiny import ALL_TOKENS, write_model
from tests.training.configs import interrupted, tiny_config

pytest.importorskip("transformers")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


def test_a_model_is_uploaded_with_its_card(
    server: FakeHub, all_tokens_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(all_tokens_model), "--to", "me/tiny", "--license", "mit"]) == 0
    assert set(server.files) == {"README.md", "open_clip_config.json", "open_clip_model.safetensors"}
    assert b"license: mit" in server.files["README.md"] and b"# tiny" in server.files["README.md"]
    assert ("POST", "/api/repos/create") in server.asked and set(server.tokens) == {"Bearer hf_test"}
    output = capsys.readouterr().out
    assert f"{server.address}/me/tiny" in output and "open_clip_model.safetensors" in output


def test_an_exported_folder_goes_as_it_is(server: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    export(str(tiny_model), to="transformers", out=tmp_path / "out")
    assert main(["publish", str(tmp_path / "out"), "--to", "me/tiny"]) == 0
    assert server.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for flag in (["--license", "mit"], ["--form", "onnx"]):
        server.files.clear()
        assert main(["publish", str(tmp_path / "out"), "--to", "me/tiny", *flag]) == 2 and server.files == {}
    (tmp_path / "out" / ".env").write_text("SECRET=1")
    server.files.clear()
    assert main(["publish", str(tmp_path / "out"), "--to", "me/tiny"]) == 2
    assert server.files == {}


def test_paths_of_this_machine_are_not_sent(server: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    out = export(str(tiny_model), to="open_clip", out=tmp_path / "out").folder
    Trainings(data=({"data": {"captions": "/home/me/c.json"}},)).write(out)
    assert main(["publish", str(out), "--to", "me/tiny"]) == 0
    assert "degla_training.json" not in server.files and "README.md" in server.files
    assert "degla_training.json" not in dict(publish(str(out), to="me/tiny", dry_run=True).files)


def test_a_folder_that_is_no_model_is_not_sent(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A project")
    assert main(["publish", str(tmp_path), "--to", "me/tiny"]) == 2
    assert server.files == {}


def test_a_dry_run_shows_all_and_sends_nothing(
    server: FakeHub, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["publish", str(tiny_model), "--to", "me/tiny", "--form", "transformers", "--dry-run"]) == 0
    output = capsys.readouterr()
    for part in ("MB  model.safetensors", "MB  README.md", "library_name: transformers", "# tiny"):
        assert part in output.out
    assert "nothing was uploaded" in output.err and server.asked == []


@pytest.mark.parametrize("status", [401, 403])
def test_no_right_to_write(status: int, server: FakeHub, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.refuse = status
    assert main(["publish", str(tiny_model), "--to", "you/tiny"]) == 2
    error = capsys.readouterr().err
    assert f"you/tiny: the hub refused ({status}): the token has no write access" in error and "hf auth login" in error


def test_the_hub_is_out_of_order(server: FakeHub, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.refuse = 422
    assert main(["publish", str(tiny_model), "--to", "me/tiny"]) == 1
    assert "me/tiny: the upload failed: " in capsys.readouterr().err


def test_nobody_is_logged_in(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main(["publish", "no-such-model", "--to", "me/tiny"]) == 2
    assert "you are not logged in to the Hugging Face hub. Log in: hf auth login" in capsys.readouterr().err


def test_no_network(server: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["publish", "no-such-model", "--to", "me/tiny"]) == 2
    assert "the Hugging Face hub cannot be reached: no connection to 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tiny", "me/ti ny", "a/b/c", "me/"])
def test_a_wrong_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "no-such-model", "--to", name]) == 2
    assert f"--to '{name}': " in capsys.readouterr().err


def test_a_model_of_transformers_comes_from_the_hub(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    write_clip(tmp_path / "model", max_shard_size="40KB")
    server.models["org/clip"] = tmp_path / "model"
    encoder = load_encoder("hf-hub:org/clip")
    assert encoder.name == "hf-hub:org/clip"
    assert encoder.fingerprint == load_encoder(str(tmp_path / "model")).fingerprint
    # One that open_clip has no form of is scored, as from a folder.
    write_clip(tmp_path / "mixed", text={"hidden_act": "gelu"})
    server.models["org/mixed"] = tmp_path / "mixed"
    mixed, there = load_model("hf-hub:org/mixed"), load_model(str(tmp_path / "mixed"))
    assert (mixed.name, mixed.fingerprint) == ("hf-hub:org/mixed", there.fingerprint)
    # Offline it is read from the cache.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load_encoder("hf-hub:org/clip").fingerprint == encoder.fingerprint


def test_a_model_that_the_hub_does_not_have(server: FakeHub) -> None:
    with pytest.raises(InputError, match=r"^hf-hub:org/none: the hub has no such model, or it is private\."):
        load_encoder("hf-hub:org/none")


def test_a_shard_that_the_hub_does_not_have(server: FakeHub, tmp_path: Path) -> None:
    write_clip(tmp_path / "model", max_shard_size="40KB")
    sorted((tmp_path / "model").glob("model-*.safetensors"))[1].unlink()
    server.models["org/half"] = tmp_path / "model"
    with pytest.raises(InputError, match="weights files are missing, first model-00002"):
        load_encoder("hf-hub:org/half")


def _of_open_clip(server: FakeHub, all_tokens_model: Path, folder: Path) -> Path:
    shutil.copytree(all_tokens_model, folder)
    server.models["org/tiny"] = folder
    return folder


def test_a_model_of_open_clip_comes_from_the_hub(server: FakeHub, all_tokens_model: Path, tmp_path: Path) -> None:
    _of_open_clip(server, all_tokens_model, tmp_path / "model")
    assert load_encoder("hf-hub:org/tiny").fingerprint == load_encoder(str(all_tokens_model)).fingerprint


def test_a_tokenizer_of_the_hub_is_saved_with_the_weights(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an architecture whose tokenizer is on the hub, such as SigLIP's.

    It needs no code, though its model does.
    """
    write_tokenizer(tmp_path / "tokenizer", "clip")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (tmp_path / "tokenizer" / "config.json").write_text(json.dumps(own))
    server.models["org/tok"] = tmp_path / "tokenizer"
    text = ALL_TOKENS | {"vocab_size": 40, "hf_tokenizer_name": "org/tok"}
    folder = write_model(tmp_path / "model", text_cfg=text)
    monkeypatch.setenv(ALLOWED, "1")
    encoder = load_encoder(str(folder))
    monkeypatch.delenv(ALLOWED)
    server.models.clear()
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(str(tmp_path / "saved"))
    texts = ["a red cat", "Two dogs!"]
    assert torch.equal(again.tokenize(texts), encoder.tokenize(texts))


def test_a_resume_compares_what_a_tokenizer_does_not_where_its_files_are(
    server: FakeHub, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tokenizer(tmp_path / "tokenizer", "clip")
    server.models["org/tok"] = tmp_path / "tokenizer"
    text = ALL_TOKENS | {"vocab_size": 40, "hf_tokenizer_name": "org/tok"}
    folder = write_model(tmp_path / "model", text_cfg=text)
    config = tiny_config("clip", model=folder, pairs=tiny_pairs, out=tmp_path / "run")
    monkeypatch.setenv(ALLOWED, "1")
    config = interrupted(config, tmp_path / "run")
    monkeypatch.delenv(ALLOWED)
    server.models.clear()
    for file in (tmp_path / "tokenizer").iterdir():
        # Another file with the same content, as the hub's is not as transformers writes it.
        content = json.loads(file.read_text())
        (folder / file.name).write_text(json.dumps(content, indent=7))
    words = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    first, second, *_ = sorted(vocabulary)
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    right = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(InputError, match=r"the tokenizer of .*model has changed since .*: tokenizer.* is not the file"):
        train(config, resume=True)
    (folder / "tokenizer.json").write_text(right)
    file = folder / "open_clip_config.json"
    before = file.read_text()
    for option, changes in (
        ("strip_sep_token", {"tokenizer_kwargs": {"strip_sep_token": True}}),
        ("tokenizer_mode", {"tokenizer_mode": "clips"}),
        ("hf_tokenizer_name", {"hf_tokenizer_name": None, "tokenizer_kwargs": {"clean": "whitespace"}}),
    ):
        content = json.loads(before)
        content["model_cfg"]["text_cfg"] |= changes
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=f"model has changed since this checkpoint: '{option}' was "):
            train(config, resume=True)
    file.write_text(before)
    assert train(config, resume=True).finished


def test_weights_of_the_hub_are_looked_at_as_those_of_a_folder(
    server: FakeHub, all_tokens_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    file = _of_open_clip(server, all_tokens_model, tmp_path / "model") / "open_clip_model.safetensors"
    state = load_file(all_tokens_model / file.name)  # Not from the file that is overwritten.
    server.models["org/other"] = tmp_path / "model"
    for name, weights, metadata, message in (
        ("tiny", state | {"visual.proj": state["visual.proj"].to(torch.int8)}, {}, r"visual\.proj has the type I8"),
        ("other", state, {"quick_gelu": "false"}, "trained with GELU, but the configuration uses QuickGELU"),
    ):
        save_file(weights, file, metadata)
        for address in (server.address, "http://127.0.0.1:9"):  # Online and offline.
            monkeypatch.setattr(constants, "ENDPOINT", address)
            with pytest.raises(InputError, match=message):
                load_encoder(f"hf-hub:org/{name}")


def test_weights_that_are_not_there_are_no_random_ones(
    server: FakeHub, all_tokens_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    folder = _of_open_clip(server, all_tokens_model, tmp_path / "model")
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(InputError, match=r"^hf-hub:org/tiny: has open_clip_config\.json but no weights in .*python -c"):
        load_encoder("hf-hub:org/tiny")
    assert not any("open_clip_pytorch_model.bin" in path for _, path in server.asked)
    # Only its configuration is cached.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"^hf-hub:org/tiny: is not on this machine, and the Hugging Face hub"):
        load_encoder("hf-hub:org/tiny")


@pytest.mark.parametrize("form", ["open_clip", "transformers"])
def test_half_a_download_is_one_line(
    form: str, server: FakeHub, all_tokens_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    if form == "transformers":
        write_clip(tmp_path / "model")
        server.models["org/tiny"] = tmp_path / "model"
    else:
        _of_open_clip(server, all_tokens_model, tmp_path / "model")
    server.cut.add("org/tiny")
    with pytest.raises(InputError, match=r"^hf-hub:org/tiny: could not be fetched from the hub: .*Run the command ag"):
        load_encoder("hf-hub:org/tiny")


def test_a_newer_form_is_refused_before_weights_are_fetched(
    server: FakeHub, all_tokens_model: Path, tmp_path: Path
) -> None:
    folder = _of_open_clip(server, all_tokens_model, tmp_path / "model")
    (folder / "open_clip_config.json").write_text('{"degla_schema_version": 2, "model_cfg": {"towers": []}}')
    with pytest.raises(NewerFormError, match=r"open_clip_config\.json: field 'degla_schema_version' is 2, .* degla\.$"):
        load_encoder("hf-hub:org/tiny")
    assert not any("safetensors" in path for _, path in server.asked)


def test_pickled_weights_on_the_hub_are_not_fetched(server: FakeHub, tmp_path: Path) -> None:
    write_clip(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    server.models["org/old"] = tmp_path / "model"
    with pytest.raises(InputError, match=r"^hf-hub:org/old: has no model\.safetensors\. .* convert them: python -c"):
        load_encoder("hf-hub:org/old")
    assert not any("pytorch_model.bin" in path for _, path in server.asked)
