"""The whole pipeline from Python: draw some data, make negatives, train, evaluate before and after, write a report."""

import sys
import tempfile
from pathlib import Path

import degla
from degla.world.draw import draw_benchmark, draw_pairs

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
pairs = draw_pairs(out / "pairs", count=48)
root = draw_benchmark(out / "benchmark", items_per_part=15, images_per_class=1, retrieval_images=20)

degla.write_negatives(pairs.captions, out / "negatives.jsonl")
outcome = degla.train(
    "degla_plus",
    {
        "model": "world",
        "data.captions": pairs.captions,
        "data.images": pairs.images,
        "data.negatives": out / "negatives.jsonl",
        "out": out / "run",
        "train.batch_size": 16,
        "train.steps": 4,
        "optim.lr": 8e-4,
        "tracking.progress": False,
    },
)
results = [
    degla.evaluate(model, ["world"], root, out=out / f"{label}.json", label=label, cache=out / "embeddings")
    for model, label in (("world", "before"), (outcome.folder, "after"))
]
for result in results:  # `pandas.DataFrame(result.rows())` is the whole table.
    averages = {row["name"]: round(row["value"], 3) for row in result.rows() if row["kind"] == "average"}
    print(result.model.label, averages)
degla.report(results, out / "report.html")  # Or the JSON files, also of earlier evaluations.
print(f"open {out / 'report.html'}")
