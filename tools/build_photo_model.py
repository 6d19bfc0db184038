"""Build the model `photo` from two wheels and captioned photographs: `python -m tools.build_photo_model --help`.

The image tower is EfficientNet-Lite2 (ImageNet), the text tower has three blocks. First the image tower is frozen and
the text tower is aligned with its features; then the last two stages of the image tower are trained too. Inputs of the
trained parts are computed once per photograph. One thread; all random draws depend only on the seed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import dropout, kl_div, log_softmax, normalize

from degla.cli import exit_status_of
from tools.alignment import batches, contrast, optimizer_of, parser, recalls, set_rates, take_step
from tools.photographs import (
    IMAGE_WHEEL,
    MEAN,
    SIZE,
    STAGE,
    STD,
    TEXT_WHEEL,
    TOWER,
    Photographs,
    embed_sentences,
    image_tower,
    last_stages,
    read_photographs,
    sentence_encoder,
)
from tools.pretrain_world import encode_trimmed, say_at_once, trim
from tools.vocabulary import write_merges

KEPT_MERGES: Final = 1500
CONTEXT: Final = 48
VOCABULARY_FILE: Final = "bpe_photo.txt.gz"


@dataclass(frozen=True)
class Phase:
    """Settings of one phase of the alignment."""

    steps: int
    batch: int
    rate: float
    """Peak learning rate of text tower and projections; linear warm-up over a tenth, then cosine decay to zero."""
    image_rate: float = 0.0
    """Peak learning rate of the image tower's last stages; 0 freezes them."""
    feature_dropout: float = 0.4
    sentences: float = 1.0
    """Weight of the distance to MiniLM's sentence embeddings."""
    classes: float = 0.3
    """Weight of the distance to the image classifier's own output, with its class names as texts."""
    decay: float = 0.1


LOCKED: Final = Phase(steps=480, batch=512, rate=2e-3)
UNLOCKED: Final = Phase(steps=184, batch=256, rate=5e-4, image_rate=2e-4, feature_dropout=0.2)
_CLASSES_A_STEP: Final = 128


def write_vocabulary(file: Path, photographs: Photographs) -> int:
    """Keep words of at least three captions, and of ImageNet's class names, whole; return the vocabulary size."""
    counts = Counter(
        word for texts in photographs.captions for text in texts for word in set(text.lower().replace(".", " ").split())
    )
    words = {word for word, count in counts.items() if count >= 3}
    words |= {word for name in open_clip.IMAGENET_CLASSNAMES for word in name.lower().split()}
    words = {word for word in words if word.isascii() and word.isalpha()}
    return write_merges(file, sorted(words), kept=KEPT_MERGES)


def model_config(vocabulary_size: int) -> dict[str, Any]:
    """Return open_clip's `model_cfg`."""
    return {
        "embed_dim": 256,
        "vision_cfg": {
            "image_size": SIZE, "timm_model_name": TOWER, "timm_model_pretrained": False, "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": vocabulary_size, "width": 192, "heads": 3, "layers": 3,
            "tokenizer_kwargs": {"bpe_path": VOCABULARY_FILE},
        },
    }  # fmt: skip


PREPROCESS: Final = {
    "size": [SIZE, SIZE], "mode": "RGB", "mean": [*MEAN], "std": [*STD], "interpolation": "bicubic",
    "resize_mode": "squash", "fill_color": 0,
}  # fmt: skip


def start_token_vectors(model: Any, tokenizer: Any, sentence: tuple[Any, Any]) -> None:
    """Initialise whole-word tokens from MiniLM's principal components of the word; the others stay random."""
    rows = {token: text.removesuffix("</w>") for text, token in tokenizer.encoder.items() if text.endswith("</w>")}
    rows = {token: text for token, text in rows.items() if len(text) > 1 and text.isalpha()}
    vectors = embed_sentences(*sentence, list(rows.values()))
    vectors = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(vectors, full_matrices=False)
    reduced = vectors @ directions[: model.token_embedding.weight.shape[1]].T
    with torch.no_grad():
        model.token_embedding.weight[list(rows)] = reduced * (0.02 / reduced.std())


def align(
    model: Any, tokenizer: Any, photographs: Photographs, phase: Phase, *, seed: int, check: Any, heads: nn.Module
) -> None:
    """Run one phase: contrastive loss of photographs and captions, distances to MiniLM and to the image classifier.

    Args:
        model: an open_clip CLIP with a timm tower; BatchNorm keeps its statistics.
        tokenizer: maps texts to tokens.
        photographs: training photographs.
        phase: settings of the phase.
        seed: seed of order, captions, views and dropout.
        check: called with the model from time to time, and at the end.
        heads: a linear map of text embeddings to MiniLM's space.
    """
    torch.manual_seed(seed)
    tower, project = model.visual.trunk, model.visual.head
    images = list(_learning(tower)) if phase.image_rate else []
    texts = [p for name, p in model.named_parameters() if not name.startswith("visual.trunk")] + [*heads.parameters()]
    for parameter in images:
        parameter.requires_grad_(True)
    optimizer = optimizer_of(((texts, phase.rate), (images, phase.image_rate)), decay=phase.decay)
    features = None if images else _features(tower, photographs.middle)
    names = tokenizer([f"a photo of a {name}" for name in open_clip.IMAGENET_CLASSNAMES])
    draw, began = np.random.default_rng(seed), time.time()
    for step, chosen in zip(range(phase.steps), batches(len(photographs.captions), phase.batch, draw), strict=False):
        set_rates(optimizer, step, phase.steps)
        views = draw.integers(photographs.middle.shape[1], size=len(chosen))
        which = [int(draw.integers(len(photographs.captions[photo]))) for photo in chosen]
        if features is None:
            rows = torch.stack([photographs.middle[p, v] for p, v in zip(chosen, views, strict=True)]).float()
            pooled = tower.global_pool(last_stages(tower, rows.contiguous(memory_format=torch.channels_last)))
        else:
            pooled = features[chosen, views]
        image = normalize(project(dropout(pooled, phase.feature_dropout)), dim=-1)
        text = _read(model, tokenizer([photographs.captions[p][w] for p, w in zip(chosen, which, strict=True)]))
        loss = contrast(image, text, model.logit_scale)
        meant = photographs.sentences[[photographs.first[p] + w for p, w in zip(chosen, which, strict=True)]].float()
        loss = loss + phase.sentences * (1 - (normalize(heads(text), dim=-1) * meant).sum(-1)).mean()
        if phase.classes:
            drawn = draw.choice(1000, _CLASSES_A_STEP, replace=False)
            prompts = _read(model, names[drawn])
            said = log_softmax(model.logit_scale.exp() * image @ prompts.T, dim=-1)
            wanted = log_softmax(photographs.logits[chosen][:, drawn].float(), dim=-1)
            loss = loss + phase.classes * kl_div(said, wanted, log_target=True, reduction="batchmean")
        take_step(optimizer, loss, model.logit_scale)
        if step % 40 == 39 or step + 1 == phase.steps:
            say_at_once(f"step {step + 1} loss {loss.item():.3f} seconds {time.time() - began:.0f} {check(model)}")


def _read(model: Any, tokens: Tensor) -> Tensor:
    """Unit embeddings of texts, computed as in `tools.pretrain_world`."""
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
        return normalize(encode_trimmed(model, trim(tokens)).float(), dim=-1)


def _learning(tower: Any) -> Iterator[nn.Parameter]:
    for part in (*tower.blocks[STAGE:], tower.conv_head, tower.bn2):
        yield from part.parameters()


@torch.inference_mode()
def _features(tower: Any, middle: Tensor) -> Tensor:
    """Image-tower features of all views. [photographs, views, 1280] float32."""
    rows = torch.empty(*middle.shape[:2], tower.num_features)
    for start in range(0, len(middle), 128):
        part = middle[start : start + 128].flatten(0, 1).float().contiguous(memory_format=torch.channels_last)
        rows[start : start + 128] = tower.global_pool(last_stages(tower, part)).unflatten(0, (-1, middle.shape[1]))
    return rows


@torch.inference_mode()
def retrieval(model: Any, tokenizer: Any, photographs: Photographs) -> dict[str, float]:
    """Return R@1 and R@5 in percent, image to text and text to image, on the plain views."""
    pooled = _features(model.visual.trunk, photographs.middle[:, :1])[:, 0]
    image = normalize(model.visual.head(pooled), dim=-1)
    texts = [text for own in photographs.captions for text in own]
    parts = [encode_trimmed(model, trim(tokenizer(texts[at : at + 500]))) for at in range(0, len(texts), 500)]
    return recalls(image, normalize(torch.cat(parts), dim=-1), photographs.captions)


def write_model(out: Path, model: Any, *, vocabulary: Path, provenance: dict[str, Any]) -> None:
    """Write the model folder with float16 weights, which open_clip loads as float32."""
    out.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model.degla_config, "preprocess_cfg": PREPROCESS}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = model.state_dict()
    half = {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in state.items()}
    weights = out / "open_clip_model.safetensors"
    save_file(half, weights, metadata={"format": "pt", "provenance": json.dumps(provenance)})
    weights.chmod(0o644)
    shutil.copyfile(vocabulary, out / VOCABULARY_FILE)


def main() -> None:
    """Run the command."""
    flags = parser(__doc__, wheels=f"{IMAGE_WHEEL} and {TEXT_WHEEL}")
    trial = "to see in minutes that two builds give the same weights"
    flags.add_argument("--photographs", type=int, help=f"train on only the first N photographs, {trial}")
    flags.add_argument("--steps", type=int, help=f"largest number of steps per phase, {trial}")
    given = flags.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    train, dev = (
        read_photographs(given.captions, split, wheels=given.wheels, work=given.work) for split in ("train", "dev")
    )
    vocabulary = given.work / VOCABULARY_FILE
    size = write_vocabulary(vocabulary, train)
    count = given.photographs or len(train.captions)
    train = replace(train, middle=train.middle[:count], logits=train.logits[:count], captions=train.captions[:count])
    tokenizer = open_clip.SimpleTokenizer(bpe_path=str(vocabulary), context_length=CONTEXT)
    torch.manual_seed(given.seed)
    model: Any = open_clip.CLIP(**model_config(size))
    model.degla_config = model_config(size)
    trunk = image_tower(given.wheels).state_dict()
    model.visual.trunk.load_state_dict({k: v for k, v in trunk.items() if not k.startswith("classifier")})
    model.eval()
    model.visual.trunk.requires_grad_(False)
    start_token_vectors(model, tokenizer, sentence_encoder(given.wheels, given.work))
    say_at_once(f"{sum(p.numel() for p in model.parameters()):,} parameters, {size} tokens")
    heads = nn.Linear(256, 384)
    phases = {
        name: replace(phase, steps=min(phase.steps, given.steps or phase.steps))
        for name, phase in (("locked", LOCKED), ("unlocked", UNLOCKED))
    }
    for name, phase in phases.items():
        say_at_once(name)
        align(
            model, tokenizer, train, phase, seed=given.seed, heads=heads,
            check=lambda now: retrieval(now, tokenizer, dev),
        )  # fmt: skip
        provenance = {"phase": name, "seed": given.seed, **{each: asdict(one) for each, one in phases.items()}}
        folder = given.out if name == "unlocked" else given.work / name
        write_model(folder, model, vocabulary=vocabulary, provenance=provenance)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
