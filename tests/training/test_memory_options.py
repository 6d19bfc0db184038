"""Gradient checkpointing and torch.compile do not change the gradients, and compile once."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.config.sections import LoopConfig
from degla.errors import InputError
from degla.model.load import load_encoder
from degla.training.pairs import open_pairs
from tests.tiny import CONFIG, write_model
from tests.training.configs import tiny_config
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]


def _model_of(folder: Path, *, image_blocks: int) -> Path:
    """Tracing takes time for every block."""
    layers = {"vision_cfg": image_blocks, "text_cfg": 1}
    return write_model(
        folder / "model", **{tower: CONFIG[tower] | {"layers": count} for tower, count in layers.items()}
    )


@pytest.fixture(scope="module")
def one_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model_of(tmp_path_factory.mktemp("one block"), image_blocks=1)


@pytest.fixture(scope="module")
def two_in_the_image_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model_of(tmp_path_factory.mktemp("two blocks"), image_blocks=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("trim", [True, False])
def test_gradient_checkpointing_changes_nothing(
    precision: str, trim: bool, all_tokens_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    steps = []
    for recompute in (False, True):
        options: dict[str, Any] = {"gradient_checkpointing": recompute, "precision": precision, "trim": trim}
        steps.append(
            first_step(tiny_config("degla", model=all_tokens_model, pairs=tiny_pairs, out=tmp_path, **options))
        )
    relative = 1e-5 if precision == "fp32" else 0.03
    torch.testing.assert_close(steps[0][0], steps[1][0], rtol=relative, atol=0)
    for name, expected in steps[0][1].items():
        gap = (steps[1][1][name] - expected).norm() / expected.norm()
        assert gap < relative, name


def test_checkpointed_blocks_keep_no_activations(tiny_model: Path) -> None:
    totals = []
    for recompute in (False, True):
        encoder = load_encoder(str(tiny_model)).train()
        if recompute:
            encoder.checkpoint_gradients()
        sizes: list[int] = []

        def pack(value: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            encoder.encode_images(torch.randn(8, 3, 32, 32))
        totals.append(sum(sizes))
    assert totals[1] < 0.75 * totals[0]


def test_compiled_towers_do_not_recompile_per_length(one_block: Path) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler on processors, and there is none")
    import torch._dynamo.testing as testing

    encoder = load_encoder(str(one_block))
    assert encoder.grow is not None
    grow = type(encoder.grow)(multiple=8)
    counter = testing.CompileCounter()
    encoder.compile(backend=counter)
    plain = load_encoder(str(one_block))
    words = (
        "red blue green small old two three black white wooden quiet grey sea night hat dog cat bench star " * 2
    ).split()
    with torch.no_grad():
        for number, length in enumerate([3, 4, 5, 7, 9, 12, 15, 18, 20]):
            texts = [" ".join(words[start : start + length]) for start in range(2 + number)]
            tokens = encoder.tokenize(texts)
            expected = plain.encode_captions(tokens)
            torch.testing.assert_close(encoder.encode_captions(grow(tokens)), expected, rtol=0, atol=1e-5)
    assert counter.frame_count <= 2, f"compiled {counter.frame_count} times for nine lengths"


# A minute or more of g++, for who asks for it.
BACKENDS = ("aot_eager", "inductor") if os.environ.get("DEGLA_TEST_INDUCTOR") else ("aot_eager",)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recipe", ["negclip", "degla_plus"])  # The second shares the states of frozen blocks.
def test_a_compiled_step_equals_the_eager_one(
    recipe: str, backend: str, one_block: Path, two_in_the_image_tower: Path, tiny_pairs: Pairs, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from torch._dynamo.utils import counters

    from degla.model.encoder import Encoder

    monkeypatch.setattr(Encoder, "compile", partialmethod(Encoder.compile, backend=backend))
    torch._dynamo.reset()
    model = one_block if recipe == "negclip" else two_in_the_image_tower
    config = tiny_config(recipe, model=model, pairs=tiny_pairs, out=tmp_path)
    eager = first_step(config)
    assert eager[2].main.shared_blocks == (recipe == "degla_plus")
    counters.clear()
    compiled = first_step(replace(config, train=replace(config.train, compile=True)))
    torch.testing.assert_close(compiled[0], eager[0], rtol=1e-5, atol=0)
    assert compiled[1].keys() == eager[1].keys()
    for name, expected in eager[1].items():
        assert expected.norm() > 0, name
        assert (compiled[1][name] - expected).norm() / expected.norm() < 1e-4, name

    graphs = counters["stats"]["unique_graphs"]
    assert graphs >= 2, "two towers"
    trainer, sizes = compiled[2], set()
    pairs = open_pairs(trainer.config, encoder=trainer.encoder, processes=trainer.processes)
    for batch in pairs.batches(0, start=1, device=trainer.encoder.device):
        (part,) = batch.parts(len(batch))
        sizes.add((len(part.texts.token), len(part.texts.path)))
        trainer.backward(batch)
    assert len(sizes) > 2, "all batches have trees of one size"
    assert counters["stats"]["unique_graphs"] == graphs, "another size was compiled again"


def test_compiling_goes_with_the_configuration(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from degla.model.encoder import Encoder

    compiled: list[str] = []
    monkeypatch.setattr(Encoder, "compile", lambda self: compiled.append(self.name))
    _, _, trainer = first_step(tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path, compile=True))
    assert len(compiled) == 2, "student and teacher"
    assert trainer.encoder.grow is not None and trainer.encoder.grow.multiple == 8
    assert LoopConfig().compile is False


def test_what_open_clip_asks_of_transformers_is_no_warning(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip.hf_model import HFTextEncoder
    from transformers import BertConfig

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    tower = HFTextEncoder("bert", output_dim=8, config=BertConfig(vocab_size=16, **sizes))
    encoder = load_encoder(str(tiny_model))
    monkeypatch.setattr(encoder.clip, "set_grad_checkpointing", tower.set_grad_checkpointing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.checkpoint_gradients()
    assert tower.transformer.encoder.layer[0].gradient_checkpointing


def test_a_model_without_gradient_checkpointing_says_so(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(str(tiny_model))
    monkeypatch.setattr(type(encoder.clip), "set_grad_checkpointing", None)
    with pytest.raises(InputError, match="does not support gradient checkpointing"):
        encoder.checkpoint_gradients()
