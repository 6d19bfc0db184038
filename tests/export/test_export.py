"""`degla export`: folders for other programs compute the same as the model, or are not written."""

from __future__ import annotations

import errno
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import degla
from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.evaluation.models import load_model
from degla.export.check import require_tokens
from degla.export.run import FORMS, Exported, export, load_weights, new_folder
from degla.model import probe
from degla.model.checkpoint import check_alike
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.model.onnx_folder import OnnxModel
from tests.export.made import register_tiny_tower, write_clip, write_siglip
from tests.launch import start
from tests.tiny import ALL_TOKENS, CONFIG, RESNET, write_model
from tests.training.configs import tiny_config

transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

TEXTS = ["a red cube on a blue ball", "Two dogs, it's 3!", "a cat", " the dog’s “red”  ball\tand a cafe\u0301 "]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_pairs: dict[str, Path]) -> Path:
    """A run with a teacher that keeps its average with the initial model."""
    from degla.training.loop import train

    out = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config("degla", model=str(tiny_model), pairs=tiny_pairs, out=out, steps=2, average=0.5))
    return out


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, all_tokens_model: Path) -> dict[str, Exported]:
    """A model with all of CLIP's tokens in every format."""
    folder = tmp_path_factory.mktemp("exported")
    return {to: export(str(all_tokens_model), to=to, out=folder / to) for to in FORMS}


def _rows(model: Any, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model.encode_images(probe.pixels((size, size))), model.encode_captions(model.tokenize(TEXTS))


def _same(first: Any, second: Any, bound: float, size: int = 32) -> None:
    for one, other in zip(_rows(first, size), _rows(second, size), strict=True):
        assert probe.gap(one, other) <= bound


def test_there_and_back_again_is_bit_equal(
    exported: dict[str, Exported], all_tokens_model: Path, tmp_path: Path
) -> None:
    export(str(exported["transformers"].folder), to="open_clip", out=tmp_path / "ours")
    before = load_file(all_tokens_model / "open_clip_model.safetensors")
    after = load_file(tmp_path / "ours" / "open_clip_model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    first, second = load_encoder(str(all_tokens_model)), load_encoder(str(tmp_path / "ours"))
    check_alike(first, second)


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip"])
def test_transformers_there_and_back_again(kind: str, tmp_path: Path) -> None:
    register_tiny_tower()
    first = tmp_path / "first"
    if kind == "siglip":
        write_siglip(first)
    else:
        write_clip(first, kind=kind, text={"eos_token_id": 2} if kind == "metaclip_2" else {})
    export(str(first), to="transformers", out=tmp_path / "second")
    one, other = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "second"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((tmp_path / "second" / "config.json").read_text())["model_type"] == kind
    text = transformers.AutoConfig.from_pretrained(tmp_path / "second").text_config
    ids = (text.bos_token_id, text.eos_token_id, text.pad_token_id)
    assert all(one is None or 0 <= one < text.vocab_size for one in ids), ids


@pytest.mark.parametrize("model", ["tiny", "world", "siglip"])
def test_an_exported_folder_loads_everywhere(
    model: str, exported: dict[str, Exported], all_tokens_model: Path, tmp_path: Path
) -> None:
    if model == "siglip":
        register_tiny_tower()
        write_siglip(tmp_path / "model")
    name = {"tiny": str(all_tokens_model), "world": "world", "siglip": str(tmp_path / "model")}[model]
    encoder, size = load_encoder(name), 64 if model == "world" else 32
    results = exported if model == "tiny" else {to: export(name, to=to, out=tmp_path / to) for to in FORMS}
    for to, bound in (("open_clip", 1e-5), ("transformers", 1e-5), ("onnx", 1e-4)):
        one = results[to]
        assert one.difference <= bound and one.bytes > 1000 and (one.folder / "README.md").is_file()
        _same(encoder, load_model(str(one.folder)), bound, size)
    theirs = transformers.AutoModel.from_pretrained(results["transformers"].folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(results["transformers"].folder)
    inputs = processor(
        text=TEXTS, images=[probe.picture()], padding="max_length", truncation=True, return_tensors="pt",
        max_length=encoder.context_length,
    )  # fmt: skip
    with torch.no_grad():
        outputs = theirs(**inputs)  # As in the card: a padding mask in the inputs would be used, too.
        assert probe.gap(outputs.text_embeds, encoder.encode_captions(encoder.tokenize(TEXTS))) <= 1e-5
        # Two levels of 255 between their resizing and the model's.
        image = encoder.encode_images(encoder.transform(probe.picture())[None])
        assert probe.gap(outputs.image_embeds, image) < 0.05


def test_the_graphs_take_batches_of_any_length(exported: dict[str, Exported], all_tokens_model: Path) -> None:
    import onnx

    folder = exported["onnx"].folder
    encoder, model = load_encoder(str(all_tokens_model)), OnnxModel(folder, name="onnx")
    pixels = probe.pixels((32, 32), count=5)
    for count in (1, 5):
        with torch.no_grad():
            assert probe.gap(model.encode_images(pixels[:count]), encoder.encode_images(pixels[:count])) <= 1e-4
    # Raw images and texts through the graphs' own preprocessing and tokenizer.
    pictures = [probe.picture(width=40 + 3 * n, height=80 - 2 * n, seed=n) for n in range(10)]
    texts = [f"{text}, {n} of {'many ' * (n % 7)}" for n in range(17) for text in TEXTS][:50]
    with torch.no_grad():
        rows = [torch.stack([each.transform(picture) for picture in pictures]) for each in (model, encoder)]
        assert probe.gap(model.encode_images(rows[0]), encoder.encode_images(rows[1])) <= 1e-4
        embeddings, own = model.encode_captions(model.tokenize(texts)), encoder.encode_captions(encoder.tokenize(texts))
        assert probe.gap(embeddings, own) <= 1e-4
    graph = onnx.load(folder / "text.onnx")
    assert graph.opset_import[0].version == model.info.opset == 18
    assert model.info.logit_scale == pytest.approx(float(encoder.scale.detach()))
    assert {path.name for path in folder.iterdir()} >= {
        "image.onnx", "text.onnx", "degla_onnx.json", "tokenizer.json", "preprocessor_config.json", "README.md"
    }  # fmt: skip


def test_bytes_cost_what_is_printed(
    exported: dict[str, Exported], all_tokens_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(all_tokens_model), "--quantize", "int8", "--to"]
    assert main([*words, "onnx", "--out", str(tmp_path / "small one")]) == 0
    error = capsys.readouterr().err
    assert re.search(r"lowest cosine similarity to the full model: 0\.99\d{3} for images, 0\.9\d{4} for texts", error)
    assert f"to measure what quantization costs: degla evaluate {all_tokens_model} '{tmp_path / 'small one'}'" in error
    folders = (exported["onnx"].folder, tmp_path / "small one")
    full, small = (sum(path.stat().st_size for path in folder.glob("*.onnx")) for folder in folders)
    assert small < 0.4 * full
    model = load_model(str(tmp_path / "small one"))
    assert model.precision == "int8"
    rows, others = _rows(model)[1], _rows(load_encoder(str(all_tokens_model)))[1]
    assert 0.95 < float((rows * others).sum(dim=1).min()) < 1 - 1e-6
    assert main([*words, "open_clip", "--out", str(tmp_path / "x")]) == 2


@pytest.mark.parametrize("to", FORMS)
def test_the_python_of_a_card_runs_as_it_is_printed(
    exported: dict[str, Exported], all_tokens_model: Path, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "red").save("photo.jpg")
    folder = exported[to].folder
    namespace: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S):
        exec(code.replace("FOLDER", str(folder)), namespace)
    if to == "onnx":
        texts = degla.encode_captions(load_encoder(str(all_tokens_model)), ["a dog chases a cat"])
        assert probe.gap(torch.from_numpy(namespace["texts"]), texts) < 1e-4


def test_onnxruntime_reports_nothing(tmp_path: Path) -> None:
    """Where it reports its use, it keeps an identity of the machine in the cache folder."""
    code = "from degla.export.to_onnx import require_onnx; require_onnx(quantize=False)"
    process = start(["-c", code], environment={"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert process.wait() == 0 and not list(tmp_path.rglob("*onnxruntime*"))


def test_onnx_is_scored_and_not_trained(exported: dict[str, Exported], tmp_path: Path) -> None:
    shutil.copytree(exported["onnx"].folder, tmp_path / "onnx")
    with pytest.raises(InputError, match=r"ONNX graphs can be scored with `degla evaluate`"):
        load_encoder(str(tmp_path / "onnx"))
    (tmp_path / "onnx" / "text.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"text\.onnx: cannot be loaded by onnxruntime"):
        load_model(str(tmp_path / "onnx"))


def test_weights_of_a_run(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = run / "step-2"
    stored = {
        "student": load_file(checkpoint / "student.safetensors"),
        "teacher": load_file(checkpoint / "teacher.safetensors"),
        "average": load_file(checkpoint / "open_clip_model.safetensors"),
    }
    for what, weights in stored.items():
        result = export(str(run), to="open_clip", out=tmp_path / what, what=what)
        state = load_file(tmp_path / what / "open_clip_model.safetensors")
        assert all(torch.equal(state[name], weights[name]) for name in weights)
        # Without the optimiser and the other copies of the weights.
        assert result.bytes < 0.5 * sum(path.stat().st_size for path in checkpoint.iterdir())
    assert load_weights(str(run)).fingerprint == load_encoder(str(tmp_path / "average")).fingerprint
    with pytest.raises(InputError, match="is neither a run nor a checkpoint of one"):
        load_weights(str(tiny_model), what="teacher")


def test_weights_that_a_run_does_not_have(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    from degla.training.loop import train

    train(tiny_config("clip", model=str(tiny_model), pairs=tiny_pairs, out=tmp_path / "run", steps=1))
    with pytest.raises(InputError, match=r"--what teacher: .*teacher\.safetensors is missing: the run had no teacher"):
        load_weights(str(tmp_path / "run"), what="teacher")
    with pytest.raises(InputError, match=r"--what average: .* has only the student"):
        load_weights(str(tmp_path / "run"), what="average")
    assert (
        load_weights(str(tmp_path / "run"), what="student").fingerprint
        == load_encoder(str(tmp_path / "run")).fingerprint
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_cfg": RESNET}, "its image tower is a ModifiedResNet"),
        ({"init_logit_bias": -10}, "has a logit_bias"),
        ({"vision_cfg": CONFIG["vision_cfg"] | {"ls_init_value": 0.1}}, "ls_1.gamma has no counterpart"),
        ({"custom_text": True, "text_cfg": CONFIG["text_cfg"] | {"embed_cls": True}}, "appends a class token"),
    ],
)
def test_what_transformers_does_not_have_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **changes)
    with pytest.raises(InputError, match=message) as caught:
        export(str(folder), to="transformers", out=tmp_path / "out")
    assert "Export it to open_clip or onnx" in str(caught.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_resnet_goes_to_onnx(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", vision_cfg=RESNET)
    assert export(str(folder), to="onnx", out=tmp_path / "out").difference <= 1e-4
    wide = write_model(tmp_path / "wide", vision_cfg=CONFIG["vision_cfg"] | {"image_size": [32, 48]})
    with pytest.raises(InputError, match=r"'shortest' to 32 x 48, which no .* does\. Export it to open_clip\.$"):
        export(str(wide), to="onnx", out=tmp_path / "none")


def test_a_coca_goes_to_onnx_and_open_clip(tmp_path: Path) -> None:
    """Its image tower attends over patches, its texts end in a class token, and no embedding reads its decoder."""
    vision = CONFIG["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = ALL_TOKENS | {"embed_cls": True, "output_tokens": True}
    coca = write_model(
        tmp_path / "coca", custom_text=True, vision_cfg=vision, text_cfg=text, multimodal_cfg=ALL_TOKENS | {"heads": 2}
    )
    assert export(str(coca), to="onnx", out=tmp_path / "onnx").difference <= 1e-6
    assert export(str(coca), to="open_clip", out=tmp_path / "again").difference <= 1e-6
    assert load_encoder(str(tmp_path / "again")).fingerprint == load_encoder(str(coca)).fingerprint
    with pytest.raises(InputError, match=r"attention over its patches and its text tower appends a class token\."):
        export(str(coca), to="transformers", out=tmp_path / "none")


def test_a_graph_of_many_files_becomes_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch writes a graph of over 2 GB as a file per weight; both graphs may name one alike."""
    import onnx

    def write(*given: Any, **options: Any) -> None:
        write_one(*given, **options)
        graph = onnx.load(given[2])
        for number, tensor in enumerate(graph.graph.initializer):
            tensor.name, old = f"weight_{number}", tensor.name
            for node in graph.graph.node:
                node.input[:] = [tensor.name if name == old else name for name in node.input]
        onnx.save_model(graph, given[2], save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)

    write_one = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", write)
    models = [write_model(tmp_path / f"model-{seed}", seed=seed, text_cfg=ALL_TOKENS) for seed in (0, 1)]
    folders = [export(str(model), to="onnx", out=tmp_path / f"onnx-{model.name}").folder for model in models]
    assert {path.name for path in folders[0].glob("*.onnx*")} == {
        "image.onnx", "image.onnx.data", "text.onnx", "text.onnx.data"
    }  # fmt: skip
    assert not list(folders[0].glob("weight_*"))
    prints = {OnnxModel(folder, name="").fingerprint for folder in folders}
    assert len(prints) == 2, "cached embeddings of one would be used for the other"
    small = export(str(models[0]), to="onnx", int8=True, out=tmp_path / "small").folder
    assert not list(small.glob("*.data")), "the weights before quantisation"


def test_all_tokens_of_a_text_tower_of_transformers_are_compared() -> None:
    """XLM-R's texts start with the id 0, which ends no text."""
    from open_clip.hf_model import HFTextEncoder

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.AutoConfig.for_model("xlm-roberta", vocab_size=100, **sizes)
    clip: Any = torch.nn.Module()
    clip.text = HFTextEncoder("xlm-roberta", 16, config=config, pooler_type="mean_pooler", proj_type="linear")
    encoder, own = cast(Encoder, SimpleNamespace(clip=clip)), torch.tensor([[0, 5, 2, 1]])
    require_tokens("onnx", encoder, own, own.clone())
    for other in ([[0, 6, 2, 1]], [[0, 5, 2]]):
        with pytest.raises(DeglaError, match="onnx: encodes the text 'a photo of a cat' differently"):
            require_tokens("onnx", encoder, own, torch.tensor(other))


def test_what_differs_is_not_written(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from degla.export import run

    def spoiled(encoder: Any, folder: Path) -> None:
        write(encoder, folder)
        weights = load_file(folder / "open_clip_model.safetensors")
        noise = 1e-4 * torch.randn_like(weights["visual.proj"])
        save_file(weights | {"visual.proj": weights["visual.proj"] + noise}, folder / "open_clip_model.safetensors")

    write = run.save_encoder
    monkeypatch.setattr(run, "save_encoder", spoiled)
    with pytest.raises(DeglaError, match=r"its embeddings differ from those of the model by .* Nothing was written"):
        export(str(tiny_model), to="open_clip", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_kept(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(["export", str(tiny_model), "--to", "open_clip", "--out", str(tmp_path / "out")]) == 2
    assert "already exists and is not overwritten. Choose another --out." in capsys.readouterr().err
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    words = ["export", str(tiny_model), "--to", "open_clip", "--out"]
    for place in (tmp_path / "file" / "out", Path("/proc/degla/out")):
        assert main([*words, str(place)]) == 2
        error = capsys.readouterr().err
        assert f"{place}: cannot be written: " in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file"),
    ],
    ids=["open_clip", "transformers", "onnx"],
)
def test_a_full_disk_is_one_line(error: Exception, tmp_path: Path) -> None:
    message = r"out: cannot be written: the disk is full\. Free space and run the command"
    with pytest.raises(DeglaError, match=message), new_folder(tmp_path / "out") as partial:
        (partial / "half").write_text("a file")
        raise error
    assert list(tmp_path.iterdir()) == []


_ON_A_SMALL_DISK = """
import ctypes, os, sys
from pathlib import Path
from degla.cli import main
model, small, user, group = *sys.argv[1:], os.getuid(), os.getgid()
libc, new_users_and_mounts = ctypes.CDLL(None, use_errno=True), 0x10020000
def no_disk(number=None):
    sys.exit(f"no disk: {os.strerror(number or ctypes.get_errno())}")
libc.unshare(new_users_and_mounts) and no_disk()
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    try:
        Path("/proc/self", name).write_text(text)
    except OSError as error:
        no_disk(error.errno)
libc.mount(b"tmpfs", small.encode(), b"tmpfs", 0, b"size=256k") and no_disk()
print("rc", main(["export", model, "--to", "open_clip", "--out", f"{small}/out"]), *os.listdir(small))
"""


def test_a_disk_that_is_really_full(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    done = start(["-c", _ON_A_SMALL_DISK, str(tiny_model), str(tmp_path / "small")])
    if done.wait() and "no disk: " in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.split() == ["rc", "1"], done.stdout + done.stderr
    assert "out: cannot be written: the disk is full" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["onnxruntime", "transformers"])
def test_a_missing_package_is_reported_before_a_model_is_read(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf"needs {package}, which is not installed\. Install it: pip install 'degla\[ex"
    ):
        export("no-such-model", to="onnx", out=tmp_path / "out")
