"""Pre-train the world's model from scratch: `python tools/pretrain_world.py --out DIR`.

Plain InfoNCE over the mixture, drawn during training. Batch n depends only on the seed and n, and the state is saved
regularly, so the same command resumes a stopped run; the folder is a MODEL after each save. One thread is
bit-reproducible.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from degla.cli import exit_status_of
from degla.errors import InputError
from degla.files import whole_file
from degla.world import world_vocabulary_file
from degla.world.draw import WorldPair, sample_example
from degla.world.scenes import Split, stream

if TYPE_CHECKING:
    from torch import Tensor

SHIFT_PIXELS = 3
CONFIG_FILE: Final = "open_clip_config.json"
WEIGHTS_FILE: Final = "open_clip_model.safetensors"
CONTEXT_TOKENS: Final = 32


def model_config(*, vocabulary_size: int) -> dict[str, Any]:
    """Return open_clip's `model_cfg` of the world model: 64 pixels, patch 16, 3.35 million parameters."""
    return {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 192, "layers": 5, "head_width": 32},
        "text_cfg": {
            "context_length": CONTEXT_TOKENS,
            "vocab_size": vocabulary_size,
            "width": 128,
            "heads": 4,
            "layers": 3,
            "tokenizer_kwargs": {"bpe_path": world_vocabulary_file().name},
        },
    }


PREPROCESS: Final[dict[str, Any]] = {
    "size": [64, 64],
    "mode": "RGB",
    "mean": [0.45, 0.45, 0.45],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
"""open_clip's `preprocess_cfg` of the world model."""


@dataclass(frozen=True)
class Pretraining:
    """Settings of a pre-training run."""

    batch: int = 128
    """Pairs per step."""
    rate: float = 1e-3
    warmup: int = 100
    """Steps."""
    decay: float = 0.1
    """Weight decay of matrices; vectors have none."""
    save_every: int = 250
    """Steps."""

    def rate_at(self, step: int, *, steps: int) -> float:
        """Learning rate at a step: linear warm-up, then cosine decay to zero."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, steps - self.warmup)
        return self.rate * 0.5 * (1 + math.cos(math.pi * share))


def encode_trimmed(model: Any, tokens: Tensor) -> Tensor:
    """Run open_clip's `encode_text` on sequences shorter than the context, with tables cut to the tokens' length."""
    length = tokens.shape[1]
    rows = model.token_embedding(tokens) + model.positional_embedding[:length]
    rows = model.ln_final(model.transformer(rows, attn_mask=model.attn_mask[:length, :length]))
    last = tokens.argmax(dim=-1)  # the end token has the highest id
    pooled: Tensor = rows[range(len(rows)), last] @ model.text_projection
    return pooled


def trim(tokens: Tensor) -> Tensor:
    """Cut padding that no text of the batch needs. [B, 32] to [B, longest]."""
    return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1]


def to_tensor(pictures: Iterable[np.ndarray[Any, np.dtype[np.uint8]]]) -> Tensor:
    """Convert images, [64, 64, 3] uint8 each, to the model's normalised input [B, 3, 64, 64]."""
    import torch

    stacked = torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).float()
    mean, std = float(PREPROCESS["mean"][0]), float(PREPROCESS["std"][0])
    return (stacked / 255 - mean) / std


def contrastive_loss(image: Tensor, caption: Tensor, *, scale: Tensor, keys: list[str]) -> Tensor:
    """Symmetric InfoNCE; pairs that match each other's captions (equal keys) are not negatives of each other."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    similarity = scale * normalize(image.float(), dim=-1) @ normalize(caption.float(), dim=-1).T
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    same = torch.tensor([numbers[key] for key in keys])
    twins = (same[:, None] == same[None, :]).fill_diagonal_(False)
    similarity = similarity.masked_fill(twins, float("-inf"))
    target = torch.arange(len(keys))
    return (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2


def _optimizer(model: Any, settings: Pretraining) -> Any:
    import torch

    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), eps=1e-6, foreach=True)


def _step(model: Any, optimizer: Any, examples: list[WorldPair], *, tokenizer: Any, generator: Any) -> float:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    images = to_tensor(example.picture for example in examples)
    across, down = torch.randint(-SHIFT_PIXELS, SHIFT_PIXELS + 1, (2,), generator=generator).tolist()
    images = torch.roll(images, (down, across), dims=(2, 3))
    tokens = trim(tokenizer([example.caption for example in examples]))
    # The math attention kernel: flash backward on the CPU is slow in bfloat16.
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
        image, caption = model.encode_image(images), encode_trimmed(model, tokens)
    scale = model.logit_scale.exp()
    loss = contrastive_loss(image, caption, scale=scale, keys=[example.key for example in examples])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(100))
    return float(loss.detach())


def batches(*, size: int, seed: int, start: int = 0, split: Split = "train") -> Iterator[list[WorldPair]]:
    """Yield batches endlessly; batch n depends only on the seed and n, so a run resumes exactly."""
    number = start
    while True:
        rng = stream("mixture", split, seed, number)
        yield [sample_example(rng, split=split) for _ in range(size)]
        number += 1


def write_model_folder(folder: Path, state: Mapping[str, Tensor], *, vocabulary_size: int, provenance: str) -> None:
    """Write a model folder; weights are stored as float16, and open_clip loads them as float32."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_config(vocabulary_size=vocabulary_size), "preprocess_cfg": PREPROCESS}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
    save_file(half, folder / WEIGHTS_FILE, metadata={"format": "pt", "provenance": provenance})
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors writes files that only the owner can read
    copy = folder / world_vocabulary_file().name
    if copy.resolve() != world_vocabulary_file().resolve():
        shutil.copyfile(world_vocabulary_file(), copy)


def say_at_once(line: str) -> None:
    """Print one line and flush, so that it appears in a log immediately."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def pretrain(
    out: Path,
    *,
    pairs: int = 1_024_000,
    seed: int = 0,
    settings: Pretraining = Pretraining(),
    say: Callable[[str], None] = say_at_once,
) -> Path:
    """Pre-train, or resume from `out/state.pt`. Return the model folder `out`, which is usable after every save.

    Args:
        out: folder of the model and of the state to resume from.
        pairs: total number of image-caption pairs, which sets the schedule. A million take half an hour on one core.
        seed: seed of the initial weights and the images.
        settings: everything else.
        say: called with progress lines.
    """
    import open_clip
    import torch
    from open_clip.tokenizer import SimpleTokenizer

    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    steps = max(1, pairs // settings.batch)
    tokenizer = SimpleTokenizer(bpe_path=str(world_vocabulary_file()), context_length=32)
    model = open_clip.CLIP(**model_config(vocabulary_size=tokenizer.vocab_size))
    optimizer = _optimizer(model, settings)
    start, begun = 0, {**asdict(settings), "seed": seed, "steps": steps}
    if (out / "state.pt").exists():
        state = torch.load(out / "state.pt", weights_only=True)
        if other := sorted(name for name, value in begun.items() if state.get("begun", {}).get(name) != value):
            raise InputError(f"{out}: was begun with another {', '.join(other)}. Give the same, or another --out.")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        say(f"going on at step {start}")
    model.train()
    parameters = sum(p.numel() for p in model.parameters())
    say(f"{parameters:,} parameters, {steps} steps of {settings.batch} pairs")
    began, recent = time.time(), 0.0
    examples = batches(size=settings.batch, seed=seed, start=start)
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step, steps=steps)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        loss = _step(model, optimizer, next(examples), tokenizer=tokenizer, generator=generator)
        recent = loss if step == start else 0.98 * recent + 0.02 * loss
        done = step + 1
        if done % 50 == 0 or done == steps:
            scale, seconds = math.exp(model.logit_scale.item()), time.time() - began
            pace = (done - start) * settings.batch / seconds
            say(f"step {done} loss {recent:.3f} scale {scale:.1f} pairs/s {pace:.0f} seconds {seconds:.0f}")
        if done % settings.save_every == 0 or done == steps:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done, "begun": begun}
            with whole_file(out / "state.pt", binary=True) as file:
                torch.save(saved, file)
            provenance = json.dumps({**begun, "pairs": done * settings.batch})
            size = tokenizer.vocab_size
            write_model_folder(out, model.state_dict(), vocabulary_size=size, provenance=provenance)
    return out


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model and of the state to resume from")
    parser.add_argument("--pairs", type=int, default=1_024_000, help="total number of image-caption pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="one is bit-reproducible")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    pretrain(arguments.out, pairs=arguments.pairs, seed=arguments.seed)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
