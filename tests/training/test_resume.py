"""A run that was stopped and resumed in a new process equals one that never stopped, bit for bit."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from degla.cli import main
from degla.config.fields import differences, from_plain, read_config, to_plain
from degla.config.sections import L2SPConfig
from degla.errors import DeglaError, InputError
from degla.model import checkpoint as checkpoint_module
from degla.model import linear_kernel
from degla.model.adapters import AdapterConfig
from degla.model.onnx_folder import INFO
from degla.model.runs import checkpoints
from degla.model.tokenizer import CONFIG_NAME
from degla.training.loop import check_new, train
from tests.launch import run
from tests.tiny import write_model
from tests.training.configs import cut_off, interrupted, tiny_config

Pairs = dict[str, Path]
WEIGHTS = "open_clip_model.safetensors"


def _assert_equal_checkpoints(one: Path, other: Path) -> None:
    for name in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = load_file(one / name), load_file(other / name)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name
    left, right = (torch.load(path / "optimizer.pt", weights_only=True) for path in (one, other))
    assert left["optimizer"]["param_groups"] == right["optimizer"]["param_groups"]
    for number, state in left["optimizer"]["state"].items():
        assert all(torch.equal(value, right["optimizer"]["state"][number][key]) for key, value in state.items())
    assert all(torch.equal(left["memory"][name], right["memory"][name]) for name in left["memory"])
    assert left["memory"]["cross_modal_rank"].abs().max() > 0, "the thresholds never moved; the test shows nothing"
    assert torch.equal(left["random"][0]["torch"], right["random"][0]["torch"])
    assert left["random"][0]["python"] == right["random"][0]["python"]
    states = [json.loads((path / "state.json").read_text()) for path in (one, other)]
    for state in states:
        del state["sha256"]  # The order of a safetensors header, and so the file, is not reproducible.
    assert states[0] == states[1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_is_bit_equal_through_a_new_process_in_mid_epoch(
    precision: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    loop: dict[str, Any] = {"steps": 8, "precision": precision}
    whole = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", **loop)
    moving = replace(whole.objective["cross_modal_rank"], weight=0.3)
    whole = replace(whole, objective=whole.objective | {"cross_modal_rank": moving})
    train(whole)
    # An epoch has six steps: step 3 is in the middle of the first, and the run ends in the second.
    parts = replace(whole, out=tmp_path / "parts", checkpoint=replace(whole.checkpoint, every_steps=3))
    train(parts)
    cut_off(parts, at=3)
    # With another hash seed, too: see test_processes.py, with torchrun.
    done = run(["-m", "degla", "train", "--resume", str(tmp_path / "parts"), "--checkpoint.every-steps", "0"])
    assert done.wait() == 0, done.stderr
    saved = [path.name for path in checkpoints(tmp_path / "parts")]
    assert saved == ["step-3", "step-6", "step-8"], "the resumed epoch ends where it ended before"
    _assert_equal_checkpoints(tmp_path / "whole" / "step-8", tmp_path / "parts" / "step-8")
    metrics = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
               for name in ("whole", "parts")]  # fmt: skip
    assert [row["step"] for row in metrics[1]] == list(range(1, 9))
    assert [(row["loss"], row["epoch"]) for row in metrics[0]] == [(row["loss"], row["epoch"]) for row in metrics[1]]


@pytest.mark.skipif(not linear_kernel.has_kernel(), reason="this build of PyTorch has no such kernel")
@pytest.mark.parametrize("began", [True, False])
def test_a_resumed_run_computes_by_the_kernel_that_it_began_with(
    began: bool, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some machines both kernels are about equally fast, so the measurement is not stable."""
    monkeypatch.setattr(linear_kernel, "_LARGE", 0)
    monkeypatch.setattr(linear_kernel, "_settled", None)
    monkeypatch.setattr(linear_kernel, "measured", lambda: began)
    whole = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", steps=4)
    train(whole)
    parts = interrupted(whole, tmp_path / "parts")
    monkeypatch.setattr(linear_kernel, "measured", lambda: not began)
    train(parts, resume=True)
    one, other = (load_file(tmp_path / name / "step-4" / WEIGHTS) for name in ("whole", "parts"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_sigterm_saves_and_exits_with_its_own_status(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    endless = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=folder, steps=100_000)
    (tmp_path / "run.json").write_text(json.dumps(to_plain(endless)))
    # The program is stopped from inside, when it has taken its fourth step, whenever that is.
    code = (
        "import os, signal, sys\n"
        "from degla.cli import main\n"
        "from degla.training.metrics import Metrics\n"
        "record = Metrics.record\n"
        "def stopping(self, step, **more):\n"
        "    record(self, step, **more)\n"
        "    if step == 4: os.kill(os.getpid(), signal.SIGTERM)\n"
        "Metrics.record = stopping\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    program = run(["-c", code, "train", "--config", str(tmp_path / "run.json")])
    assert program.wait() == 128 + signal.SIGTERM, program.stderr
    messages = program.stderr
    newest = checkpoints(folder)[-1]
    how = f"resume the run, whose last complete checkpoint is {newest}\n"
    assert f"{folder}: stopped by SIGTERM after step 4 of 100000; {how}" in messages
    assert messages.endswith(f"\nto continue: degla train --resume {folder}\n")
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert newest.name == f"step-{steps[-1]}"
    assert json.loads((newest / "state.json").read_text())["step"] == steps[-1]
    assert not list(folder.glob("*.partial"))


def test_resume_with_a_changed_configuration_names_the_field(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=run, steps=2))
    assert main(["train", "--resume", str(run), "--optim.lr", "0.5", "--objective.text-grounded.weight", "3"]) == 2
    message = capsys.readouterr().err
    assert "--optim.lr was 0.001 and is now 0.5" in message
    assert "--objective.text-grounded.weight was 0.1 and is now 3.0" in message
    assert main(["train", "--resume", str(run), "--checkpoint.keep", "7"]) == 0
    # Otherwise its configuration would be used for the checkpoint of another run.
    assert main(["train", "--resume", str(run), "--out", str(tmp_path / "another")]) == 2
    assert f"--out was '{run}' and is now '{tmp_path / 'another'}'" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "none")]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_resume_after_the_data_changed_is_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=None, epochs=1)
    train(config)
    lines = tiny_pairs["captions"].read_text().splitlines(keepends=True)
    shorter = tmp_path / "captions.jsonl"
    shorter.write_text("".join(lines[:8]))
    with pytest.raises(InputError, match="the run had 6 steps and would now have 2"):
        train(replace(config, data=replace(config.data, captions=shorter)), resume=True)


def test_resume_after_the_contents_of_the_data_changed_is_refused(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    recipe = tiny_config("negclip_hard_images", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    config = replace(recipe, data=replace(recipe.data, classes=None))
    newest = train(config).folder
    recorded = json.loads((newest / "state.json").read_text())["data"]
    assert {"ids", "images", "captions", "negatives", "rules", "neighbours"} <= recorded.keys()

    edits: list[tuple[str, Callable[[list[dict[str, Any]]], object], str]] = [
        ("captions", lambda rows: rows[3].update(text="a green circle"), "changed: captions"),
        ("captions", lambda rows: rows[3].update(id="new"), "has no neighbour among .* whose image cannot be used"),
        ("captions", lambda rows: rows.insert(5, rows.pop(2)), "changed: .*captions.*ids"),
        ("negatives", lambda rows: rows[-1].update(text="a bench"), "changed: negatives"),
        ("negatives", lambda rows: rows[-1].update(rule="reshuffle_order"), "changed: rules"),
        ("negatives", lambda rows: rows.pop(-1), "changed: negatives, rules"),
        ("neighbours", lambda rows: rows[0].update(neighbours=[rows[5]["caption_id"]]), "changed: neighbours"),
    ]
    for number, (name, edit, message) in enumerate(edits):
        rows = [json.loads(line) for line in tiny_pairs[name].read_text().splitlines()]
        edit(rows)
        changed = tmp_path / f"{number}.jsonl"
        changed.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(InputError, match=message):
            train(replace(config, data=replace(config.data, **{name: changed})), resume=True)

    # The same rows in another format, from another place and with images that are not opened, are the same data.
    fields = [(row["id"], row["image"], row["text"], row["image_id"])
              for row in map(json.loads, tiny_pairs["captions"].read_text().splitlines())]  # fmt: skip
    table = tmp_path / "captions.tsv"
    table.write_text("".join("\t".join(row) + "\n" for row in [("id", "image", "text", "image_id"), *fields]))
    same = replace(config, data=replace(config.data, captions=table, format="tsv"))
    assert train(same, resume=True).step == 2


def test_resume_with_other_classes_is_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    """If a class and its label are renamed, the label numbers stay the same, but its text does not."""
    config = tiny_config("tecoa", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    config = replace(config, attack=replace(config.attack, epsilon=0.0))
    train(config)
    renamed = {name: tmp_path / tiny_pairs[name].name for name in ("captions", "classes")}
    for name, file in renamed.items():
        text = tiny_pairs[name].read_text()
        file.write_text(text.replace('"old man"', '"young man"').replace("\nold man", "\nyoung man"))
    other = replace(config, data=replace(config.data, **renamed))
    with pytest.raises(InputError, match=r"training data have changed .*/classes\.txt; changed: classes\."):
        train(other, resume=True)


@pytest.mark.parametrize("reads", ["adapters", "L2-SP", "embedded images"])
def test_a_resume_on_another_base_is_refused_where_it_is_read(
    reads: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """A run with adapters would add them to other weights: `--model` may name a run that has continued since."""
    once: dict[str, Any] = {"embed_images_once": True, "train_image_tower": False} if reads == "embedded images" else {}
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", **once)
    if reads == "adapters":
        config = replace(config, adapter=AdapterConfig(text_map=True))
    elif reads == "L2-SP":
        config = replace(config, l2_sp=L2SPConfig(weight=1.0, importance="equal"))
    config = interrupted(config, tmp_path / "half")
    other = write_model(tmp_path / "other", seed=9)
    with pytest.raises(InputError, match=r"step-2: --model .*other is not the model that the run started from"):
        train(replace(config, model=str(other)), resume=True)
    assert train(config, resume=True).step == 4


def test_a_run_does_not_begin_in_the_folder_of_a_model(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    with pytest.raises(InputError, match="holds a model, which every command would read instead of the run"):
        train(tiny_config("clip", model=base, pairs=tiny_pairs, out=base, steps=1))
    (base / CONFIG_NAME).rename(base / INFO)
    with pytest.raises(InputError, match="holds a model"):
        check_new(base)
    assert not list(base.glob("step-*"))


def test_a_resume_writes_the_card_that_a_kill_left_out(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    train(config)
    card = tmp_path / "run" / "step-1" / "README.md"
    before = card.read_text()
    card.unlink()
    assert train(config, resume=True).finished
    assert card.read_text() == before


def test_a_resume_on_a_base_of_another_configuration_is_refused(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    config = tiny_config("clip", model=base, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    train(config)
    file = base / "open_clip_config.json"
    before = json.loads(file.read_text())
    for section, field, value in (("preprocess_cfg", "mean", [0, 0, 0]), ("model_cfg", "quick_gelu", False)):
        file.write_text(json.dumps(before | {section: before[section] | {field: value}}))
        with pytest.raises(InputError, match=f"has changed since this checkpoint: '{field}' was .* Restore it, or"):
            train(config, resume=True)
    text = before["model_cfg"]["text_cfg"]
    for section, field, value in (
        ("text_cfg", "heads", 4), ("vision_cfg", "head_width", 8), ("vision_cfg", "pool_type", "avg"),
        ("text_cfg", "no_causal_mask", True), ("text_cfg", "norm_kwargs", {"eps": 0.1}),
    ):  # fmt: skip
        network = before["model_cfg"] | {section: before["model_cfg"][section] | {field: value}}
        file.write_text(json.dumps(before | {"model_cfg": network}))
        with pytest.raises(InputError, match=f"has changed since this checkpoint: '{section}.{field}' was .*is "):
            train(config, resume=True)
    same = text | {"norm_kwargs": {}, "hf_model_pretrained": False}  # The default, and what is not fetched anyway.
    file.write_text(json.dumps(before | {"model_cfg": before["model_cfg"] | {"text_cfg": same}}))
    assert train(config, resume=True).finished
    for option, value in (("clean", "canonicalize"), ("reduction_mask", "simple"), ("clean", "lower")):
        options = text["tokenizer_kwargs"] | {option: value}
        changed = before["model_cfg"] | {"text_cfg": text | {"tokenizer_kwargs": options}}
        file.write_text(json.dumps(before | {"model_cfg": changed}))
        if value == "lower":  # As open_clip does without the option.
            assert train(config, resume=True).finished
            continue
        with pytest.raises(InputError, match=f"has changed since this checkpoint: '{option}' was .*is {value}"):
            train(config, resume=True)
    file.write_text(json.dumps(before))
    merges = base / "bpe_tiny.txt.gz"
    content = merges.read_bytes()
    lines = gzip.decompress(content).decode().splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    merges.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(InputError, match=r"tokenizer of .* has changed since .*: bpe_tiny\.txt\.gz .* Restore it, or"):
        train(config, resume=True)
    # A link, as in the hub's cache, is the same file under the name of its target.
    merges.unlink()
    (base / "blob").write_bytes(content)
    merges.symlink_to("blob")
    assert train(config, resume=True).finished


def test_full_disk_leaves_the_old_checkpoint(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=4)
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=2))
    original = checkpoint_module.save_file

    def full(weights: object, path: Path, **options: object) -> None:
        if "step-4" in str(path) and path.name == "teacher.safetensors":
            raise OSError(28, "No space left on device")
        original(weights, path, **options)

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(DeglaError, match=r"step-4: .*disk is full\. Free space, then resume the run, .* is .*-2\.$"):
        train(config)
    anew = replace(config, out=tmp_path / "anew", checkpoint=replace(config.checkpoint, every_steps=0))
    with pytest.raises(DeglaError, match=r"step-4: .*the disk is full\. Free space, then start the run again\.$"):
        train(anew)
    monkeypatch.undo()
    with pytest.raises(
        InputError, match=r"run/step-2: a checkpoint, not a run\. --resume \S*/run resumes its run from"
    ):
        read_config(tmp_path / "run" / "step-2")
    with pytest.raises(InputError, match=r": not a run, but holds 1 run\. Use --resume \S*/run\.$"):
        read_config(tmp_path)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-2"]
    assert not list((tmp_path / "run").glob("*.partial"))
    assert train(config, resume=True).step == 4


def test_damaged_checkpoints_are_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    folder = train(config).folder
    for name, message in [("optimizer.pt", "damaged"), ("teacher.safetensors", "damaged")]:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=message):
            train(config, resume=True)
        (folder / name).unlink()
        with pytest.raises(InputError, match="missing"):
            train(config, resume=True)
        (folder / name).write_bytes(content)


def test_a_run_without_its_teacher_is_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    plain = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    train(plain)
    degla = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    with pytest.raises(InputError, match=r"teacher\.safetensors is missing"):
        train(degla, resume=True)


def test_configurations_survive_json(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("ce_clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    plain = json.loads(json.dumps(to_plain(config)))
    assert from_plain(plain, where="test") == config
    assert differences(config, from_plain(plain, where="test")) == []
    plain["optim"]["learning"] = 3
    with pytest.raises(InputError, match=r"config\.json: unknown field 'optim\.learning'"):
        from_plain(plain, where="config.json")
