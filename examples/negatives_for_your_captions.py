"""Hard negatives for your own captions: in memory, or in a file, where an interrupted call resumes."""

import json
import tempfile
from pathlib import Path

import degla

captions = ["a black dog chases a white cat", "two red apples on a wooden table", "a man in a blue hat rides a horse"]

for caption, negatives in zip(captions, degla.generate_negatives(captions), strict=True):
    print(caption)
    for negative in negatives:
        print(f"    {negative.rule:<20} {negative.text}")

folder = Path(tempfile.mkdtemp())
rows = [{"id": str(n), "image": f"{n}.jpg", "text": text} for n, text in enumerate(captions)]
(folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
summary = degla.write_negatives(folder / "captions.jsonl", folder / "negatives.jsonl", rules=["swap_nouns", "negation"])
print(f"{summary.captions} captions:", json.dumps(summary.plain(), indent=2)[:400])
