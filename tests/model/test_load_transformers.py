"""Folders of `transformers`: embeddings match those of transformers itself."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.cache import identity_of, image_identity_of
from degla.evaluation.models import load_model
from degla.evaluation.results import load_result
from degla.model.from_transformers import load_transformers_folder
from degla.model.load import load_encoder

transformers = pytest.importorskip("transformers")

TEXTS = ["a red cube on a blue ball", "a cat", "two dogs and an old man with a white hat near the sea", "a " * 60]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}


def write_tokenizer(folder: Path, kind: str) -> Any:
    """Write a tokenizer with letters as tokens, in the format of transformers."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    marks = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [*string.ascii_lowercase, " "]
    # CLIP's end token has the largest id, as in its own vocabulary; SigLIP pads with its end token, SigLIP 2 with 0.
    order = ["<unk>", "<s>", *letters, "</s>"] if kind == "clip" else [*marks, *letters]
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(order)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    end = ("</s>", order.index("</s>"))
    start = ("<s>", order.index("<s>"))
    form = "<s> $A </s>" if kind == "clip" else "$A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=[start, end])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", bos_token="<s>",
        pad_token="<pad>" if kind == "siglip2" else "</s>",
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def write_folder(folder: Path, kind: str, *, activation: str = "quick_gelu", seed: int = 0) -> tuple[Any, Any, Any]:
    """Write a tiny model with random weights in the real format; return model, tokenizer and image processor."""
    tokenizer = write_tokenizer(folder, kind)
    text = SIZES | {"vocab_size": 40, "max_position_embeddings": 40, "hidden_act": activation}
    vision = SIZES | {"image_size": 30, "patch_size": 10, "hidden_act": activation}
    torch.manual_seed(seed)
    if kind == "clip":
        text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 1}
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        )
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        processor = transformers.SiglipImageProcessor(size={"height": 30, "width": 30})
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, tokenizer, processor


def features(output: Any) -> torch.Tensor:
    pooled = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(pooled, dim=-1)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (50, 41, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_embeddings_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model, tokenizer, processor = write_folder(tmp_path / "model", kind)
    encoder = load_transformers_folder(tmp_path / "model")
    images = [picture(seed) for seed in range(3)]
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=40, return_tensors="pt")
    # SigLIP was trained, and is used, without a mask over its padding; CLIP's processor gives one.
    text_inputs = dict(inputs) if kind == "clip" else {"input_ids": inputs["input_ids"]}
    with torch.no_grad():
        texts = features(model.get_text_features(**text_inputs))
        pictures = features(model.get_image_features(**processor(images=images, return_tensors="pt")))
        tokens = encoder.tokenize(TEXTS)
        torch.testing.assert_close(encoder.encode_captions(tokens), texts, rtol=0, atol=1e-6)
        mine = encoder.encode_images(torch.stack([encoder.transform(image) for image in images]))
        torch.testing.assert_close(mine, pictures, rtol=0, atol=1e-6)
        if encoder.trims:
            longest = int((tokens[:2] != 0).sum(dim=1).max())
            torch.testing.assert_close(encoder.encode_captions(tokens[:2, :longest]), texts[:2], rtol=0, atol=1e-6)
    assert encoder.trims == (kind == "clip")
    assert (texts[0] - texts[1]).abs().max() > 1e-3
    assert encoder.context_length == 40 and tokens.shape == (4, 40)
    assert float(encoder.scale.detach()) == pytest.approx(model.logit_scale.exp().item())


def test_the_activation_is_the_folders_own(tmp_path: Path) -> None:
    write_folder(tmp_path / "quick", "clip")
    write_folder(tmp_path / "plain", "clip", activation="gelu")
    quick, plain = (load_model(str(tmp_path / name)) for name in ("quick", "plain"))
    assert (quick.activation, plain.activation) == ("quick_gelu", "gelu")
    tokens = quick.tokenize(TEXTS)
    assert (quick.encode_captions(tokens) - plain.encode_captions(tokens)).abs().max() > 1e-5


def test_the_command_scores_such_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "siglip")
    for number, name in enumerate(("red", "blue")):
        (tmp_path / "data" / "zeroshot" / "colours" / name).mkdir(parents=True)
        picture(number).save(tmp_path / "data" / "zeroshot" / "colours" / name / "0.png")
    out = tmp_path / "result.json"
    words = ["evaluate", str(tmp_path / "model"), "--benchmarks", "zeroshot", "--root", str(tmp_path / "data")]
    assert main([*words, "--out", str(out), "--no-cache", "--json"]) == 0
    result = load_result(out)
    assert result.model.name == str(tmp_path / "model")
    assert result.model.activation == "quick_gelu"
    assert result.benchmarks[0].parts[0].scores[0].n == 2


def test_the_cache_knows_such_a_model_by_weights_and_settings(tmp_path: Path) -> None:
    def identities(name: str, *, seed: int = 0, **changes: dict[str, Any]) -> tuple[str, str]:
        write_folder(tmp_path / name, "siglip", seed=seed)
        config = json.loads((tmp_path / name / "config.json").read_text())
        for tower, change in changes.items():
            config[tower] |= change
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        encoder = load_transformers_folder(tmp_path / name)
        return identity_of(encoder), image_identity_of(encoder)

    first = identities("first")
    assert identities("moved") == first
    text = identities("text", text_config={"num_attention_heads": 4})
    assert text[0] != first[0] and text[1] == first[1]
    for number, tower in enumerate(({"num_attention_heads": 4}, {"layer_norm_eps": 1e-5})):
        assert not {*identities(f"image {number}", vision_config=tower)} & {*first}
    assert not {*identities("weights", seed=1)} & {*first}


def test_what_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, "clip")
    assert load_encoder(str(folder)).name == str(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "../other"}')
    with pytest.raises(InputError, match=r"adapter_config\.json: is an adapter beside the model\."):
        load_model(str(folder))
    (folder / "adapter_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(
        InputError, match=r"config\.json: field 'model_type' is 'bert'; of transformers, only clip, siglip"
    ):
        load_model(str(folder))
    listed = {"vision_config": config["vision_config"] | {"image_size": [30, 30]}}
    (folder / "config.json").write_text(json.dumps(config | listed))
    with pytest.raises(InputError, match="its configuration or weights cannot be loaded by transformers"):
        load_model(str(folder))
    config["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the weights lack .*layers\.2"):
        load_model(str(folder))
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be loaded by transformers"):
        load_model(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded by transformers"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "<html>", r"config\.json line 1: not JSON"),
        ("tokenizer_config.json", "[]", r"tokenizer_config\.json: must be one JSON object, got an empty list"),
        ("tokenizer.json", "{}", "its tokenizer cannot be loaded by transformers"),
        ("preprocessor_config.json", "", r"preprocessor_config\.json line 1: not JSON"),
        ("preprocessor_config.json", "{}", "makes images of 224 x 224 pixels, but config.json says 30"),
        ("preprocessor_config.json", '{"size": {"shortest_edge": 30}, "do_center_crop": false}', "images of 60 x 30"),
        (
            "preprocessor_config.json",
            '{"size": {"longest_edge": 30}}',
            "its image processor cannot be loaded by transformers: ",
        ),
    ],
)
def test_a_damaged_file_of_a_folder_is_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "clip")
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path / "model"))


def test_no_kernel_of_the_hub_is_asked_for(kernels: list[Any], tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "clip")
    load_transformers_folder(tmp_path / "model")
    assert kernels == [False]
