"""The shipped model and how it was trained."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors import safe_open

from degla.errors import InputError
from degla.world import world_model_folder, world_vocabulary_file
from degla.world.domains import DOMAINS
from degla.world.scenes import stream
from tools import pretrain_world as room
from tools.pretrain_world import (
    PREPROCESS,
    Pretraining,
    contrastive_loss,
    encode_trimmed,
    model_config,
    pretrain,
    to_tensor,
    trim,
)
from tools.world_vocabulary import world_words, write_vocabulary


@pytest.fixture(scope="module")
def world() -> tuple[Any, Any, Any]:
    name = f"local-dir:{world_model_folder()}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    model.eval()
    return model, open_clip.get_tokenizer(name, bpe_path=str(world_vocabulary_file())), transform


def test_open_clip_loads_the_folder_in_float32(world: tuple[Any, Any, Any]) -> None:
    model, tokenizer, _ = world
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with safe_open(world_model_folder() / "open_clip_model.safetensors", framework="pt") as stored:
        for name, parameter in model.state_dict().items():
            assert torch.equal(parameter, stored.get_tensor(name).float()), name
    assert tokenizer(["a red circle"]).shape == (1, 32)


def test_config_is_the_one_in_the_code() -> None:
    config = json.loads((world_model_folder() / "open_clip_config.json").read_text())
    size = config["model_cfg"]["text_cfg"]["vocab_size"]
    assert config == {"model_cfg": model_config(vocabulary_size=size), "preprocess_cfg": PREPROCESS}


def test_transform_is_what_the_model_was_trained_with(world: tuple[Any, Any, Any]) -> None:
    from PIL import Image

    picture = DOMAINS["animal"].paint("a dog", stream("transform")).picture
    assert torch.allclose(world[2](Image.fromarray(picture)), to_tensor([picture])[0], atol=1e-5)


def test_trimmed_texts_have_the_same_embeddings(world: tuple[Any, Any, Any]) -> None:
    model, tokenizer, _ = world
    tokens = tokenizer(["a red circle", "there is a striped blue star to the left of a plaid green ring"])
    with torch.inference_mode():
        assert torch.allclose(encode_trimmed(model, trim(tokens)), model.encode_text(tokens), atol=1e-5)


def test_model_recognises_what_it_was_pretrained_on(world: tuple[Any, Any, Any]) -> None:
    model, tokenizer, _ = world
    for name, floor in (("animal", 0.8), ("place", 0.9), ("pattern", 0.7)):
        domain = DOMAINS[name]
        pictures = [domain.paint(each, stream("known", each)).picture for each in domain.classes]
        with torch.inference_mode():
            texts = model.encode_text(tokenizer([f"a picture of {each}" for each in domain.classes]), normalize=True)
            images = model.encode_image(to_tensor(pictures), normalize=True)
        right = (images @ texts.T).argmax(1) == torch.arange(len(domain.classes))
        assert right.float().mean() >= floor, name


def test_shipped_files_stay_small() -> None:
    world = world_model_folder().parent
    assert sum(file.stat().st_size for file in world.rglob("*") if file.suffix not in (".py", ".pyc")) < 10_000_000


def test_vocabulary_cuts_the_worlds_words_as_clip_does(tmp_path: Path) -> None:
    size = write_vocabulary(tmp_path / "again.txt.gz")
    small = open_clip.SimpleTokenizer(bpe_path=str(world_vocabulary_file()))
    large = open_clip.SimpleTokenizer()
    assert size == small.vocab_size
    assert gzip.decompress((tmp_path / "again.txt.gz").read_bytes()) == gzip.decompress(
        world_vocabulary_file().read_bytes()
    )
    for word in world_words():
        assert len(small.encode(word)) == len(large.encode(word)), word
    assert small.decode(small.encode("any English sentence")).strip() == "any english sentence"


def test_twins_are_not_set_against_each_other() -> None:
    image, caption = torch.randn(4, 8), torch.randn(4, 8)
    caption[1] = caption[0]
    scale = torch.tensor(10.0)
    plain = contrastive_loss(image, caption, scale=scale, keys=["a", "b", "c", "d"])
    spared = contrastive_loss(image, caption, scale=scale, keys=["a", "a", "c", "d"])
    assert spared < plain


def test_stopped_pretraining_continues_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Pretraining(batch=4, save_every=2, warmup=1)

    def small(**sizes: int) -> dict[str, Any]:
        config = model_config(**sizes)
        vision, text = (config[name] | {"width": 32, "layers": 1} for name in ("vision_cfg", "text_cfg"))
        return config | {"vision_cfg": vision, "text_cfg": text}

    monkeypatch.setattr(room, "model_config", small)

    def run(folder: Path) -> dict[str, torch.Tensor]:
        pretrain(folder, pairs=16, settings=settings, say=lambda line: None)
        state: dict[str, torch.Tensor] = torch.load(folder / "state.pt", weights_only=True)["model"]
        return state

    whole = run(tmp_path / "whole")
    true_batches = room.batches

    def stopping(**settings: Any) -> Iterator[Any]:
        yield from itertools.islice(true_batches(**settings), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "batches", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    monkeypatch.setattr(room, "batches", true_batches)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    with pytest.raises(InputError, match=r"parts: was begun with another seed, steps\. Give the same, or"):
        pretrain(tmp_path / "parts", pairs=32, seed=1, settings=settings, say=lambda line: None)
    torch.manual_seed(0)
    fresh = open_clip.CLIP(**small(vocabulary_size=whole["token_embedding.weight"].shape[0]))
    still = [name for name, value in fresh.named_parameters() if torch.equal(value, whole[name])]
    assert not still
