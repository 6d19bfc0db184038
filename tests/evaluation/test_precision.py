"""Half precision in evaluation: another number format, told in provenance and caches, and of PyTorch's models alone."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.embed import EmbeddedItems, Embedder, _fetched
from degla.evaluation.models import EvaluationPrecision, RandomModel, computing_in
from degla.evaluation.run import Evaluation
from degla.evaluation.scoring import EmbeddingRows
from degla.model.load import load_encoder
from degla.records import ItemImage
from tests.evaluation.conftest import COLOURS
from tests.evaluation.fake_encoders import FakeEncoder, spreading
from tests.evaluation.shelf_contract import tiny_encoder
from tests.tiny import write_model

TEXTS = ["a red cube left of a blue ball", "a blue cube left of a red ball", "a dog", "two dogs on a lawn"]


def _embedded(root: Path, precision: EvaluationPrecision) -> EmbeddedItems:
    encoder = tiny_encoder()
    with computing_in(encoder, precision):
        return Embedder(encoder, root=root, images_per_batch=4, texts_per_batch=3).embed(
            [ItemImage(path=name) for name in COLOURS], TEXTS
        )


@pytest.mark.parametrize(("precision", "least", "largest"), [("bf16", 1e-3, 2e-2), ("fp16", 1e-5, 1e-3)])
def test_rows_in_half_precision_are_near_those_in_float32(
    small_root: Path, precision: EvaluationPrecision, least: float, largest: float
) -> None:
    """Those of bfloat16, which has three bits less, not as near as those of float16."""
    whole, half = _embedded(small_root, "fp32"), _embedded(small_root, precision)
    for plain, other in ((whole.images, half.images), (whole.texts, half.texts)):
        gap = float(np.abs(plain - other).max())
        assert least < gap < largest
        assert other.dtype == np.float32
        assert np.allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)
    assert tiny_encoder().precision == "fp32"


def test_float32_is_float32_inside_of_an_autocast_of_the_caller(small_root: Path) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = _embedded(small_root, "fp32")
    wanted = _embedded(small_root, "fp32")
    assert np.array_equal(embeddings.images, wanted.images) and np.array_equal(embeddings.texts, wanted.texts)


@pytest.mark.parametrize("everywhere", ["none", "tf32"])
@pytest.mark.parametrize("fails", [False, True])
def test_float32_is_not_tf32_in_convolutions_either(
    everywhere: str, fails: bool, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the program that calls has set, by PyTorch's new names, too; and its setting comes back."""
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("needs PyTorch 2.9")
    encoder, precisions = tiny_encoder(), []
    encode, convolutions = encoder.encode_images, torch.backends.cudnn.conv

    def encode_images(pixels: torch.Tensor) -> torch.Tensor:
        precisions.append(convolutions.fp32_precision)
        if fails:
            raise KeyboardInterrupt
        return encode(pixels)

    monkeypatch.setattr(torch.backends, "fp32_precision", everywhere)
    monkeypatch.setattr(encoder, "encode_images", encode_images)
    assert convolutions.fp32_precision == "tf32"
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        Embedder(encoder, root=small_root).embed([ItemImage(path=next(iter(COLOURS)))], [])
    assert precisions == ["ieee"] and convolutions.fp32_precision == "tf32"


def test_a_cache_and_a_result_know_the_precision(small_root: Path) -> None:
    cache: dict[str, EmbeddingRows] = {}
    evaluation = Evaluation(["small"], small_root, progress=False, cache=cache)
    assert evaluation.score(tiny_encoder()).model.precision == "fp32"
    rows = len(cache)
    result = replace(evaluation, precision="bf16").score(tiny_encoder())
    assert result.model.precision == "bf16"
    assert len(cache) == 2 * rows
    assert evaluation.score(tiny_encoder()).model.precision == "fp32"
    assert len(cache) == 2 * rows


def test_a_model_in_training_is_validated_in_float32(small_root: Path) -> None:
    """Its scores are compared with those before the first step, when it has no precision of training yet."""
    plain: dict[str, EmbeddingRows] = {}
    trained: dict[str, EmbeddingRows] = {}
    evaluation = Evaluation(["small"], small_root, progress=False)
    replace(evaluation, cache=plain).score(tiny_encoder())
    encoder = copy.deepcopy(tiny_encoder())
    encoder.precision = "bf16"
    assert replace(evaluation, cache=trained).score(encoder).model.precision == "fp32"
    assert encoder.precision == "bf16"
    assert plain.keys() == trained.keys()
    assert all(np.array_equal(row, trained[key]) for key, row in plain.items())


def test_only_networks_of_pytorch_have_a_precision_to_choose(small_root: Path) -> None:
    with computing_in(RandomModel("random", seed=0), "bf16"):
        assert RandomModel("random", seed=0).precision == "fp32"
    with (
        pytest.raises(InputError, match="fake: computes in fp32, set by its files; precision bf16 is only for"),
        computing_in(spreading(), "bf16"),
    ):
        pass
    with pytest.raises(InputError, match="precision 'fp8': must be one of fp32, bf16, fp16"):
        Evaluation(["small"], small_root, precision="fp8")  # type: ignore[arg-type]


def test_another_activation_is_that_of_the_architecture_with_it(small_root: Path, tmp_path: Path) -> None:
    """As NegCLIP's published scores: trained with QuickGELU, evaluated with GELU."""
    cache: dict[str, EmbeddingRows] = {}
    evaluation = Evaluation(["small"], small_root, progress=False, cache=cache)
    quick, plain = (load_encoder(str(write_model(tmp_path / str(quick), quick_gelu=quick))) for quick in (True, False))
    before, wanted = evaluation.score(quick), evaluation.score(plain)
    rows = len(cache)
    given = replace(evaluation, activation="gelu").score(quick)
    assert given.items == wanted.items != before.items
    assert (given.model.activation, given.model.fingerprint) == ("gelu", before.model.fingerprint)
    # The rows of the one are not taken for those of the other, and the model is as it was.
    assert len(cache) == rows and evaluation.score(quick).items == before.items
    assert quick.activation == "quick_gelu"
    back = replace(evaluation, activation="quick_gelu", cache=None).score(plain)
    assert back.items == before.items and back.model.activation == "quick_gelu"


def test_an_activation_that_is_part_of_the_towers_stays(small_root: Path, tmp_path: Path) -> None:
    evaluation = Evaluation(["small"], small_root, progress=False, activation="gelu")
    assert evaluation.score(RandomModel("random", seed=0)).model.activation == "none"
    with pytest.raises(InputError, match="photo: its activation function is part of its towers and cannot be set"):
        replace(evaluation, activation="quick_gelu").score(load_encoder("photo"))
    with pytest.raises(InputError, match="fake: its activation function is part of its towers"):
        evaluation.score(spreading())
    other = load_encoder(str(write_model(tmp_path / "other", quick_gelu=False)))
    other.clip.transformer.resblocks[0].mlp.gelu = torch.nn.GELU("tanh")
    with pytest.raises(InputError, match="its activation function is part of its towers"):
        replace(evaluation, activation="quick_gelu").score(other)


def test_a_model_of_another_kind_computes_as_it_likes(small_root: Path) -> None:
    class Half(FakeEncoder):
        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            assert not torch.is_autocast_enabled("cpu")
            return super().encode_images(images)

    encoder = Half(spreading().image_row, spreading().text_row, precision="bf16")
    assert len(Embedder(encoder, root=small_root).embed([ItemImage(path=name) for name in COLOURS], []).images) > 1


@pytest.mark.parametrize("flag", ["--images-per-batch", "--texts-per-batch", "--workers"])
def test_sizes_below_zero_are_refused(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "random", "--benchmarks", "winoground", "--root", str(tmp_path), "--out", "x.json"]
    assert main([*words, flag, "-1"]) == 2
    assert f"{flag} is -1; it must be 0 or more." in capsys.readouterr().err


def test_each_file_is_read_once_where_memory_allows(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from degla.evaluation import embed, image_files

    paths: list[str] = []
    plain = image_files.read_image_file

    def counted(root: Path, path: str) -> bytes:
        paths.append(path)
        return plain(root, path)

    monkeypatch.setattr(image_files, "read_image_file", counted)
    embeddings = _embedded(small_root, "fp32")
    assert sorted(paths) == sorted(COLOURS)
    paths.clear()
    monkeypatch.setattr(embed, "main_memory", lambda: 0)
    again = _embedded(small_root, "fp32")
    assert sorted(paths) == sorted([*COLOURS, *COLOURS])
    assert np.array_equal(embeddings.images, again.images)


def test_rows_may_lie_where_the_model_writes_the_next_ones(small_root: Path) -> None:
    class Reusing(FakeEncoder):
        """Gives the same memory again and again, as a graph of a GPU that is replayed does."""

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            rows = super().encode_images(images)
            self.memory = getattr(self, "memory", rows)
            self.memory[: len(rows)] = rows
            return self.memory[: len(rows)]

    plain = spreading()
    embeddings, expected = (
        Embedder(encoder, root=small_root, images_per_batch=2).embed([ItemImage(path=name) for name in COLOURS], [])
        for encoder in (Reusing(plain.image_row, plain.text_row), plain)
    )
    assert np.array_equal(embeddings.images, expected.images)


def test_a_small_model_embeds_32_images_at_a_time_on_a_cpu(tmp_path: Path) -> None:
    """With 128 the activations of `photo` took 3.1 GB more than with 8, for the same processor time."""
    Image.new("RGB", (40, 1)).save(tmp_path / "a.png")
    sizes: list[int] = []

    class Small(FakeEncoder):
        def parameters(self) -> list[torch.Tensor]:
            return [torch.zeros(9)]

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            return super().encode_images(images)

    plain = spreading()
    crops = [ItemImage(path="a.png", crop=(left, 0, 1, 1)) for left in range(40)]
    Embedder(Small(plain.image_row, plain.text_row), root=tmp_path).embed(crops, [])
    assert sizes == [32, 8]


def test_rows_are_waited_for_on_the_gpu_that_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current one is the first of several, whichever the model is on."""
    events: list[object] = []

    class Event:
        def record(self, stream: object = None) -> None:
            events.append(stream)

        def synchronize(self) -> None:
            events.append("waited")

    class Rows:
        device = torch.device("cuda:1")

        def detach(self) -> Rows:
            return self

        float = detach

        def to(self, *arguments: object, **options: object) -> Rows:
            return self

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    rows: Any = Rows()
    wait = _fetched(rows)
    assert events == ["stream of cuda:1"]
    assert wait() is rows
    assert events[1:] == ["waited"]


def test_graphs_among_several_models_are_refused_before_any_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "degla_onnx.json").write_text("{}")
    words = ["evaluate", "no/model", str(tmp_path / "graphs"), "--benchmarks", "world", "--root", str(tmp_path / "w")]
    assert main([*words, "--out", str(tmp_path / "x.json"), "--precision", "bf16"]) == 2
    assert "graphs: computes in a fixed precision, set by its files; precision bf16" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
