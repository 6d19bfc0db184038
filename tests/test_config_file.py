"""`--config FILE` and `--print-config`: a file gives the same configuration as flags, or a one-line error."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import degla
from degla.cli import main
from degla.config.fields import (
    as_recorded,
    change,
    check_unchanged,
    flat,
    from_plain,
    read_fields,
    to_plain,
    to_record,
    to_yaml,
)
from degla.config.run import TrainConfig
from degla.config.sections import OptimConfig
from degla.errors import InputError
from degla.shelf import LOSSES, RECIPES
from degla.verbs._training import configure

Capture = pytest.CaptureFixture[str]


def _recipe(name: str) -> TrainConfig:
    config: TrainConfig = getattr(RECIPES.load(name), name)()
    return config


def _write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", RECIPES.names())
def test_every_recipe_comes_back_from_what_is_printed(name: str, tmp_path: Path) -> None:
    config = _recipe(name)
    config = replace(config, out=tmp_path / "run", data=replace(config.data, rules=("swap_nouns", "negation")))
    recipe, fields = read_fields(Path(_write(tmp_path / "elsewhere" / "config.yaml", to_yaml(config))))
    # Start from another recipe, because the file sets every field.
    other = "clip" if name != "clip" else "gift"
    assert recipe == name and change(replace(_recipe(other), recipe=name), fields, where="file") == config


def test_what_the_command_prints_is_what_it_reads(tmp_path: Path, capsys: Capture) -> None:
    words = ["--optim.lr", "3e-5", "--data.captions", "a.json", "--train.no-train-image-tower", "--print-config"]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "degla", *words])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    file = _write(tmp_path / "config.yaml", printed)
    with pytest.raises(SystemExit):
        main(["doctor", "--config", file, "--print-config"])
    assert capsys.readouterr().out == printed
    assert f"captions: {Path.cwd() / 'a.json'}\n" in printed and "train_image_tower: false\n" in printed


@pytest.mark.parametrize("name", ["~", "~nouser"])
def test_a_folder_named_like_a_home_folder_is_printed_as_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "clip", "--data.captions", f"./{name}/c.csv", "--print-config"])
    assert f"captions: {tmp_path}/{name}/c.csv\n" in capsys.readouterr().out


def test_what_the_command_prints_has_no_password(capsys: Capture) -> None:
    words = ["--data.captions", "https://me:secret@host/a.json", "--data.images", "https://host/a", "--print-config"]
    with pytest.raises(SystemExit):
        main(["train", "degla", *words])
    printed = capsys.readouterr()
    assert "captions: https://host/a.json\n" in printed.out and "secret" not in printed.out + printed.err
    assert printed.err == "Passwords of addresses are left out. Add them where this configuration is used.\n"
    with pytest.raises(SystemExit):
        main(
            [
                "pack",
                "https://me:secret@host/a.json",
                "--images",
                "b",
                "--out",
                "a",
                "--nothing",
                "https://me:secret@host/b",
            ]
        )
    assert "https://host/b" in (told := capsys.readouterr().err) and "secret" not in told


def test_a_resumed_run_may_have_another_password() -> None:
    def reading(captions: str, lr: float = 1e-4) -> TrainConfig:
        return change(_recipe("clip"), {"data.captions": captions, "optim.lr": lr}, where="here")

    check_unchanged(reading("sftp://me:old@host/a.jsonl"), reading("sftp://me:new@host/a.jsonl"))
    with pytest.raises(InputError, match=r"--data\.captions was .*host/a\.jsonl' and is now .*host/b\.jsonl'") as error:
        check_unchanged(reading("sftp://me:old@host/a.jsonl"), reading("sftp://me:new@host/b.jsonl"))
    assert "me:" not in str(error.value), "a notebook shows it as it is"
    with pytest.raises(InputError, match=r"--optim\.lr was"):
        check_unchanged(reading("sftp://me:old@host/a.jsonl"), reading("sftp://me:new@host/a.jsonl", 1e-3))


NESTED = {"recipe": "negclip", "optim": {"lr": 1e-4}, "objective": {"contrastive": {"negative_scope": "own"}},
          "data": {"captions": "captions.json", "rules": ["swap_nouns"]}, "train": {"steps": None}}  # fmt: skip
DOTTED = """recipe: negclip
optim.lr: 1e-4
objective.contrastive: {negative_scope: own}
data.captions: captions.json
data: {rules: [swap_nouns]}
train.steps: null
"""
TOML = """recipe = "negclip"
optim.lr = 1e-4
[objective.contrastive]
negative_scope = "own"
[data]
captions = "captions.json"
rules = ["swap_nouns"]
"""


def test_forms_of_a_file_say_the_same_as_flags(tmp_path: Path) -> None:
    files = {"a.yaml": yaml.safe_dump(NESTED), "b.yml": DOTTED, "c.toml": TOML, "d.json": json.dumps(NESTED)}
    flags = ["negclip", "--optim.lr", "1e-4", "--objective.contrastive.negative-scope", "own",
             "--data.captions", str(tmp_path / "captions.json"), "--data.rules", "swap_nouns"]  # fmt: skip
    wanted = configure(flags, verb="train")
    assert tomllib.loads(TOML)["optim"] == {"lr": 1e-4}
    for name, text in files.items():
        file = _write(tmp_path / name, text)
        assert configure(["--config", file], verb="train") == wanted, name
    on_top = configure(["negclip", f"--config={tmp_path / 'a.yaml'}", "--optim.lr", "2e-4"], verb="train")
    assert on_top == replace(wanted, optim=replace(wanted.optim, lr=2e-4))


@pytest.mark.parametrize("word", ["none", "None", "null"])
def test_none_is_a_value_of_flags_and_files(word: str, tmp_path: Path) -> None:
    file = _write(tmp_path / "mine.yaml", f"recipe: cs_clip\noptim.clip_norm: {word}\ndata.images: {word}\n")
    flags = ["cs_clip", "--optim.clip-norm", word, f"--data.images={word}"]
    assert configure(["cs_clip"], verb="train").optim.clip_norm == 1
    for words in (["--config", file], flags):
        config = configure(words, verb="train")
        assert config.optim.clip_norm is None and config.data.images is None
    named = configure(["clip", "--data.images", f"./{word}"], verb="train")
    assert from_plain(to_plain(named), where="").data.images == Path(word), "a folder of a run may have this name"
    with pytest.raises(InputError, match=f"--optim.lr is '{word}'; it must be above 0"):
        configure(["clip", "--optim.lr", word], verb="train")


def test_flags_and_fields_of_a_file_that_the_run_does_not_read_are_named(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", logger="degla.train")
    configure(["degla", "--teacher.decay", "0.5", "--attack.epsilon", "0", "--train.epochs", "2"], verb="train")
    assert not caplog.messages
    words = ["--objective.text-contrast.anchor", "caption", "--teacher.decay", "0.5", "--optim.lr", "1e-5"]
    configure(["tecoa", *words, "--train.epochs", "2", "--attack.steps", "3"], verb="train")
    assert caplog.messages == [
        "--objective.text-contrast.anchor has no effect: --objective.text-contrast.weight is 0.",
        "--teacher.decay has no effect: no loss uses a teacher.",
        "--train.epochs has no effect: --train.steps is 20000; with none, epochs count.",
    ]
    caplog.clear()
    file = _write(tmp_path / "mine.yaml", "recipe: clip\ndata.negatives: negatives.jsonl\noptim.lr: 1e-5\n")
    configure(["--config", file], verb="train")
    assert caplog.messages == ["--data.negatives has no effect: --data.negatives-per-caption is 0."]
    caplog.clear()
    with pytest.raises(InputError):  # as there are no captions
        degla.train("clip", {"data.negatives": "negatives.jsonl", "optim.lr": 1e-5, "attack.epsilon": 0})
    assert caplog.messages == ["train: data.negatives has no effect: --data.negatives-per-caption is 0."]


def test_each_section_that_a_run_can_leave_unread_is_named_exactly_then() -> None:
    plain = configure(["clip", "--data.negatives-per-caption", "0"], verb="train").unread
    uses = {
        "replay.": "--replay.objective.contrastive.weight=1", "teacher.": "--objective.view-contrast.weight=1",
        "l2-sp.": "--l2-sp.weight=1", "attack.": "--attack.epsilon=0.01", "views.": "--views.left-out=0.5",
        "evidence.": "--objective.evidence-contrast.weight=1", "predictor.": "--objective.masked-text.weight=1",
        "adapter.alpha": "--adapter.rank=2", "adapter.parts": "--adapter.rank=2",
        "validation.": "--validation.benchmarks=aro", "data.class-template": "--objective.class-contrast.weight=1",
        "data.positives": "--objective.text-pull.weight=1", "data.draw": "--data.negatives-per-caption=1",
        "data.rules": "--data.negatives-per-caption=1", "data.negatives-share": "--data.negatives-per-caption=1",
        "data.negatives": "--data.negatives-per-caption=1", "data.neighbours": "--data.neighbours-per-pair=1",
        "data.classes": "--objective.class-contrast.weight=1",
        "data.decoder": "--objective.token-reconstruction.weight=1",
    }  # fmt: skip
    assert {name for name in plain if "objective" not in name} == uses.keys()
    replays = configure(["clip", "--replay.objective.text-pull.weight", "1"], verb="train")
    assert "data.positives" in replays.unread, "replayed pairs have a field of their own"
    assert {"replay.data.positives", "replay.data.classes"} & replays.unread.keys() == {"replay.data.classes"}
    for name, flag in uses.items():
        words = ["clip", "--data.negatives-per-caption=0", flag]
        assert name not in configure(words, verb="train").unread, name


def test_fields_of_a_section_are_set_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An own loss may check two fields against each other."""
    alone = OptimConfig.__post_init__

    def check(self: OptimConfig) -> None:
        alone(self)
        if self.lr > self.weight_decay:
            raise InputError("too fast.")

    monkeypatch.setattr(OptimConfig, "__post_init__", check)
    file = _write(tmp_path / "mine.yaml", "recipe: clip\noptim.lr: 0.5\ntrain.steps: 3\noptim.weight_decay: 0.6\n")
    config = configure(["--config", file], verb="train")
    assert (config.optim.lr, config.optim.weight_decay, config.train.steps) == (0.5, 0.6, 3)
    file = _write(tmp_path / "mine.yaml", "recipe: clip\noptim: {lr: 0.5, weight_decay: 0.2}\n")
    with pytest.raises(InputError, match=r"mine.yaml: field 'optim\.lr' and 'optim\.weight_decay': too fast\."):
        configure(["--config", file], verb="train")
    file = _write(tmp_path / "mine.yaml", "recipe: clip\noptim: {weight_decay: 0.2, lr: -1}\n")
    with pytest.raises(InputError, match=r"mine.yaml: field 'optim\.lr': --optim.lr is -1"):
        configure(["--config", file], verb="train")


def test_an_own_recipe_need_not_repeat_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.config.run.recipe_config", lambda name: replace(_recipe(name), recipe=""))
    file = _write(tmp_path / "mine.yaml", "recipe: clip\noptim.lr: 1e-4\n")
    assert configure(["--config", file], verb="train").optim.lr == 1e-4


def test_a_file_without_a_recipe_takes_the_one_of_the_command(tmp_path: Path) -> None:
    file = _write(tmp_path / "lr.yaml", "optim.lr: 1e-4\n")
    assert configure(["gift", "--config", file], verb="train").optim.lr == 1e-4


def test_the_file_of_a_run_keeps_its_paths(tmp_path: Path) -> None:
    config = replace(_recipe("degla"), out=Path("runs/a"))
    plain: Any = json.loads(json.dumps(to_plain(config)))
    file = _write(tmp_path / "runs" / "a" / "config.json", json.dumps(plain))
    assert configure(["--config", file], verb="train") == config == from_plain(plain, where=file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recipe: degla\noptim.lrr: 1\n", "unknown field 'optim.lrr'. Did you mean 'optim.lr'? Fields of optim: "),
        ("recipe: degla\nobjective: {contrastve: {weight: 1}}\n", "Did you mean 'objective.contrastive.weight'?"),
        ("recipe: degla\noptim: 3\n", "cannot set the section 'optim'. Fields of optim: optim.beta1, "),
        ("recipe: degla\noptim: {lr: fast}\n", "field 'optim.lr': --optim.lr is 'fast'; it must be above 0"),
        ("recipe: degla\ntrain.average: true\n", "field 'train.average': --train.average is True; it must be above 0"),
        ("recipe: degla\noptim: {lr: -1}\n", "field 'optim.lr': --optim.lr is -1.0; it must be above 0"),
        ("recipe: degla\ntrain.steps: [1, 2]\n", "field 'train.steps': --train.steps is [1, 2]; it must be 1 or more"),
        ("recipe: degla\noptim: {lr: 1}\noptim.lr: 2\n", "field 'optim.lr' is given twice."),
        ("recipe: degla\nout: ''\n", "field 'out': --out is ''; it must be a path, or none."),
        ("recipe: clip\ndata: {images: ''}\n", "field 'data.images': --data.images is ''; it must be a path, or none."),
        ("recipe: degal\n", "field 'recipe': unknown recipe 'degal'. Did you mean 'degla'?"),
        ("recipe: 3\n", "field 'recipe': 3 is not a recipe name."),
        ("optim.lr: 1\n", "no recipe. Add 'recipe: NAME' to it, or use degla train NAME --config"),
        ("- degla\n", "must be a table of fields"),
        ("recipe: {\n", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(
    text: str, says: str, tmp_path: Path, capsys: Capture
) -> None:
    file = _write(tmp_path / "mine.yaml", text)
    assert main(["train", "--config", file]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"degla: {file}") and says in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config", "no/such.yaml"], "no/such.yaml: cannot be read: No such file"),
        (["--config", "mine.txt"], "mine.txt: its name must end in .yaml, .yml, .toml or .json."),
        (["--config"], "--config is given without a file"),
        (["--config", "--optim.lr", "1"], "--config is given without a file"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config is given twice"),
        (["--resume", "run", "--config", "a.yaml"], "a resumed run has its own configuration"),
        (["dgla", "--config", "a.yaml"], "unknown recipe 'dgla'. Did you mean 'degla'?"),
    ],
)
def test_wrong_words_about_a_file(words: list[str], says: str, capsys: Capture) -> None:
    for verb in ("train", "doctor"):
        assert main([verb, *words]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1


def test_the_recipe_of_the_command_must_be_that_of_the_file(tmp_path: Path, capsys: Capture) -> None:
    file = _write(tmp_path / "mine.yaml", "recipe: degla\n")
    assert main(["train", "clip", "--config", file]) == 2
    assert "its recipe is 'degla', but the command's is 'clip'. Remove one of them." in capsys.readouterr().err


def test_the_path_of_a_model_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "elsewhere"
    for name in ("base", "world"):
        (folder / name).mkdir(parents=True)
    (folder / "weights.pt").touch()
    (folder / "random").touch()

    def model_of(name: str) -> str:
        file = _write(folder / "config.yaml", f"recipe: clip\nmodel: {name}\n")
        return configure(["--config", file], verb="train").model

    paths = {
        "base": f"{folder}/base",
        "local-dir:base": f"{folder}/base",
        "ViT-B-32:weights.pt": f"ViT-B-32:{folder}/weights.pt",
    }
    assert {name: model_of(name) for name in paths} == paths
    for name in ("world", "ViT-B-32:random", "ViT-B-32:openai", "hf-hub:a/base", "s3://a/b", "gone", "''", "a" * 300):
        assert model_of(name) == name.strip("'")
    monkeypatch.chdir(folder)
    assert "\nmodel: gone\n" in to_yaml(replace(_recipe("clip"), model="gone"))
    printed = _write(tmp_path / "printed.yaml", to_yaml(replace(_recipe("clip"), model="base")))
    monkeypatch.chdir(tmp_path)
    assert configure(["--config", printed], verb="train").model == f"{folder}/base"


def test_a_home_folder_in_a_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It became a folder "~" beside the file."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = _write(tmp_path / "mine.yaml", "recipe: clip\nout: ~/run\nmodel: ~/base\n")
    (tmp_path / "home" / "base").mkdir(parents=True)
    config = configure(["--config", file], verb="train")
    assert (config.out, config.model) == (tmp_path / "home" / "run", str(tmp_path / "home" / "base"))
    _write(tmp_path / "mine.yaml", "recipe: clip\nout: ~nouser/run\n")
    with pytest.raises(InputError, match=r"^~nouser/run: there is no home folder ~nouser\. For a folder of that name"):
        configure(["--config", file], verb="train")


def test_a_loss_that_is_younger_than_the_configuration_is_named() -> None:
    """A part of one's own that `DEGLA_PARTS` names only after a program made its configuration."""
    recipe = _recipe("clip")
    older = replace(recipe, objective={name: loss for name, loss in recipe.objective.items() if name != "text_pull"})
    with pytest.raises(InputError, match=r"train: field .*: the configuration was made before .* loss 'text_pull'"):
        change(older, {"objective.text_pull.weight": 1.0}, where="train")


@pytest.mark.parametrize("section", ["objective", "replay.objective"])
def test_only_a_record_switches_off_an_own_loss_that_it_lacks(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(LOSSES), "own", lambda _: ("contrastive",))
    weight = f"{section}.contrastive.weight"
    recipe = change(_recipe("clip"), {weight: 0.5}, where="")
    off = change(recipe, {weight: 0}, where="")
    record = flat(to_record(off))
    del record["schema_version"]
    assert weight not in record
    assert change(as_recorded(recipe, record), record, where="") == off
    written = {"optim.lr": 1e-3, f"{section}.text_contrast.weight": 1}
    assert as_recorded(recipe, written) == recipe, "a file that was written by hand has only what differs"
