"""Gradient caching: a batch embedded in chunks has the loss and the gradients of the whole, in much less memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from degla.config.fields import to_plain
from degla.inputs import parts, with_sources
from degla.losses import TextContrast, losses_by_name
from tests.launch import run, run_together
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import Gradients, first_step

Pairs = dict[str, Path]


def _everything(model: Path, pairs: Pairs, out: Path, *, plain: bool = False, **loop: Any) -> Any:
    """Every loss in one objective; if `plain`, without those that read optional parts of a batch."""
    config = tiny_config("degla", model=model, pairs=pairs, out=out, **{"batch_size": 8} | loop)
    left_out = {extra for extra in parts() if plain or (extra in ("tokens", "masked") and not config.train.trim)}
    left_out.add("bias")  # The tiny model has none; tests/training/test_bias.py splits batches of one that has.
    left_out.add("reconstruction")  # There is no decoder; tests/training/test_reconstruction.py has one.
    chosen = {name: term for name, term in config.objective.items() if not with_sources(term.reads) & left_out}
    assert len(chosen) >= (9 if plain else 15)
    active = {name: replace(term, weight=term.weight or 0.3) for name, term in chosen.items()}
    return replace(config, objective=config.objective | active)


def _compare(left: Gradients, right: Gradients, *, relative: float) -> None:
    assert left.keys() == right.keys() and "clip.logit_scale" in left and len(left) > 50
    for name, expected in left.items():
        assert expected.abs().max() > 0, name
        gap = (right[name] - expected).abs().max() / expected.abs().max()
        assert gap < relative, (name, gap.item())


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tiny_pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The first step of a batch that is not split."""
    return first_step(_everything(tiny_model, tiny_pairs, tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_chunks_have_the_gradients_of_the_whole(
    chunk_size: int, whole: Any, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    chunked = first_step(_everything(tiny_model, tiny_pairs, tmp_path, chunk_size=chunk_size))
    torch.testing.assert_close(whole[0], chunked[0], rtol=1e-6, atol=0)
    _compare(whole[1], chunked[1], relative=1e-5)
    for name, memory in whole[2].main.objective.memory.items():
        torch.testing.assert_close(chunked[2].main.objective.memory[name], memory)


@pytest.mark.parametrize("trim", [True, False])
def test_mixed_precision_and_padding(trim: bool, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "bf16", "trim": trim}

    def step(**loop: Any) -> Any:
        config = _everything(tiny_model, tiny_pairs, tmp_path, **options, **loop)
        # Its rounding error alone is as large as all others together; in fp32, above, it is exact.
        without = replace(config.objective["evidence_contrast"], weight=0.0)
        return first_step(replace(config, objective=config.objective | {"evidence_contrast": without}))

    whole, chunked = step(), step(chunk_size=2)
    torch.testing.assert_close(whole[0], chunked[0], rtol=1e-4, atol=0)
    _compare(whole[1], chunked[1], relative=0.05)


@pytest.mark.parametrize(
    "recipe", ["clip", "negclip", "ce_clip", "degla_published", "fsc_clip", "triplet_clip", "negclip_hard_images"]
)
def test_every_kind_of_recipe(recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    steps = []
    for chunk_size in (None, 3):
        config = tiny_config(
            recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path, batch_size=8, chunk_size=chunk_size
        )
        steps.append(first_step(config))
    torch.testing.assert_close(steps[0][0], steps[1][0], rtol=1e-6, atol=0)
    _compare(steps[0][1], steps[1][1], relative=2e-5)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_and_chunks_change_no_gradient(
    processes: int, whole: Any, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    small = 8 // processes // 2
    sizes = (None, small) if processes == 2 else (small,)
    configs = [_everything(tiny_model, tiny_pairs, tmp_path, chunk_size=size) for size in sizes]
    worker = Path(__file__).with_name("gradient_worker.py")
    words = [json.dumps(to_plain(config)) for config in configs]
    run_together([str(worker), str(tmp_path / "found.pt"), *words], count=processes)
    results = torch.load(tmp_path / "found.pt", weights_only=True)
    assert results.keys() == {str(size) for size in sizes}
    for step in results.values():
        torch.testing.assert_close(step["loss"], whole[0], rtol=1e-5, atol=0)
        _compare(
            whole[1], {name.removeprefix("module."): value for name, value in step["gradients"].items()}, relative=1e-5
        )


def test_a_tower_that_no_loss_reads_gets_no_gradient_from_chunks(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """With a gradient of 0, AdamW would shrink its weights."""
    config = tiny_config("read_clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    config = replace(config, objective=losses_by_name(text_contrast=TextContrast()))
    steps = [first_step(replace(config, train=replace(config.train, chunk_size=size))) for size in (None, 2)]
    assert steps[0][1].keys() == steps[1][1].keys()
    assert not any(name.startswith("clip.visual.") for name in steps[0][1])


def test_a_run_in_chunks_resumes_bit_for_bit(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = _everything(tiny_model, tiny_pairs, tmp_path / "whole", steps=4, chunk_size=3)
    done, resumed = whole_and_resumed(whole)
    for name in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = (load_file(run.folder / name) for run in (done, resumed))
        assert all(torch.equal(value, right[key]) for key, value in left.items()), name


_MEMORY = """
import sys
from degla.config.fields import from_plain
import json
import torch
from dataclasses import replace
from degla.speed.machine import peak_memory
from tests.training.gradient_worker import first_step
config = from_plain(json.loads(sys.argv[1]), where="test")
import degla.training.step as step
original = step.Trainer.backward
def watched(self, batch):
    before = peak_memory(torch.device("cpu"))
    result = original(self, batch)
    print("grown", peak_memory(torch.device("cpu")) - before)
    return result
step.Trainer.backward = watched
# The first step of all also brings in what PyTorch loads when it is needed.
first_step(replace(config, train=replace(config.train, batch_size=16)))
first_step(config)
"""


def test_a_large_batch_fits_where_the_whole_needs_four_times_as_much(tmp_path: Path) -> None:
    from tests.tiny import CONFIG, write_model, write_pairs

    model = write_model(tmp_path / "model", vision_cfg=CONFIG["vision_cfg"] | {"patch_size": 8, "layers": 10})
    pairs = write_pairs(tmp_path / "pairs", images=256)
    rows = [json.loads(line) for line in pairs["negatives"].read_text().splitlines()]
    more = [row | {"text": f"{row['text']} and {word}"} for row in rows for word in ("more", "less", "that")]
    pairs["negatives"].write_text("".join(json.dumps(row) + "\n" for row in rows + more))
    grown = {}
    for chunk_size in (16, None):
        config = _everything(model, pairs, tmp_path / "run", plain=True, batch_size=512, chunk_size=chunk_size)
        config = replace(config, data=replace(config.data, negatives_per_caption=4))
        done = run(["-c", _MEMORY, json.dumps(to_plain(config))])
        assert done.wait() == 0, done.stderr[-3000:]
        grown[chunk_size] = int(done.stdout.split("grown")[-1])
    assert grown[None] > 4 * grown[16], grown
