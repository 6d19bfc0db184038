"""Use degla's losses in your own training loop: fine-tune the embedded model on a few captions with negatives."""

import math
import tempfile
from pathlib import Path

import torch
from PIL import Image

import degla
from degla.losses import Contrastive, ImageGrounded, Objective
from degla.world.draw import draw_pairs

# Images and captions: 64 scenes of the embedded world. Yours can come from anywhere.
pairs = draw_pairs(Path(tempfile.mkdtemp()) / "pairs", count=64)
rows = list(degla.read_captions(pairs.captions))
texts = [row.text for row in rows]
negatives = [[made.text for made in found] for found in degla.generate_negatives(texts)]

model = degla.load_model("world").train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)  # With decay, exclude the scale.
objective = Objective({"contrastive": Contrastive(), "image_grounded": ImageGrounded(weight=0.5)})
K = 4

for step in range(4):
    batch = range(16 * step, 16 * (step + 1))
    pixels = torch.stack([model.transform(Image.open(pairs.images / rows[n].image).convert("RGB")) for n in batch])
    # K negatives per caption; if a caption has fewer, it is repeated as padding, which `valid` masks.
    own = [(negatives[n] + [texts[n]] * K)[:K] for n in batch]
    valid = torch.tensor([[k < len(negatives[n]) for k in range(K)] for n in batch])

    image = model.encode_images(pixels)
    caption = model.encode_captions(model.tokenize([texts[n] for n in batch]))
    negative = model.encode_captions(model.tokenize([text for row in own for text in row])).unflatten(0, (16, K))

    # A single loss would be: ImageGrounded()(image=image, caption=caption, ...).
    loss, values = objective(image=image, caption=caption, negative=negative, valid=valid, scale=model.scale)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():  # As in CLIP's training: keep the scale between 1 and 100.
        model.clip.logit_scale.clamp_(0, math.log(100))
    print(f"step {step}: loss {loss:.3f}", {name: round(value.item(), 3) for name, value in values.items()})
