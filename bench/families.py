"""Show what each CLIP family supports, by trying every cell on a small model with random weights.

Runs offline. Prints a Markdown table; the reason for each "refused" is below it.
"""

from __future__ import annotations

import argparse
import atexit
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp()
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import degla
from degla.cli import exit_status_of
from degla.config.fields import change
from degla.config.run import TrainConfig, recipe_config
from degla.errors import DeglaError
from degla.export.run import FORMS, To, export
from degla.losses.core import Processes
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.training.build import build_trainer, open_accelerator
from degla.training.pairs import open_pairs
from tests.export.made import register_tiny_tower, write_clip, write_siglip

HUB = Path(os.environ["HF_HOME"])
"""Where the text tower of transformers comes from: a model's folder reads no files of others."""
atexit.register(shutil.rmtree, HUB)
SIZE = 32
VIT: dict[str, Any] = {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT: dict[str, Any] = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SIGLIP_TEXT = TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
SMALL_VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": SIZE}
TEXTS = ("a red square above a blue circle", "a green star beside a yellow heart", "two small dogs on a wooden bench",
         "an old man with a white hat", "a cat", "three black birds over the quiet grey sea at night")  # fmt: skip


def _timm(name: str, pool: str = "avg", proj: str | None = "linear", **kwargs: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": SIZE, "kwargs": kwargs}


def _siglip(**text: Any) -> dict[str, Any]:
    vision = _timm("vit_base_patch16_siglip_224", "map", "none", **SMALL_VIT)
    return {"embed_dim": 48, "vision_cfg": vision, "text_cfg": SIGLIP_TEXT | text, "init_logit_bias": -10}


BERT = {"model_type": "bert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 24, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "architectures": ["BertModel"]}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "ViT (GELU)": {"vision_cfg": VIT},
    "ViT (QuickGELU)": {"vision_cfg": VIT, "quick_gelu": True},
    "ResNet (RN50)": {"vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}},
    "EfficientNet, averaged (photo)": {"vision_cfg": _timm("test_efficientnet", "", output_stride=8)},
    "ConvNeXt": {"vision_cfg": _timm("convnext_atto", "", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))},
    "timm ViT, class token": {"vision_cfg": _timm("vit_tiny_patch16_224", "token", **SMALL_VIT)},
    "timm ViT, mean": {"vision_cfg": _timm("vit_tiny_patch16_224", "avg", **SMALL_VIT)},
    "timm ViT, MAP": {"vision_cfg": _timm("vit_base_patch16_siglip_224", "map", **SMALL_VIT)},
    "SigLIP": _siglip(),
    "SigLIP 2": _siglip(act_kwargs={"approximate": "tanh"}),
    "CoCa": {
        "vision_cfg": VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"context_length": 23, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": TEXT | {"context_length": 23, "attn_pooler_heads": 2},
    },
    "EVA02": {"vision_cfg": _timm("eva02_base_patch16_clip_224", "token", **SMALL_VIT)},
    "MobileCLIP-S": {
        "vision_cfg": _timm("fastvit_mci0", embed_dims=(32, 32, 64, 64), layers=(1, 1, 1, 1)),
        "text_cfg": TEXT | {"no_causal_mask": True},
    },
    "text tower of transformers": {
        "vision_cfg": VIT,
        "text_cfg": {"hf_model_name": "made/bert", "hf_tokenizer_name": "made/bert", "hf_model_pretrained": False,
                     "hf_pooler_type": "mean_pooler", "context_length": 24},
    },
    "PE-Core": {"vision_cfg": _timm("vit_pe_core_base_patch16_224", "map", None, **SMALL_VIT), "embed_dim": 512},
}  # fmt: skip

FOLDERS = ("CLIP, folder of transformers", "SigLIP, folder of transformers")
"""Models that start from a transformers folder, with the widths of the tests' models."""


def make_folder(folder: Path, name: str) -> Path:
    """Write a transformers folder with random weights."""
    folder.mkdir()
    _make_small({})
    if name == FOLDERS[0]:
        write_clip(folder, own=True)
    else:
        register_tiny_tower()
        write_siglip(folder)
    return folder


def make_model(folder: Path, family: dict[str, Any]) -> Path:
    """Write an open_clip folder with random weights; timm builds small towers from here on."""
    config = json.loads(json.dumps({"embed_dim": 16, "text_cfg": TEXT, "custom_text": True} | family))
    kwargs = config["vision_cfg"].pop("kwargs", {})
    _make_small(kwargs)
    folder.mkdir()
    if "hf_model_name" in config["text_cfg"]:
        _write_bert(folder)
    preprocess = {"size": SIZE}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    options = {name: value for name, value in config.items() if name != "custom_text"}
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    weights = {name: value.contiguous().clone() for name, value in kind(**options).state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


_create = timm.create_model


def _make_small(kwargs: dict[str, Any]) -> None:
    """Let timm build smaller towers than the name implies."""
    timm.create_model = lambda *given, **options: _create(*given, **options | kwargs)


def _write_bert(folder: Path) -> None:
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=300, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
    stored, commit = HUB / "hub/models--made--bert", "0" * 40
    (stored / "refs").mkdir(parents=True)
    (stored / "refs/main").write_text(commit)
    shutil.copytree(folder, stored / "snapshots" / commit)
    (stored / "snapshots" / commit / "config.json").write_text(json.dumps(BERT))


def write_data(folder: Path) -> None:
    """Write coloured-noise images with captions, negatives and classes."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(24):
        classes = folder / "zeroshot/noise" / ("dog", "cat", "hat")[number % 3]
        for place in (folder / "images", classes):
            place.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 255, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
        rows.append({"id": str(number), "image": f"{number}.png", "image_id": str(number), "text": TEXTS[number % 6]})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    degla.write_negatives(folder / "captions.jsonl", folder / "negatives.jsonl")


class Trial:
    """One family, its model, and the reasons for everything that it does not support."""

    def __init__(self, name: str, model: Path, data: Path, out: Path) -> None:
        self.name, self.model, self.data, self.out = name, model, data, out
        self.reasons: list[str] = []

    def config(self, recipe: str, out: str, **fields: Any) -> TrainConfig:
        given = {
            "model": str(self.model), "out": str(self.out / out), "data.captions": str(self.data / "captions.jsonl"),
            "data.images": str(self.data / "images"), "data.negatives": str(self.data / "negatives.jsonl"),
            "train.batch_size": 8, "train.precision": "fp32", "optim.lr": 5e-4, "optim.warmup_steps": 1,
            "tracking.every_steps": 1, "checkpoint.keep": 0, "data.workers": 0, "train.steps": 12,
        }  # fmt: skip
        return change(recipe_config(recipe), given | fields, where="bench")

    def tried(self, cell: str, run: Any) -> str:
        """Return the result of `run`, or "refused" and record why."""
        try:
            return str(run())
        except DeglaError as error:
            self.reasons.append(f"{self.name}, {cell}: {str(error).replace(str(self.model), 'MODEL')}")
            return "refused"

    def row(self) -> list[str]:
        """Return the cells of the table."""
        encoder = load_encoder(str(self.model))
        return [
            self.tried("start", lambda: self.start(encoder)),
            self.tried("fast text", lambda: self.fast_text(encoder)),
            self.tried("fast image", lambda: self.fast_image(encoder)),
            *(
                self.tried(recipe, lambda recipe=recipe: self.losses(recipe))
                for recipe in ("negclip", "degla", "fsc_clip")
            ),
            self.tried("adapters", lambda: self.losses("clip", **{"adapter.rank": 2})),
            self.tried("train", self.train),
            self.tried("resume", self.resume),
            self.tried("evaluate", self.evaluate),
            *(self.tried(f"to {to}", lambda to=to: self.export(to)) for to in FORMS),
        ]

    def start(self, encoder: Encoder) -> str:
        texts = encoder.encode_captions(encoder.tokenize(list(TEXTS)))
        images = encoder.encode_images(torch.randn(2, 3, SIZE, SIZE))
        return "yes" if texts.isfinite().all() and images.isfinite().all() else "NOT FINITE"

    @torch.no_grad()
    def fast_text(self, encoder: Encoder) -> str:
        tokens = encoder.tokenize(list(TEXTS))
        plain = torch.nn.functional.normalize(encoder.clip.encode_text(tokens), dim=-1)
        length = int((tokens != encoder.padding).sum(dim=1).max())
        fast = encoder.encode_captions(tokens[:, :length] if encoder.trims else tokens)
        assert (plain - fast).abs().max() < 1e-5, (plain - fast).abs().max()
        return "tree" if encoder.grow is not None else "trimmed" if encoder.trims else "no"

    @torch.no_grad()
    def fast_image(self, encoder: Encoder) -> str:
        images = torch.randn(4, 3, SIZE, SIZE)
        plain = torch.nn.functional.normalize(encoder.clip.encode_image(images), dim=-1)
        assert (plain - encoder.encode_images(images)).abs().max() < 1e-5
        return "class token" if encoder.reads_class_token else "no"

    def losses(self, recipe: str, **fields: Any) -> str:
        """Run one step of a recipe: all gradients must be finite, and both towers must change."""
        config = self.config(recipe, "step", **fields)
        accelerator = open_accelerator(config)
        encoder = load_encoder(config.model)
        pairs = open_pairs(config, encoder=encoder, processes=Processes())
        trainer = build_trainer(config, accelerator, encoder, Processes(), rules=len(pairs.dataset.rules), steps=12)
        loss, values = trainer.backward(next(iter(pairs.batches(0, start=0, device=accelerator.device))))
        grads = {name: value.grad for name, value in encoder.clip.named_parameters() if value.grad is not None}
        assert loss.isfinite() and all(grad.isfinite().all() for grad in grads.values())
        assert any(name.startswith("visual") for name in grads) and any("visual" not in name for name in grads)
        return "sigmoid" if any(name.startswith("sigmoid") for name in values) else "yes"

    def train(self) -> str:
        """Run twelve steps of degla: the contrast over the first three batches, and over the same in the last pass."""
        self.whole = degla.train(self.run())
        rows = [json.loads(line) for line in (self.out / "run/metrics.jsonl").read_text().splitlines()]
        values = [row.get("contrastive", row.get("sigmoid_contrastive")) for row in rows if "loss" in row]
        return f"{sum(values[:3]) / 3:.2f} to {sum(values[-3:]) / 3:.2f}"

    def run(self) -> TrainConfig:
        """Run the training with a checkpoint in the middle."""
        return self.config("degla", "run", **{"checkpoint.every_steps": 5, "checkpoint.every_minutes": 0})

    def resume(self) -> str:
        """Repeat the last steps from the second newest checkpoint."""
        expected = load_encoder(str(self.whole.folder)).fingerprint
        (self.whole.folder / "state.json").unlink()
        again = degla.train(self.run(), resume=True)
        return "bit-equal" if load_encoder(str(again.folder)).fingerprint == expected else "DIFFERS"

    def evaluate(self) -> str:
        result = degla.evaluate(str(self.whole.folder), ["zeroshot"], self.data)
        return "yes" if result.benchmarks[0].parts[0].scores else "NO SCORE"

    def export(self, to: To) -> str:
        """Export the trained model; the export itself compares the embeddings."""
        return f"{export(str(self.whole.folder), to=to, out=self.out / to).difference:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*FAMILIES, *FOLDERS], metavar="FAMILY", help="one family")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    head = ["family", "start", "fast text", "fast image", "negclip", "degla", "fsc_clip", "adapters",
            "degla, 12 steps", "resume", "evaluate", *(f"to {to}" for to in FORMS)]  # fmt: skip
    print(f"open_clip {open_clip.__version__}, timm {timm.__version__}, torch {torch.__version__}\n")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    reasons: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_data(root / "data")
        for number, family in enumerate([*FAMILIES, *FOLDERS]):
            if given.only in (None, family):
                place = root / f"model-{number}"
                model = make_model(place, FAMILIES[family]) if family in FAMILIES else make_folder(place, family)
                trial = Trial(family, model, root / "data", root / f"out-{number}")
                print("| " + " | ".join([family, *trial.row()]) + " |", flush=True)
                reasons += trial.reasons
    print("\nUnsupported:\n")
    print("\n".join(f"* {reason}" for reason in reasons))


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
