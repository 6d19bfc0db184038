"""Transformers folders become equivalent open_clip models; those without an exact equivalent are refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from degla.errors import InputError
from degla.evaluation.models import load_model
from degla.export.run import export
from degla.model import fast_paths, probe
from degla.model.checkpoint import check_alike, save_encoder
from degla.model.from_transformers import pooled
from degla.model.load import load_encoder
from degla.model.transformers_map import NoExactFormError, preprocess_config_of
from tests.export.made import change_json, register_tiny_tower, write_clip, write_siglip

transformers = pytest.importorskip("transformers")

TEXTS = ["a red cube on a blue ball", "a cat", "two dogs"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in") / "clip"
    write_clip(folder)
    return folder


def _embeddings(encoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    size = encoder.description.preprocess_config["size"]
    with torch.no_grad():
        return encoder.encode_images(probe.pixels((size[0], size[1]))), encoder.encode_captions(encoder.tokenize(TEXTS))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("clip", {}),
        ("clip", {"text": {"hidden_act": "gelu"}, "vision": {"hidden_act": "gelu", "layer_norm_eps": 1e-3}}),
        ("clip", {"text": {"hidden_act": "gelu_pytorch_tanh", "eos_token_id": 2}, "vision": {"hidden_act": "gelu"}}),
        ("clip", {"text": {"intermediate_size": 75}, "vision": {"intermediate_size": 96}}),
        ("metaclip_2", {}),
        ("siglip", {}),
    ],
)
def test_the_same_numbers_and_back_again(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    register_tiny_tower()
    folder = tmp_path / "model"
    model = write_siglip(folder) if kind == "siglip" else write_clip(folder, kind=kind, **changes)
    encoder = load_encoder(str(folder))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    context = encoder.context_length
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=context, return_tensors="pt").input_ids
    images, texts = _embeddings(encoder)
    with torch.no_grad():
        theirs = pooled(model.get_image_features(pixel_values=probe.pixels((32, 32))))
        assert probe.gap(images, theirs) < 1e-5
        assert probe.gap(texts, pooled(model.get_text_features(input_ids=tokens))) < 1e-5
    assert (texts[0] - texts[1]).abs().max() > 1e-3
    assert encoder.scale.item() == pytest.approx(model.logit_scale.exp().item())
    assert fast_paths.lacks(encoder) == [] or kind == "siglip"
    assert type(load_model(str(folder))) is type(encoder), "evaluation loads the same model as training"
    # Its checkpoint loads without the original folder.
    save_encoder(encoder, tmp_path / "saved")
    shutil.rmtree(folder)
    again = load_encoder(str(tmp_path / "saved"))
    for first, second in zip((images, texts), _embeddings(again), strict=True):
        assert torch.equal(first, second)


def test_it_is_trained_resumed_and_averaged(clip: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    from degla.model.checkpoint import average_weights
    from degla.training.loop import train
    from tests.training.configs import tiny_config

    config = tiny_config("negclip", model=str(clip), pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=1))
    assert train(config).finished
    (tmp_path / "run" / "step-2" / "state.json").unlink()
    folder = train(config, resume=True).folder
    before, after = load_encoder(str(clip)), load_encoder(str(folder))
    assert before.grow is not None and before.reads_class_token, "the fast paths are open_clip's"
    assert before.fingerprint != after.fingerprint
    assert torch.equal(before.tokenize(TEXTS), after.tokenize(TEXTS))
    assert average_weights(before, after, share=0.0).fingerprint == before.fingerprint


def test_what_is_wrong_with_a_checkpoint_of_it_is_reported(clip: Path, tmp_path: Path) -> None:
    save_encoder(load_encoder(str(clip)), tmp_path / "saved")
    file = tmp_path / "saved" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["text_cfg"]["vocab_size"] = 41
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"size mismatch for token_embedding") as caught:
        load_encoder(str(tmp_path / "saved"))
    assert "hub" not in str(caught.value), "its tokenizer lies in the folder"


def test_preprocessing_is_the_folders_own(clip: Path) -> None:
    settings = load_encoder(str(clip)).description.preprocess_config
    assert settings["mean"] == [0.4, 0.5, 0.6] and settings["size"] == [32, 32]
    assert (settings["interpolation"], settings["resize_mode"]) == ("bicubic", "shortest")
    image = probe.picture(width=60, height=40)
    processor = transformers.AutoImageProcessor.from_pretrained(clip)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    # Two levels of 255: transformers resizes tensors, open_clip pictures.
    assert (load_encoder(str(clip)).transform(image) - theirs).abs().max() < 2.1 / 255 / 0.26


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": False}, "resizes to"),
        ({"size": {"shortest_edge": 40}}, "resizes to"),
        ({"crop_size": {"height": 24, "width": 24}}, "and crops to"),
        ({"size": {"height": 32, "width": 32}, "crop_size": {"height": 24, "width": 24}}, "and crops to"),
        ({"resample": 1}, "resample"),
        ({"do_normalize": False}, "do_normalize"),
        ({"rescale_factor": 1.0}, "scales by 1, but"),
    ],
)
def test_preprocessing_that_open_clip_does_not_have(change: dict[str, Any], message: str) -> None:
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    assert preprocess_config_of(processor.to_dict(), size=32)["resize_mode"] == "shortest"
    assert preprocess_config_of(processor.to_dict() | {"image_mean": 0.5}, size=32)["mean"] == [0.5, 0.5, 0.5]
    with pytest.raises(NoExactFormError, match=message):
        preprocess_config_of(processor.to_dict() | change, size=32)


def test_openai_vocabulary_is_open_clips_own(tmp_path: Path) -> None:
    write_clip(tmp_path / "model", own=True)
    encoder = load_encoder(str(tmp_path / "model"))
    assert encoder.description.tokenizer_files == ()
    assert isinstance(encoder.tokenize, open_clip.SimpleTokenizer)
    assert "hf_tokenizer_name" not in encoder.description.model_config["text_cfg"]


@pytest.mark.parametrize(
    ("kind", "message"), [("clip", "towers use gelu and quick_gelu"), ("siglip", "open_clip has no SigLIP with quick")]
)
def test_what_open_clip_has_no_form_of_is_scored_and_not_trained(kind: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    siglip = kind == "siglip"
    original = (
        write_siglip(folder, activation="quick_gelu") if siglip else write_clip(folder, text={"hidden_act": "gelu"})
    )
    with pytest.raises(NoExactFormError, match=rf"{message}.*`degla evaluate` can still"):
        load_encoder(str(folder))
    model: Any = load_model(str(folder))
    assert type(model).__name__ == "TransformersEncoder"
    texts = [*TEXTS, "a long row of dogs " * 20]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=model.context_length, return_tensors="pt"
    )
    with torch.no_grad():
        theirs = pooled(original.get_text_features(input_ids=tokens.input_ids))
        assert probe.gap(model.encode_captions(model.tokenize(texts)), theirs) < 1e-6


def test_a_wrong_map_is_noticed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from degla.model import from_transformers

    def wrong(config: Any) -> dict[str, Any]:
        fields = right(config)
        return fields | {"quick_gelu": False}

    right = from_transformers.model_config_of
    monkeypatch.setattr(from_transformers, "model_config_of", wrong)
    with pytest.raises(NoExactFormError, match=r"embeddings of images differ by .* between transformers and open_clip"):
        load_encoder(str(clip))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0), (torch.float16, 0)])
def test_half_precision_is_read_as_float32(clip: Path, tmp_path: Path, dtype: torch.dtype, limit: int) -> None:
    shutil.copytree(clip, tmp_path / "half")
    state = load_file(clip / "model.safetensors")
    save_file({name: value.to(dtype) for name, value in state.items()}, tmp_path / "half" / "model.safetensors")
    change_json(tmp_path / "half" / "config.json", dtype=str(dtype).removeprefix("torch."))
    encoder = load_encoder(str(tmp_path / "half"))
    weight = encoder.clip.visual.conv1.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["vision_model.embeddings.patch_embedding.weight"].to(dtype).float())


def test_shards_are_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "whole")
    write_clip(tmp_path / "model", max_shard_size="40KB")
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    one, other = load_encoder(str(tmp_path / "whole")), load_encoder(str(tmp_path / "model"))
    assert one.fingerprint == other.fingerprint
    shard = sorted((tmp_path / "model").glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(
        InputError, match=rf"1 of \d+ weights files are missing, first {shard.name}; the download is incomplete"
    ):
        load_encoder(str(tmp_path / "model"))
    file = tmp_path / "model" / "model.safetensors.index.json"
    file.write_text(file.read_text().replace(shard.name, f"../whole/{shard.name}"))
    with pytest.raises(InputError, match=rf"names '../whole/{shard.name}', which is not a file of the folder"):
        load_encoder(str(tmp_path / "model"))


def _broken(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "half a file":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "integers":
        state = load_file(weights)
        save_file(state | {"text_projection.weight": torch.ones(16, 32, dtype=torch.int8)}, weights)
    elif how == "image tower":
        state = load_file(weights)
        save_file({name: value for name, value in state.items() if not name.startswith("text_")}, weights)
    elif how == "classifier":
        save_file(load_file(weights) | {"classifier.weight": torch.zeros(3, 32)}, weights)
    elif how == "classifier's name":
        change_json(folder / "config.json", architectures=["CLIPForImageClassification"])
    elif how == "no preprocessing":
        (folder / "preprocessor_config.json").unlink()
        (folder / "processor_config.json").unlink(missing_ok=True)
    elif how == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
    elif how == "no end token":
        text = json.loads((folder / "config.json").read_text())["text_config"]
        change_json(folder / "config.json", text_config=text | {"eos_token_id": None})
    else:
        change_json(folder / "config.json", model_type=how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", r"pytorch_model\.bin: pickled weights, .*convert it: python -c"),
        ("half a file", r"model\.safetensors is damaged"),
        ("integers", r"text_projection\.weight has the type I8, but weights must be float32, float16 or bfloat16"),
        ("image tower", r"the weights have no text tower"),
        ("classifier", r"the weights include a classifier \(classifier\.weight\)"),
        ("classifier's name", r"'architectures' names CLIPForImageClassification, a classifier"),
        ("no preprocessing", r"has no image processor .*AutoProcessor\.from_pretrained\('BASE'\)"),
        ("no tokenizer", r"cannot be loaded by transformers|has no tokenizer"),
        ("no end token", r"config\.json: field 'text_config\.eos_token_id' is None, but must be one number"),
        ("clip_vision_model", r"'clip_vision_model'.*only one tower"),
        ("siglip2", r"'siglip2'.*use one of fixed resolution"),
        ("altclip", r"'altclip'.*open_clip does not have its text tower"),
        ("bert", r"'model_type' is 'bert'; of transformers, only clip, siglip .*can be loaded\."),
    ],
)
@pytest.mark.parametrize("load", [load_encoder, load_model])
def test_what_cannot_be_loaded_is_one_line(load: Any, how: str, message: str, clip: Path, tmp_path: Path) -> None:
    shutil.copytree(clip, tmp_path / "model")
    _broken(tmp_path / "model", how)
    with pytest.raises(InputError, match=message) as caught:
        load(str(tmp_path / "model"))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_sentencepiece_vocabulary_needs_its_package(tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5")
    if importlib.util.find_spec("sentencepiece"):
        pytest.skip("sentencepiece is installed")
    write_siglip(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    (tmp_path / "model" / "spiece.model").write_bytes(b"a vocabulary")
    change_json(tmp_path / "model" / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    with pytest.raises(InputError, match=r"(?i)sentencepiece") as caught:
        load_model(str(tmp_path / "model"))
    assert "\n" not in str(caught.value)


def test_a_config_of_no_numbers(clip: Path, tmp_path: Path) -> None:
    shutil.copytree(clip, tmp_path / "model")
    config = json.loads((clip / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the weights lack .*layers\.2"):
        load_encoder(str(tmp_path / "model"))


def test_a_model_and_its_export_are_averaged(tmp_path: Path) -> None:
    """The export pads texts with another id, which nothing reads."""
    export("world", to="transformers", out=tmp_path / "theirs")
    check_alike(load_encoder("world"), load_encoder(str(tmp_path / "theirs")))
