"""A folder fetches nothing without a flag; without a network the error is immediate; data are checked before models."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from degla import cli
from degla.errors import InputError
from degla.model import hub
from degla.model.load import load_encoder
from tests.tiny import CONFIG, timm_tower, write_model

Pairs = dict[str, Path]


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The hub for a user with a network; lists every attempted connection and name look-up, all refused."""
    from huggingface_hub import constants

    tried: list[Any] = []

    def refuse(*arguments: Any, **options: Any) -> Any:
        tried.append(arguments)
        raise OSError(113, "No route to host")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    copied = sys.modules.get("transformers.utils.hub")
    if hasattr(copied, "_is_offline_mode"):
        monkeypatch.setattr(copied, "_is_offline_mode", False)
    hub._forget_connections()
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield tried
    hub._forget_connections()


def _changed(folder: Path, part: str, **fields: Any) -> Path:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"][part] |= fields
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("text_cfg", {"hf_model_name": "org/text-tower"}, "'text_cfg.hf_model_name' names 'org/text-tower'"),
        ("text_cfg", {"hf_tokenizer_name": "org/tok"}, "'text_cfg.hf_tokenizer_name' names 'org/tok'"),
        ("text_cfg", {"hf_tokenizer_name": "hf-hub:org/tok"}, "'text_cfg.hf_tokenizer_name' names 'hf-hub:org/tok'"),
        (
            "vision_cfg",
            {"timm_model_name": "hf-hub:org/tower"},
            "'vision_cfg.timm_model_name' names 'hf-hub:org/tower'",
        ),
    ],
)
def test_a_folder_fetches_nothing(
    part: str, fields: dict[str, Any], message: str, online: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(hub.ALLOWED, raising=False)
    folder = _changed(write_model(tmp_path / "model", vision_cfg=timm_tower()), part, **fields)
    with pytest.raises(InputError) as caught:
        load_encoder(str(folder))
    assert message in str(caught.value) and str(folder / "open_clip_config.json") in str(caught.value)
    assert "--allow-download" in str(caught.value) and "\n" not in str(caught.value)
    assert online == []


@pytest.mark.parametrize("allowed", ["", "1"])
def test_a_folder_reads_no_other_folder(
    allowed: str, online: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hub.ALLOWED, allowed)
    other, folder = tmp_path / "other", write_model(tmp_path / "model", vision_cfg=timm_tower())
    other.mkdir()
    (other / "config.json").write_text('{"architecture": "resnet18", "model_type": "bert"}')
    _changed(folder, "vision_cfg", timm_model_name=f"local-dir:{other}")
    with pytest.raises(InputError, match=rf"names 'local-dir:{other}', another folder\."):
        load_encoder(str(folder))
    folder = _changed(write_model(tmp_path / "text"), "text_cfg", hf_model_name=str(other))
    with pytest.raises(InputError, match=rf"names '{other}', another folder\."):
        load_encoder(str(folder))
    assert online == []


@pytest.mark.parametrize(("at_hub", "trusting"), [(False, False), (True, False), (True, True)])
def test_a_model_does_not_run_its_code_or_ask_whether_to(
    at_hub: bool, trusting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n" * 9))  # What is piped in must not be taken for an answer.
    options = {"trust_remote_code": True} if trusting else {}
    text = {"hf_tokenizer_name": "org/tok", "tokenizer_kwargs": options}
    folder = _changed(write_model(tmp_path / "model"), "text_cfg", **text)
    if at_hub:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        # Before version 5 it has a copy.
        monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "hub"), raising=False)
        stored, revision = tmp_path / "hub" / "models--org--tok", "0" * 40
        (stored / "refs").mkdir(parents=True)
        (stored / "refs" / "main").write_text(revision)
        (stored / "snapshots").mkdir()
        (stored / "snapshots" / revision).symlink_to(folder)
    run = tmp_path / "run"
    (folder / "evil.py").write_text(f"open({str(run)!r}, 'w')\nclass Evil: pass\n")
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}')
    name = "hf-hub:org/tok" if at_hub else str(folder)
    with pytest.raises(
        InputError, match=rf"^{re.escape(name)}: needs code of its own \('auto_map'\), which is not run\."
    ):
        load_encoder(name)
    assert not run.exists()


def test_loads_in_two_threads_leave_the_settings_of_transformers() -> None:
    module = importlib.import_module("transformers.dynamic_module_utils")
    before = module.get_class_in_module
    inside, outside = threading.Event(), threading.Event()

    def other() -> None:
        with hub.refusing_code("other"):
            inside.set()
            outside.wait(1)

    thread = threading.Thread(target=other)
    with hub.refusing_code("one"):
        thread.start()
        inside.wait(0.2)  # It waits for this one; otherwise it would put back what this one has set.
    outside.set()
    thread.join()
    assert module.get_class_in_module is before


def test_a_folder_may_fetch_with_the_flag(
    online: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(hub.ALLOWED, "")
    folder = _changed(write_model(tmp_path / "model"), "text_cfg", hf_model_name="org/text-tower")
    captions = tmp_path / "c.jsonl"
    captions.write_text('{"id": "1", "image": "a.png", "text": "a cat"}\n')
    words = ["neighbours", str(captions), "--images", str(tmp_path), "--model", str(folder)]
    words += ["--out", str(tmp_path / "o.jsonl")]
    assert cli.main([*words, "--allow-download"]) == 2
    error = capsys.readouterr().err
    assert "cannot be fetched from the Hugging Face hub: no connection to huggingface.co" in error
    assert len(online) == 1, "the hub was asked again, although there is no connection to it"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "gone.gz"])
def test_merges_must_lie_in_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("outside")
    options = {"bpe_path": name}
    folder = _changed(write_model(tmp_path / "model"), "text_cfg", tokenizer_kwargs=options)
    with pytest.raises(InputError, match=rf"config\.json: field 'bpe_path' is '{name}', but the folder has no file"):
        load_encoder(str(folder))


def test_a_folder_cannot_let_transformers_run_code(tmp_path: Path) -> None:
    options = {"trust_remote_code": True}
    folder = _changed(write_model(tmp_path / "model"), "text_cfg", tokenizer_kwargs=options)
    with pytest.raises(InputError, match=r"'text_cfg\.tokenizer_kwargs\.trust_remote_code' is not allowed"):
        load_encoder(str(folder))


def test_damaged_merges_are_one_line(tmp_path: Path) -> None:
    from degla.world import world_model_folder, world_vocabulary_file

    whole = world_vocabulary_file().read_bytes()
    for number, content in enumerate(
        [b"", whole[:40], whole[:-9], b"no archive", whole[:3000] + b"\0\0\0\0" + whole[3004:], whole[:10] + whole[11:]]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file in world_model_folder().iterdir():
            (folder / file.name).symlink_to(file)
        (folder / world_vocabulary_file().name).unlink()
        (folder / world_vocabulary_file().name).write_bytes(content)
        with pytest.raises(
            InputError, match=r"^[^\n]*bpe_world\.txt\.gz: (damaged (gzip|tokenizer) file: |has 514 tokens)"
        ):
            load_encoder(str(folder))


def test_a_small_file_of_merges_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from degla.world import world_vocabulary_file

    text = CONFIG["text_cfg"] | {"tokenizer_kwargs": {"bpe_path": world_vocabulary_file().name}}
    folder = write_model(tmp_path / "model", text_cfg=text)
    (folder / world_vocabulary_file().name).write_bytes(gzip.compress(bytes(10**6)))
    monkeypatch.setattr("degla.parse.LARGEST_FILE", 10**5)
    with pytest.raises(InputError, match=r"bpe_world\.txt\.gz: more than 100,000 bytes when unpacked\. Fetch or copy"):
        load_encoder(str(folder))


def test_a_folder_downloads_no_tagger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CONFIG["text_cfg"]["tokenizer_kwargs"] | {"reduction_mask": "syntax"}
    folder = _changed(write_model(tmp_path / "model"), "text_cfg", tokenizer_kwargs=options)
    with pytest.raises(InputError, match=r"reduction_mask' is 'syntax', which downloads a tagger of NLTK"):
        load_encoder(str(folder))
    monkeypatch.setenv(hub.ALLOWED, "1")
    assert load_encoder(str(folder)).tokenize.reduction_fn is not None


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    from degla.world import world_vocabulary_file

    text = CONFIG["text_cfg"] | {"vocab_size": 600, "tokenizer_kwargs": {"bpe_path": world_vocabulary_file().name}}
    folder = write_model(tmp_path / "model", text_cfg=text)
    (folder / world_vocabulary_file().name).write_bytes(world_vocabulary_file().read_bytes())
    with pytest.raises(InputError, match=r"has 2261 tokens, but the model has 600 .*tokenizer of another model"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    "name", ["ViT-B-16-SigLIP:random", "ViT-B-32-quickgelu:openai", "hf-hub:org/name", "roberta-ViT-B-32:random"]
)
def test_no_network_is_reported_at_once(
    name: str, online: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    # No tower is built: files to fetch are looked up before, or right after.
    if "SigLIP" in name:
        monkeypatch.setattr("open_clip.create_model_and_transforms", lambda *_, **__: (None, None, None))
    parts = "its text tower or tokenizer " if name.endswith(":random") else ""
    with pytest.raises(InputError, match=rf"^{name}: {parts}is not on this machine.* \(no connection to "
                       r"huggingface\.co: No route to host\)"):  # fmt: skip
        load_encoder(name)
    assert len(online) == 1, "the hub was asked again, although there is no connection to it"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("logit_scale"), "the weights do not match this architecture: they lack logit_scale"),
        (OSError("no tokenizer"), "its text tower or tokenizer is not on this machine"),
    ],
)
def test_a_file_of_weights_that_do_not_match_is_no_matter_of_the_network(
    error: Exception, message: str, online: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    weights = tmp_path / "weights.pt"
    torch.save({"visual.proj": torch.zeros(2, 2)}, weights)
    monkeypatch.setattr("open_clip.create_model_and_transforms", fail)
    with pytest.raises(InputError, match=f"^ViT-B-16-SigLIP:{re.escape(str(weights))}: {message}"):
        load_encoder(f"ViT-B-16-SigLIP:{weights}")


def test_a_name_that_is_never_found_is_given_up(monkeypatch: pytest.MonkeyPatch, online: list[Any]) -> None:
    import threading

    forever = threading.Event()
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: forever.wait() and None)
    why = hub.why_unreachable(seconds=0.05)
    assert why == "no connection to huggingface.co: no answer in 0.05 seconds"


def test_a_proxy_is_asked_in_place_of_the_hub(monkeypatch: pytest.MonkeyPatch, online: list[Any]) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    requests: list[Any] = []
    monkeypatch.setattr(socket, "create_connection", lambda place, **_: requests.append(place) or socket.socket())
    assert hub.why_unreachable(seconds=60) is None
    assert requests == [("proxy.example", 3128)]


def test_data_come_before_the_model(
    tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ("degla.model.load", "degla.training.loop", "degla.interpolate", "degla.doctor.examine")
    for place in places:  # Collected before patching the first, since the others import its function.
        importlib.import_module(place)
    for place in places:
        monkeypatch.setattr(f"{place}.load_encoder", lambda *_, **__: pytest.fail("a model was looked up"))
    gone, images = str(tmp_path / "gone.jsonl"), str(tiny_pairs["images"])
    data = ["--data.captions", gone, "--data.images", images, "--data.negatives", str(tiny_pairs["negatives"])]
    whole = [word.replace(gone, str(tiny_pairs["captions"])) for word in data]
    whole += ["--data.negatives-per-caption", "2", "--train.batch-size", "4"]
    validation = ["--validation.benchmarks", "sugarcrepe", "--validation.root", str(tmp_path / "nowhere")]
    flags = ["--benchmarks", "sugarcrepe", "--root", str(tmp_path / "nowhere")]
    model, out = "ViT-B-32-quickgelu:openai", ["--out", str(tmp_path / "out.json")]
    lines = ["--out", str(tmp_path / "out.jsonl")]
    for words, missing in (
        (["train", "degla", *data, "--out", str(tmp_path / "run")], "gone.jsonl"),
        (["train", "degla", *whole, *validation, "--out", str(tmp_path / "run")], "nowhere"),
        (["doctor", "degla", *data], "gone.jsonl"),
        (["evaluate", model, *flags, *out], "nowhere"),
        (["attack", model, *flags, *out], "nowhere"),
        (["interpolate", model, model, *flags, "--out", str(tmp_path / "sweep")], "nowhere"),
        (["neighbours", gone, "--images", images, "--model", model, *lines], "gone.jsonl"),
        (["negatives", "judge", gone, "--captions", gone, "--clip", model, "--images", images, *lines], "gone.jsonl"),
    ):
        assert cli.main(words) in (1, 2)
        written = capsys.readouterr()
        assert missing in written.err + written.out, words
