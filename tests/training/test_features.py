"""Images embedded once: the same run as with pixels at every step, and errors for what needs pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from degla.data.dataset import PairDataset
from degla.errors import InputError
from degla.files import cache_folder
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.training import features
from degla.training.features import embed_patches
from degla.training.loop import train
from tests.tiny import CAPTIONS, write_model
from tests.training.configs import tiny_config, whole_and_resumed

Pairs = dict[str, Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings are cached where other tests do not look."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("recipe", ["degla", "con_clip", "fsc_clip", "macco"])
def test_once_equals_every_step(
    recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the model's own transform at each step instead of crops, captions change equally, except for rounding."""
    loop = {"steps": 3, "train_image_tower": False}
    once = tiny_config(
        recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path / "once", embed_images_once=True, **loop
    )
    embedded = train(once).folder

    transform, original = load_encoder(str(tiny_model)).transform, PairDataset.__init__

    def own(picture: Image.Image, _: object) -> torch.Tensor:
        return transform(picture)

    def with_own_transform(self: PairDataset, *arguments: object, **options: object) -> None:
        original(self, *arguments, **options | {"transform": own})  # type: ignore[arg-type]

    monkeypatch.setattr(PairDataset, "__init__", with_own_transform)
    pixels = tiny_config(recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path / "pixels", **loop)
    reference = load_encoder(str(train(pixels).folder))
    start, got = load_encoder(str(tiny_model)), load_encoder(str(embedded))
    with torch.no_grad():
        texts = [encoder.encode_captions(encoder.tokenize(CAPTIONS)) for encoder in (start, reference, got)]
    # Not weights: the gradient of a key's bias is only rounding error, which Adam turns into a step.
    torch.testing.assert_close(texts[2], texts[1], rtol=0, atol=1e-4)
    assert (texts[1] - texts[0]).abs().max() > 1e-2
    unchanged = start.clip.visual.state_dict()
    assert all(torch.equal(value, unchanged[name]) for name, value in got.clip.visual.state_dict().items())


def test_resume_is_exact(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    loop = {"train_image_tower": False, "embed_images_once": True}
    whole = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", **loop)
    left, right = (load_file(run.folder / "open_clip_model.safetensors") for run in whole_and_resumed(whole))
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_what_needs_pixels_is_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    def refused(recipe: str, match: str, **loop: bool) -> None:
        config = tiny_config(recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path, embed_images_once=True, **loop)
        with pytest.raises(InputError, match=f"--train.embed-images-once: .*{match}"):
            config.check()

    refused("negclip", "--train.no-train-image-tower")
    refused("fare", "attack.epsilon", train_image_tower=False)
    fare = tiny_config(
        "fare", model=tiny_model, pairs=tiny_pairs, out=tmp_path, embed_images_once=True, train_image_tower=False
    )
    with pytest.raises(InputError, match="unnormalised image embeddings"):
        replace(fare, attack=replace(fare.attack, epsilon=0.0)).check()


def test_a_file_of_patches_is_made_once_and_of_each_picture(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.training.features._BATCH", 5)
    encoder = load_encoder(str(tiny_model))
    names = sorted(path.name for path in tiny_pairs["images"].iterdir())
    unused = cache_folder("embeddings") / "0.patches.npy"
    unused.parent.mkdir(parents=True, exist_ok=True)
    unused.touch()
    os.utime(unused, (0, 0))
    patches = embed_patches([*names, names[0]], folder=tiny_pairs["images"], encoder=encoder, processes=Processes())
    (file,) = (tmp_path / "cache").rglob("*.patches.npy")
    made = file.stat().st_ino  # Another file would replace it.
    os.utime(file, (0, 0))
    again = embed_patches(names, folder=tiny_pairs["images"], encoder=encoder, processes=Processes())
    assert file.stat().st_ino == made and again == patches and patches.file == file
    assert file.stat().st_mtime > 0, "marked as used"
    assert np.load(file).shape == (len(names), 5, 16)
    pixels = torch.stack([encoder.transform(Image.open(tiny_pairs["images"] / name)) for name in names])
    with torch.no_grad():
        embeddings = encoder.embed(torch.stack([patches(name) for name in names]), None, dense=True, raw=True)
        expected = encoder.embed(pixels, None, dense=True, raw=True)
    for one, other in zip(embeddings, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(encoder.encode_images(torch.stack([patches(names[0])])), embeddings.image[:1])
    embed_patches(names[:2], folder=tiny_pairs["images"], encoder=encoder, processes=Processes())
    assert len(list((tmp_path / "cache").rglob("*.patches.npy"))) == 2, "other images, another file"
    other = load_encoder(str(write_model(tmp_path / "other", seed=9)))
    rows = embed_patches(names, folder=tiny_pairs["images"], encoder=other, processes=Processes())
    with torch.no_grad():
        torch.testing.assert_close(other.encode_images(rows(names[0])[None]), other.encode_images(pixels[:1]))


def test_a_machine_without_the_disk_of_the_first_makes_its_own_file_of_patches(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read the file of the first machine's disk, which it does not have."""
    encoder, folder = load_encoder(str(tiny_model)), tiny_pairs["images"]
    names = sorted(path.name for path in folder.iterdir())
    first = embed_patches(names, folder=folder, encoder=encoder, processes=Processes())
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "second"))

    class Second(Processes):
        def together(self, work: Callable[[], Any]) -> list[Any]:
            return [first.file.name.removesuffix(".patches.npy"), work()]

    second = embed_patches(names, folder=folder, encoder=encoder, processes=Second(count=2, rank=1))
    assert second.file == tmp_path / "second" / "embeddings" / first.file.name
    assert second.file.read_bytes() == first.file.read_bytes()
    # One process of a machine works: each would have embedded everything before an error that all of them meet.
    second.file.unlink()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(features, "_batches_of_rows", lambda *_, **__: pytest.fail("it embeds"))
    embed_patches(names, folder=folder, encoder=encoder, processes=Second(count=2, rank=1))
    assert not second.file.exists()
