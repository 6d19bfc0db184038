"""Use your own images with true and false captions as a benchmark: a table in a folder, and the name `own`.

Another layout or protocol is one file in a folder of your own: docs/losses.md, "Parts of your own".
"""

import json
import tempfile
from pathlib import Path

import degla
from degla.world.draw import draw_pairs

root = Path(tempfile.mkdtemp())
pairs = draw_pairs(root / "pairs", count=40)
rows = list(degla.read_captions(pairs.captions))
made = degla.generate_negatives([row.text for row in rows], rules=["swap_adjectives", "replace_nouns"])

(root / "own").mkdir()
with (root / "own" / "mine.jsonl").open("w") as table:
    for row, negatives in zip(rows, made, strict=True):
        for negative in negatives:
            item = {"image": str(pairs.images / row.image), "caption": row.text, "negative": negative.text}
            table.write(json.dumps(item | {"part": negative.rule}) + "\n")

result = degla.evaluate("world", ["own"], root)
for part in result.benchmarks[0].parts:
    score = part.scores[0]
    # `floors` are the scores that a model would reach from the texts only, without the image.
    print(f"{part.name}: {score.value:.3f}, chance {score.chance}, blind {score.floors}, {score.n} items")
