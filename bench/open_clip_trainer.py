"""How many pairs does the recipe `clip` train in the time in which open_clip's own trainer trains one?

The same weights, captions and pictures (noise) on both sides, which run in turns, each in a process of its own: one
step that is not counted, then some that are, with one thread, in fp32. Seconds are those of the processor, so that
other work matters less. Nothing is decoded. Losses of all steps are compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file

RATE = 1e-6


def batches(given: Namespace) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Pictures and captions of each step, the first included that is not counted."""
    rows = json.loads(given.captions.read_text())["annotations"]
    generator = torch.Generator().manual_seed(0)
    for step in range(given.steps + 1):
        texts = [rows[(step * given.batch_size + place) % len(rows)]["caption"] for place in range(given.batch_size)]
        yield torch.randn(given.batch_size, 3, given.pixels, given.pixels, generator=generator), texts


def theirs(given: Namespace) -> dict[str, list[float]]:
    """Seconds and losses of each step of `open_clip_train.train.train_one_epoch`."""
    from open_clip_train.train import train_one_epoch

    model = open_clip.create_model(given.model, output_dict=True)
    model.load_state_dict(load_file(given.weights))
    tokenize, found = open_clip.get_tokenizer(given.model), {"seconds": [], "losses": []}

    class Loss(open_clip.ClipLoss):
        def forward(self, *args: Any, **more: Any) -> Any:
            losses = super().forward(*args, **more)
            found["losses"].append(float(losses["contrastive_loss"].detach()))
            return losses

    class Loader:
        num_batches, num_samples = given.steps + 1, (given.steps + 1) * given.batch_size

        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for images, texts in batches(given):
                tokens, started = tokenize(texts), time.process_time()
                yield images, tokens
                found["seconds"].append(time.process_time() - started)

    args = Namespace(
        device="cpu", precision="fp32", distill=False, skip_scheduler=True, accum_freq=1, grad_clip_norm=None,
        horovod=False, rank=0, local_rank=0, log_local=False, batch_size=given.batch_size, world_size=1,
        log_every_n_steps=1000, wandb=False, tensorboard=False, save_logs=False,
    )  # fmt: skip
    flat = [value for value in model.parameters() if value.ndim < 2]
    rest = [value for value in model.parameters() if value.ndim >= 2]
    groups = [{"params": flat, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-6)
    data = {"train": SimpleNamespace(dataloader=Loader(), set_epoch=lambda epoch: None)}
    train_one_epoch(model, data, Loss(), 0, optimizer, None, None, None, args)
    return found


def ours(given: Namespace) -> dict[str, list[float]]:
    """The same of the recipe `clip`."""
    from degla.config.sections import OptimConfig
    from degla.data.batches import Pair
    from degla.losses.core import Processes
    from degla.model.load import load_encoder
    from degla.recipes.clip import clip
    from degla.training.build import build_trainer, open_accelerator
    from degla.training.pairs import choose_collate

    base = clip()
    optim = OptimConfig(lr=RATE, warmup_steps=0, schedule="constant", weight_decay=0.1)
    config = replace(base, train=replace(base.train, batch_size=given.batch_size, precision="fp32"), optim=optim)
    accelerator, encoder = open_accelerator(config), load_encoder(f"{given.model}:random")
    encoder.clip.load_state_dict(load_file(given.weights))
    trainer = build_trainer(config, accelerator, encoder, Processes(), rules=1, steps=100)
    collate = choose_collate(config.pairs, config.train, encoder)
    found: dict[str, list[float]] = {"seconds": [], "losses": []}
    for number, (images, texts) in enumerate(batches(given)):
        tokens = encoder.tokenize(texts).long()
        none, nothing = tokens[:0], torch.zeros(0, dtype=torch.long)
        pairs = [Pair(image, row, none, nothing.bool(), nothing, place, str(place))
                 for place, (image, row) in enumerate(zip(images, tokens, strict=True))]  # fmt: skip
        started = time.process_time()  # Making the tree of texts is part of the step.
        found["losses"].append(float(trainer.step(collate(pairs), number=number)["loss"]))
        found["seconds"].append(time.process_time() - started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, help="COCO's captions_val2017.json")
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="of open_clip, with random weights")
    parser.add_argument("--pixels", type=int, default=224, help="that the model takes (224)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="that are counted, of a process (20)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["theirs", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.side:
        print(json.dumps({"theirs": theirs, "ours": ours}[given.side](given)))
        return
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        torch.manual_seed(0)
        save_file(open_clip.create_model(given.model).state_dict(), weights)
        print(f"{platform.machine()}, {given.model}, {given.steps} steps of {given.batch_size} pairs, one thread, fp32")
        for number in range(given.rounds):
            found = {}
            for side in ("theirs", "ours"):
                words = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--weights", str(weights)]
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                found[side] = json.loads(done.stdout.splitlines()[-1])
            one, other = (statistics.median(found[side]["seconds"][1:]) for side in ("theirs", "ours"))
            ratios.append(one / other)
            pairs = zip(found["theirs"]["losses"], found["ours"]["losses"], strict=True)
            gap = max(abs(left - right) / abs(left) for left, right in pairs)
            rates = (given.batch_size / seconds for seconds in (one, other))
            told = "open_clip {:.2f}, degla {:.2f} pairs a second of the processor".format(*rates)
            print(f"round {number + 1}: {told}, x {one / other:.2f}; losses within {gap:.1e}", flush=True)
    print(f"median x {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
