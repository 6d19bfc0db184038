"""All valid and invalid ways to name a model."""

from __future__ import annotations

import json
import pwd
import runpy
import shlex
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from degla.demo.world import BASE_RESULTS
from degla.errors import InputError
from degla.model import checkpoint, load
from degla.model.checkpoint import average_weights, save_encoder
from degla.model.load import folder_has_bias, load_encoder
from degla.model.runs import WEIGHTS_NAME
from degla.training.pairs import image_transform
from tests.tiny import ALL_TOKENS, CAPTIONS, CONFIG, RESNET, timm_tower, write_model


def test_an_unknown_home_folder_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    runpy.run_path(load.__file__)


@pytest.mark.parametrize("name", ["world", "folder"])
def test_every_model_is_loaded_in_evaluation_mode(name: str, tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model) if name == "folder" else name)
    assert not any(module.training for module in encoder.modules())


def test_equal_weights_are_equal_files(tiny_model: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    files = [tmp_path / str(index) / WEIGHTS_NAME for index in range(12)]
    for file in files:
        save_encoder(encoder, file.parent)
    assert len({file.read_bytes() for file in files}) == 1
    checkpoint._save({"größe": torch.arange(3)}, tmp_path / "other", note="ü")  # As long as safetensors wrote it.
    assert load_file(tmp_path / "other")["größe"].tolist() == [0, 1, 2]
    torch.testing.assert_close(load_file(files[0]), dict(encoder.clip.state_dict()), rtol=0, atol=0)


def test_saved_weights_have_the_permissions_of_any_new_file(tiny_model: Path, tmp_path: Path) -> None:
    """safetensors writes files that only their owner can read, so others could not load a model saved from Python."""
    save_encoder(load_encoder(tiny_model), str(tmp_path / "saved"))
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in [*(tmp_path / "saved").iterdir(), tmp_path / "other"]}
    assert len(modes) == 1


def test_saved_folder_is_what_open_clip_loads(all_tokens_model: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(all_tokens_model))
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(str(tmp_path / "saved"))
    assert again.fingerprint == encoder.fingerprint
    assert again.activation == "quick_gelu"
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'saved'}")
    theirs.eval()
    tokens, images = encoder.tokenize(CAPTIONS), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.encode_text(tokens, normalize=True), theirs.encode_image(images, normalize=True)
        torch.testing.assert_close(again.encode_captions(tokens), expected[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(again.encode_images(images), expected[1], rtol=0, atol=1e-6)
    picture = Image.effect_mandelbrot((50, 40), (-2, -1.5, 1, 1.5), 20).convert("RGB")
    assert torch.equal(transform(picture), encoder.transform(picture))


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register an architecture in open_clip with a hundredth of the parameters of its smallest."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", CONFIG | {"text_cfg": ALL_TOKENS})
    return "ViT-tiny"


class Called(TorchFunctionMode):
    """Records the names of all PyTorch functions called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tower", [None, RESNET, timm_tower()], ids=["ViT", "ResNet", "timm"])
def test_no_random_number_is_drawn_for_weights_of_a_file(
    tower: dict[str, Any] | None, architecture: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "one", **({} if tower is None else {"vision_cfg": tower}))
    with Called() as called:
        state = load_encoder(str(tmp_path / "one")).clip.state_dict()
        assert not {name for name in called.names if name.endswith(("normal_", "uniform_"))}
        load_encoder(f"{architecture}:random")
        assert {"normal_", "kaiming_uniform_"} <= called.names
    weights = load_file(tmp_path / "one" / "open_clip_model.safetensors")
    assert state.keys() == weights.keys() and all(torch.equal(state[name], weights[name]) for name in weights)


def test_random_weights_are_drawn_by_the_seed(architecture: str) -> None:
    one, again, other = (load_encoder(f"{architecture}:random", seed=seed).fingerprint for seed in (0, 0, 1))
    assert one == again != other


def test_the_embedded_model_keeps_its_tokenizer_through_save_and_move(tmp_path: Path) -> None:
    encoder = load_encoder("world")
    save_encoder(encoder, tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    again = load_encoder(str(tmp_path / "moved"))
    assert torch.equal(again.tokenize(CAPTIONS), encoder.tokenize(CAPTIONS))
    assert again.tokenize(CAPTIONS).max() < 4000, "the embedded model has a small vocabulary of its own"
    assert again.fingerprint == encoder.fingerprint


def test_open_clip_itself_reads_the_tokenizer_of_a_moved_run(
    tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from degla.training.loop import train
    from tests.training.configs import tiny_config

    run = train(tiny_config("clip", model="world", pairs=tiny_pairs, out=tmp_path / "run", steps=1)).folder
    encoder = load_encoder(str(run))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = tmp_path / "moved" / run.name
    assert str(tmp_path) not in (moved / "open_clip_config.json").read_text(), "the configuration contains its old path"
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{moved}")
    theirs, ours = open_clip.get_tokenizer(f"local-dir:{moved}"), encoder.tokenize
    texts = ["A photo of a cat, and 3 dogs!", "wow!!!  it's\tüber-naïve 東京 &amp; 42's", "", "!", "İstanbul",
             "<start_of_text> hi<end_of_text>", "<pad> <PAD>!", "a " * 100, *CAPTIONS]  # fmt: skip
    assert torch.equal(theirs(texts), ours(texts)) and len(set(ours(texts).flatten().tolist())) > 50
    with torch.no_grad():
        embedded = clip.eval().encode_text(theirs(CAPTIONS), normalize=True)
        torch.testing.assert_close(embedded, encoder.encode_captions(ours(CAPTIONS)), rtol=0, atol=1e-6)
    # Saved again, it is still the same.
    save_encoder(load_encoder(str(moved)), tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (moved / "tokenizer.json").read_bytes()
    assert torch.equal(load_encoder(str(tmp_path / "again")).tokenize(texts), ours(texts))


def test_quick_gelu_is_not_gelu(tmp_path: Path) -> None:
    quick = load_encoder(str(write_model(tmp_path / "quick")))
    plain = load_encoder(str(write_model(tmp_path / "plain", quick_gelu=False)))
    tokens = quick.tokenize(CAPTIONS)
    assert (quick.encode_captions(tokens) - plain.encode_captions(tokens)).abs().max() > 1e-5


def test_a_checkpoint_with_its_activation_edited_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    save_encoder(load_encoder(tiny_model), str(tmp_path / "saved"))
    path = tmp_path / "saved" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["quick_gelu"] = False
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="trained with QuickGELU, but the configuration uses GELU"):
        load_encoder(str(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("architecture", "told"), [("ViT-B-32", True), ("ViT-B-32-quickgelu", False), ("ViT-B-16-plus-240", False)]
)
def test_a_file_without_a_recorded_activation_is_reported_of(
    architecture: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "negclip.pt"
    file.write_bytes(b"no weights")
    with pytest.raises(InputError):
        load_encoder(f"{architecture}:{file}")
    warned = "does not record its activation function, and ViT-B-32 computes GELU" in caplog.text
    assert warned == told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown model ''"),  # not the folder that the command runs in
        ("ViT-B-32:openai", "trained with QuickGELU.*Use ViT-B-32-quickgelu instead"),
        ("ViT-B-32-quickgelu:laion2b_s34b_b79k", "trained with GELU.*Use ViT-B-32 instead"),
        ("roberta-ViT-B-32:laion2b_s12b_b32k", "differ in the activation.*Use hf-hub:laion/CLIP-ViT-B-32-roberta-"),
        ("ViT-B-32", "is an architecture without weights"),
        ("ViT-B-23:openai", "unknown model.*Did you mean 'ViT-B-"),
        ("wrold", "unknown model 'wrold'. Did you mean 'world'"),
        ("ViT-B-32-quickgelu:openia", "there is no file or pre-trained tag.*Did you mean 'openai'"),
        ("./no/such/folder", "no such folder"),
        ("openai/clip-vit-base-patch32", r"no such folder\. Of the Hugging Face hub: hf-hub:openai/clip-vit"),
        ("VIT-b-32:openai", "unknown model.*Did you mean 'ViT-B-32'"),
        (str(BASE_RESULTS / "quick.json"), r"quick\.json: is a file\. Give the folder that contains it"),
        (__file__, r"test_load\.py: is a file. Give the folder that contains it, or ARCHITECTURE:/"),
    ],
)
def test_wrong_names_say_what_is_right(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(name)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        pytest.param(
            "mps",
            r"device 'mps' cannot be used: .* from the 'MPS' backend\. Use cpu, or",  # and no list of all backends
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is such a GPU"),
        ),
        ("meta", "device 'meta' cannot be used: "),  # There it is, but it computes nothing.
    ],
)
def test_a_device_that_cannot_compute(device: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        load_encoder("world", device=device)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_weights_for_another_size_are_told(
    ending: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """open_clip interpolates their position embeddings without a word."""
    vision = CONFIG["vision_cfg"] | {"image_size": 64}
    config = CONFIG | {"vision_cfg": vision, "text_cfg": ALL_TOKENS | {"context_length": 12}}
    fitting = write_model(tmp_path / "fits", vision_cfg=vision, text_cfg=config["text_cfg"])
    folder = shutil.copytree(fitting, tmp_path / "model")
    shutil.copy(write_model(tmp_path / "other", text_cfg=ALL_TOKENS) / WEIGHTS_NAME, folder)
    if ending == "pt":
        torch.save(load_file(folder / WEIGHTS_NAME), tmp_path / "weights.pt")
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    names = ("tiny:" + str(tmp_path / "weights.pt") if ending == "pt" else str(folder)), str(fitting)
    with caplog.at_level("WARNING"):
        load_encoder(names[0])
    told = [line for line in caplog.messages if "positions for" in line]
    assert [line.partition(", which")[0] for line in told] == [
        f"{names[0]}: the weights have positions for {sizes}. open_clip interpolates them"
        for sizes in (
            "2 x 2 patches, but the architecture is for 4 x 4 patches",
            "24 tokens, but the architecture is for 12 tokens",
        )
    ]
    caplog.clear()
    for name in (names[1], "world", "photo"):
        load_encoder(name)
    assert "positions for" not in caplog.text


def test_weights_of_another_architecture(tiny_model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", embed_dim=8)
    shutil.copy(other / "open_clip_model.safetensors", tmp_path / "weights.safetensors")
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_model, folder)
    shutil.copy(tmp_path / "weights.safetensors", folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match="size mismatch"):
        load_encoder(str(folder))


def test_a_folder_without_a_model_and_a_damaged_file(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a model \(.*, not a run with a complete checkpoint"):
        load_encoder(str(tmp_path))
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model, folder)
    (folder / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="damaged weights file"):
        load_encoder(str(folder))
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match=r"open_clip_config\.json line 1: not JSON"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"<!DOCTYPE html>\n<html></html>\n", "w.pt: not a weights file, or one that is cut off"),
        ("w.bin", b"", "w.bin: not a weights file, or one that is cut off"),
        ("empty.pt", b"PK\5\6" + bytes(18), "empty.pt: not a weights file, or one that is cut off"),
        ("w.npz", b"PK\3\4" + bytes(100), "w.npz: not a weights file, or one that is cut off"),
        ("end.pt", b"PK\5\6\0\0\0\0\1\0\1\0." + bytes(9), "end.pt: not a weights file, or one that is cut off"),
        ("w.pt", [1, 2], "the file has no weights by name"),
        ("w.pt", {}, "the file has no weights by name"),
    ],
)
def test_a_file_without_weights_is_not_said_to_be_trusted(
    name: str, content: object, message: str, architecture: str, tmp_path: Path
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        load_encoder(f"{architecture}:{tmp_path / name}")
    assert "trust" not in str(caught.value)


def test_a_folder_is_no_weights_file(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "open_clip_model.safetensors").unlink()
    (folder / "open_clip_model.safetensors").mkdir()
    with pytest.raises(InputError, match="has no weights"):
        load_encoder(str(folder))


@pytest.mark.parametrize("content", [None, 3, "name", ["name"], {"quick_gelu": True, "text_cfg": None}])
def test_a_configuration_of_another_kind(content: object, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": content}))
    with pytest.raises(InputError, match=r"open_clip_config\.json: not an open_clip configuration"):
        load_encoder(str(folder))
    assert not folder_has_bias(folder)
    (folder / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"ViT-B-32-quickgelu:"):  # The file's neighbour says nothing about it.
        load_encoder(f"ViT-B-32-quickgelu:{folder / 'weights.pt'}")


def test_a_random_text_tower_of_transformers_is_not_a_trained_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*_: object, **options: object) -> None:
        given.update(options)
        raise RuntimeError("no more is needed")

    given: dict[str, object] = {}
    monkeypatch.setattr("open_clip.create_model_and_transforms", create)
    with pytest.raises(InputError, match="no more is needed"):
        load_encoder("ViT-B-32:random")
    assert given["pretrained_text"] is False


def test_a_bias_of_null_is_none(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    content = json.loads((folder / "open_clip_config.json").read_text())
    for bias in (None, -10.0):
        content["model_cfg"]["init_logit_bias"] = bias
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        assert folder_has_bias(folder) == (bias is not None)


def test_a_bias_of_zero_is_no_missing_one(tiny_model: Path, tmp_path: Path) -> None:
    """open_clip gives 0 to a model whose weights have none, which is refused."""
    model = load_encoder(str(tiny_model))
    model.add_bias(0.0, scale=10.0)
    save_encoder(model, tmp_path / "model")
    bias = load_encoder(str(tmp_path / "model")).bias
    assert bias is not None and bias.item() == 0


def _spoiled(folder: Path, how: str) -> None:
    file, config = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    state = load_file(file)
    if how == "no weights":
        file.unlink()
    elif how == "integers":
        save_file(state | {"visual.proj": state["visual.proj"].to(torch.int8)}, file)
    elif how == "integers by another name":
        _spoiled(folder, "integers")
        file.rename(folder / "model.safetensors")
    elif how == "another activation":
        save_file(state, folder / "open_clip_pytorch_model.safetensors", metadata={"quick_gelu": "false"})
        file.unlink()
    elif how == "image tower":
        save_file({name: value for name, value in state.items() if name.startswith("visual")}, file)
    elif how == "classifier":
        save_file(state | {"classifier.weight": torch.zeros(3, 16)}, file)
    elif how == "bias":
        save_file(state | {"logit_bias": torch.tensor(-10.0)}, file)
    elif how in ("no scale", "no bias"):
        if how == "no scale":
            del state["logit_scale"]
        save_file(state, file)
        content = json.loads(config.read_text())
        content["model_cfg"]["init_logit_bias"] = -10
        config.write_text(json.dumps(content))
    else:
        content = json.loads(config.read_text())
        content["model_cfg"]["vision_cfg"] = {"timm_model_name": how, "image_size": 32}
        config.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", r": has no weights \(open_clip_model\.safetensors\)"),
        ("integers", r"open_clip_model\.safetensors: visual\.proj has the type I8, but weights must be float32"),
        ("integers by another name", r"/model\.safetensors: visual\.proj has the type I8, but weights must be float32"),
        ("another activation", r"/open_clip_pytorch_model\.safetensors: .* trained with GELU, .* or set quick_gelu"),
        ("image tower", r": they lack positional_embedding, text_projection and \d+ more\. .*both towers are needed\."),
        ("classifier", r": they have classifier\.weight\. This is a classifier with its own classes"),
        ("bias", r": the weights do not match this architecture: they have logit_bias\. Use weights and"),
        ("no scale", r": the weights do not match this architecture: they lack logit_scale\. Use weights and"),
        ("no bias", r": the weights do not match this architecture: they lack logit_bias\. Use weights and"),
        ("vit_of_mine", r": the installed timm has no image tower 'vit_of_mine'"),
    ],
)
def test_a_folder_of_open_clip_that_is_not_a_complete_model(
    how: str, message: str, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    _spoiled(tmp_path / "model", how)
    with pytest.raises(InputError, match=message) as caught:
        load_encoder(str(tmp_path / "model"))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_weights_of_another_architecture_tell_theirs(
    ending: str, kind: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip asserts "text pos_embed width changed!" before PyTorch compares the sizes of the others."""
    width = CONFIG["text_cfg"]["width"]
    configs = {
        name: CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"width": own}}
        for name, own in (("tiny", width), ("wide", 2 * width), ("pictures", width))
    } | {"patches": CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"patch_size": 8}}}
    monkeypatch.setattr("open_clip.list_models", lambda: list(configs))
    monkeypatch.setattr("open_clip.get_model_config", configs.__getitem__)
    monkeypatch.setattr("open_clip.factory.get_model_config", configs.__getitem__)
    weights = tmp_path / f"weights.{ending}"
    state = load_file(write_model(tmp_path / "model") / "open_clip_model.safetensors")
    state = {name: value.to(kind) for name, value in state.items()}
    if ending == "pt":
        torch.save({"state_dict": state}, weights)
    else:
        save_file(state, weights)
    patches = "size mismatch for visual.conv1" if kind == torch.float32 else "open_clip resizes only float32 weights."
    for name, what in (("wide", "their text tower has another width"), ("patches", patches)):
        with pytest.raises(InputError) as caught:
            load_encoder(f"{name}:{weights}")
        assert what in str(caught.value) and "They have the size of tiny or pictures: use that" in str(caught.value)
    (torch.save if ending == "pt" else save_file)(state | {"adapter": torch.zeros(2)}, weights)
    with pytest.raises(InputError, match=r"they have adapter\. Use weights and open_clip_config\.json of"):
        load_encoder(f"tiny:{weights}")


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("name", ["last.ckpt", "model.safetensors"])
def test_weights_of_a_wrapped_model_come_with_the_command_that_unwraps_them(
    name: str, prefix: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_clip.list_models", lambda: ["tiny"])
    for place in ("get_model_config", "factory.get_model_config"):
        monkeypatch.setattr(f"open_clip.{place}", {"tiny": CONFIG}.__getitem__)
    state = load_file(tiny_model / "open_clip_model.safetensors")
    state = {prefix + key: value for key, value in state.items()} | {"head.weight": torch.zeros(2)}
    if name == "last.ckpt":
        torch.save({"state_dict": state, "epoch": 1}, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    with pytest.raises(InputError, match=rf"If {name} holds weights of open_clip, give ARCHITECTURE:.*{name}; if"):
        load_encoder(str(tmp_path))
    with pytest.raises(InputError, match=r"names begin with '(model|(module\.)?_orig_mod)\.'") as caught:
        load_encoder(f"tiny:{tmp_path / name}")
    assert "\n" not in str(caught.value)
    exec(str(caught.value).partition('python -c "')[2].partition('"')[0], {})
    made = load_file(tmp_path / "open_clip_model.safetensors")
    assert made.keys() == load_file(tiny_model / "open_clip_model.safetensors").keys()


def test_what_other_trainers_left_says_what_to_do(tiny_model: Path, tmp_path: Path) -> None:
    def message(model: str) -> str:
        with pytest.raises(InputError) as caught:
            load_encoder(model)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for name in (
        "adapter/adapter_config.json",
        "run/checkpoint-9/a",
        "run/checkpoint-10/a",
        "log/checkpoints/epoch_2.pt",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")
    assert "merge_and_unload().save_pretrained('OUT')" in message(str(tmp_path / "adapter"))
    assert message(str(tmp_path / "run")).endswith(
        f"Give a checkpoint in it, such as {tmp_path / 'run/checkpoint-10'}."
    )
    assert f"ARCHITECTURE:{tmp_path / 'log/checkpoints/epoch_2.pt'}" in message(str(tmp_path / "log"))
    assert "is a folder. Give it without ViT-B-32: before it" in message(f"ViT-B-32:{tmp_path / 'log'}")
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    torch.save(load_file(weights), tmp_path / "model" / "epoch_1.pt")
    weights.unlink()
    assert "its weights are in epoch_1.pt. If you trust it, convert it: python -c" in message(str(tmp_path / "model"))
    torch.save({"model": {"a": torch.zeros(1)}, "epoch": torch.zeros(1)}, tmp_path / "nested.pt")
    assert "nested.pt')['model'], NEW)" in message(f"ViT-S-32-alt:{tmp_path / 'nested.pt'}")
    layer = torch.nn.Linear(1, 1)
    for whole in (layer, {"state_dict": layer.state_dict(), "args": Namespace(lr=1)}):
        torch.save(whole, tmp_path / "whole.pt")
        said = message(f"ViT-S-32-alt:{tmp_path / 'whole.pt'}").partition("save only the weights: ")[2]
        exec(said.removesuffix("."), {"torch": torch, "NEW": tmp_path / "new.pt"})
        assert torch.load(tmp_path / "new.pt").keys() == layer.state_dict().keys()


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "pytorch_model.bin", "mine.pth"])
def test_a_pickle_of_weights_is_refused_and_the_suggested_command_converts_it(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ("model" if name == "mine.pth" else 'it\'s "one" of $HOME\\new')
    shutil.copytree(tiny_model, folder)
    state = load_file(folder / "open_clip_model.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / name)
    (folder / "open_clip_model.safetensors").rename(folder / "teacher.safetensors")
    if name == "mine.pth":  # names unknown to open_clip come after safetensors
        (folder / "teacher.safetensors").unlink()
    with pytest.raises(InputError, match=rf"{name}: pickled weights, .*convert it: python -c") as caught:
        load_encoder(str(folder))
    assert "\n" not in str(caught.value)
    assert ('python -c "' in str(caught.value)) == (name == "mine.pth")
    exec(shlex.split(str(caught.value).partition("convert it: python -c ")[2])[0], {})
    assert load_encoder(str(folder)).fingerprint == load_encoder(str(tiny_model)).fingerprint


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_floats_are_read_as_float32(kind: torch.dtype, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    state = load_file(tiny_model / "open_clip_model.safetensors")  # The file that is written is mapped.
    save_file({name: value.to(kind) for name, value in state.items()},
              tmp_path / "model" / "open_clip_model.safetensors", metadata={"quick_gelu": "true"})  # fmt: skip
    weight = load_encoder(str(tmp_path / "model")).clip.visual.proj
    assert weight.dtype == torch.float32 and torch.equal(weight, state["visual.proj"].to(kind).float())


def test_weight_averaging(tmp_path: Path) -> None:
    base = load_encoder(str(write_model(tmp_path / "a", seed=1)))
    tuned = load_encoder(str(write_model(tmp_path / "b", seed=2)))
    assert average_weights(base, tuned, share=0).fingerprint == base.fingerprint
    assert average_weights(base, tuned, share=1).fingerprint == tuned.fingerprint
    half = average_weights(base, tuned, share=0.25).clip.visual.conv1.weight
    torch.testing.assert_close(half, 0.75 * base.clip.visual.conv1.weight + 0.25 * tuned.clip.visual.conv1.weight)
    with pytest.raises(InputError, match="between 0 and 1"):
        average_weights(base, tuned, share=1.5)
    with pytest.raises(
        InputError, match=r"^average_weights: expected an Encoder, got str\. Load one with degla\.model"
    ):
        average_weights(base, "world", share=0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^save_encoder: expected an Encoder, got str\. Load one with degla\.model"):
        save_encoder("world", tmp_path / "world")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="different architectures"):
        average_weights(base, load_encoder(str(write_model(tmp_path / "c", embed_dim=8))), share=0.5)


def test_preprocessing_is_what_open_clip_makes_of_a_configuration(tiny_model: Path, tmp_path: Path) -> None:
    """One number for all channels, nothing at all, and a size that is not the network's own."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "open_clip_config.json"
    fields = {"mean": 0.5, "std": None, "size": 48}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocess_cfg": fields}))
    encoder = load_encoder(str(folder))
    settings = image_transform(encoder)
    assert settings.size == 32 and settings.mean == (0.5, 0.5, 0.5)
    assert settings.std == image_transform(load_encoder(str(tiny_model))).std
    picture = Image.new("RGB", (32, 32), (255, 0, 0))
    assert encoder.transform(picture)[0, 0, 0] == pytest.approx((1 - 0.5) / settings.std[0])
    for wrong in ([0.5, 0.5], "grey"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocess_cfg": {"mean": wrong}}))
        with pytest.raises(InputError, match=r"model: a mean or standard deviation of images is .*one number or three"):
            load_encoder(str(folder))
