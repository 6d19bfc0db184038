"""Use degla's losses in open_clip's own training loop (`open_clip_train`), with each caption next to its negatives.

open_clip passes the towers' features to the loss as keyword arguments. Texts are ordered by row, each caption before
its K negatives, so they stay together when open_clip joins batches (`--accum-freq`). The loss below splits them again.
Nothing else changes: the loop clamps the scale, and its `main` excludes scale, biases and norms from weight decay.
"""

import tempfile
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import open_clip
import torch
from open_clip_train.train import train_one_epoch
from PIL import Image

import degla
from degla.losses import Contrastive, ImageGrounded, Objective
from degla.world import world_model_folder, world_vocabulary_file
from degla.world.draw import draw_pairs

K = 2


class WithNegatives(torch.nn.Module):
    """The loss that open_clip calls with features. Returns losses by name, which open_clip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.objective = Objective({"contrastive": Contrastive(), "image_grounded": ImageGrounded(weight=0.5)})

    def forward(self, image_features, text_features, logit_scale, output_dict=False):
        # A model trained with the sigmoid loss also has a `logit_bias`: use the sigmoid losses and pass it as `bias`.
        text = text_features.unflatten(0, (len(image_features), 1 + K))
        loss, _ = self.objective(image=image_features, caption=text[:, 0], negative=text[:, 1:], scale=logit_scale)
        return {"with_negatives": loss} if output_dict else loss


pairs = draw_pairs(Path(tempfile.mkdtemp()) / "pairs", count=32)
rows = list(degla.read_captions(pairs.captions))
made = degla.generate_negatives([row.text for row in rows], per_rule=2)
usable = [(row, [each.text for each in found[:K]]) for row, found in zip(rows, made, strict=True) if len(found) >= K]

folder = f"local-dir:{world_model_folder()}"
model, _, transform = open_clip.create_model_and_transforms(folder, output_dict=True)
tokenizer = open_clip.get_tokenizer(folder, bpe_path=str(world_vocabulary_file()))


class Batches:
    """A data loader as open_clip's loop expects it: batches of images and texts, and their counts."""

    num_batches, num_samples = 2, 16

    def __iter__(self):
        for start in (0, 8):
            part = usable[start : start + 8]
            images = torch.stack([transform(Image.open(pairs.images / row.image)) for row, _ in part])
            yield images, tokenizer([text for row, negatives in part for text in (row.text, *negatives)])


args = Namespace(
    device="cpu", precision="fp32", distill=False, skip_scheduler=True, accum_freq=1, grad_clip_norm=None, horovod=False,
    rank=0, local_rank=0, log_local=False, batch_size=8, world_size=1, log_every_n_steps=1, wandb=False, tensorboard=False,
    save_logs=False,
)  # fmt: skip
data = {"train": SimpleNamespace(dataloader=Batches(), set_epoch=lambda epoch: None)}
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
before = model.logit_scale.item()
train_one_epoch(model, data, WithNegatives(), 0, optimizer, None, None, None, args)
print(f"open_clip trained 2 steps; logit_scale {before:.4f} -> {model.logit_scale.item():.4f}")
