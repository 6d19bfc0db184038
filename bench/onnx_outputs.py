"""Measure how much an ONNX export's embeddings differ from the model's, with the export's own tokenizer and pixels.

The export itself compares four generated images and a few texts; this compares 100 and 500, in batches. It also reports
the processor time of the export and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from degla.cli import exit_status_of
from degla.data.images import read_image
from degla.export.run import export
from degla.model import probe
from degla.model.load import load_encoder
from degla.model.onnx_folder import OnnxModel
from degla.verbs._arguments import at_least


def inputs(data: Path, pictures: int, texts: int) -> tuple[list[Any], list[str]]:
    """Return COCO photographs, then generated images; COCO captions, then SugarCrepe's."""
    folder = data / "coco/val2017"
    found: list[Any] = [
        read_image(path.name, folder=folder, caption_id=path.stem) for path in sorted(folder.glob("*.jpg"))[:pictures]
    ]
    found += [probe.picture(width=80 + n, height=120 - n, seed=n) for n in range(pictures - len(found))]
    rows = json.loads((data / "coco/annotations/captions_val2017.json").read_text())["annotations"]
    said = [row["caption"] for row in rows]
    for file in sorted((data / "sugarcrepe").glob("*.json")):
        said += [row["negative_caption"] for row in json.loads(file.read_text()).values()]
    return found, said[:texts]


@torch.no_grad()
def differences(model: str, pictures: list[Any], texts: list[str]) -> tuple[dict[str, float], str]:
    """Return the largest difference in a coordinate of the unit embeddings, and the cost of the export."""
    with tempfile.TemporaryDirectory() as name:
        start = time.process_time()
        folder = export(model, to="onnx", out=Path(name) / "onnx").folder
        seconds, most = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        cost = f"export: {seconds:.0f} s of the processor, {most:,.0f} MiB at most, {size:.1f} MB"
        encoder, graphs = load_encoder(model), OnnxModel(folder, name="onnx")
        gaps = {"images": 0.0, "texts": 0.0}
        for start in range(0, len(pictures), 7):
            pixels = [
                torch.stack([each.transform(p) for p in pictures[start : start + 7]]) for each in (encoder, graphs)
            ]
            gap = probe.gap(graphs.encode_images(pixels[1]), encoder.encode_images(pixels[0]))
            gaps["images"] = max(gaps["images"], gap)
        for start in range(0, len(texts), 33):
            some = texts[start : start + 33]
            found = graphs.encode_captions(graphs.tokenize(some))
            gap = probe.gap(found, encoder.encode_captions(encoder.tokenize(some)))
            gaps["texts"] = max(gaps["texts"], gap)
    return gaps, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["world"])
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="root that contains coco/ and sugarcrepe/"
    )
    parser.add_argument("--pictures", type=at_least(1), default=100)
    parser.add_argument("--texts", type=at_least(1), default=500)
    given = parser.parse_args()
    pictures, texts = inputs(given.data, given.pictures, given.texts)
    wrong = 0
    for model in given.models:
        gaps, cost = differences(model, pictures, texts)
        wrong += max(gaps.values()) > probe.ROUNDED
        print(f"{model}: {len(pictures)} images differ by at most {gaps['images']:.1e}, {len(texts)} texts by "
              f"{gaps['texts']:.1e} (bound {probe.ROUNDED:g}); {cost}", flush=True)  # fmt: skip
    sys.exit(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
