"""Write a study of negatives that are still true of their image: how many of them does a method tolerate?

A generator without checks writes texts that paraphrase the caption, and training pushes the model away from them. The
embedded world provides such texts: other full captions of the same scene. This script draws scenes, makes negatives
with the paper's rules, replaces a share of them by such texts, and writes the plan that compares the shares:

    python bench/still_true_negatives.py --out studies/still_true/inputs
    degla study studies/still_true/inputs/plan.yaml --out studies/still_true
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import yaml

from degla.cli import exit_status_of
from degla.data.sources import read_captions
from degla.negatives.generate import NegativesSettings, generate
from degla.records import CaptionRecord, NegativeRecord, read_jsonl, write_jsonl
from degla.shelf import PUBLISHED_RULES
from degla.verbs._arguments import at_least
from degla.world.draw import draw_benchmark, draw_pairs

SOURCE = "still true"
SETTINGS = {
    "data.negatives_per_caption": 5,
    "optim.lr": 4e-4,
    "optim.warmup_steps": 20,
    "optim.weight_decay": 0.1,
    "optim.clip_norm": 1.0,
    "train.batch_size": 32,
    "train.steps": 500,
}
"""Training settings of all arms of the studies of negatives, as in docs/studies/plans."""


def draw_scenes(out: Path, *, count: int) -> dict[str, list[str]]:
    """Draw scenes and write ``captions.jsonl`` with one caption per scene; return other true texts by caption id."""
    # One wording is the caption; at least five others differ, one for each of its negatives.
    drawn = draw_pairs(out / f"pairs-{count}", count=count, captions_per_image=12)
    captions: dict[str, CaptionRecord] = {}
    wordings: dict[str, list[str]] = defaultdict(list)
    for record in read_captions(drawn.captions):
        caption = captions.setdefault(record.image, record)
        if record.text != caption.text and record.text not in wordings[caption.id]:
            wordings[caption.id].append(record.text)
    write_jsonl(out / "captions.jsonl", captions.values())
    return wordings


def with_still_true(
    negatives: Iterable[NegativeRecord], wordings: Mapping[str, Sequence[str]], *, share: float
) -> Iterator[NegativeRecord]:
    """Return the rows with about `share` of the accepted ones replaced by another wording of their caption.

    Args:
        negatives: output of `degla negatives`, grouped by caption.
        wordings: true texts other than the caption, by caption id.
        share: 0 to 1. A row that is replaced at one share is replaced at every larger one, by the same text.
    """
    given: dict[str, int] = defaultdict(int)
    for negative in negatives:
        draw = Random(f"{negative.caption_id}/{negative.rule}/{negative.draw}").random()
        texts = wordings.get(negative.caption_id, ())
        number = given[negative.caption_id]
        if negative.accepted and number < len(texts):
            given[negative.caption_id] += 1
            if draw < share:
                negative = negative.model_copy(update={"text": texts[number], "source": SOURCE})
        yield negative


def plan_of(shares: Sequence[float], recipes: Sequence[str], *, scenes: int, seeds: int) -> dict[str, object]:
    """Return the plan that compares the shares; its files are next to it."""
    return {
        "title": "Negatives that are still true",
        "about": (
            "The paper's five rules make negatives that are false of the image. In a share of them another wording of "
            "the same scene stands in the place of the negative, as a generator that nobody checks would put there. "
            "Everything else is equal."
        ),
        "benchmarks": {"names": ["world"], "root": "benchmark"},
        "seeds": seeds,
        "against": f"{recipes[0]}, 0 % still true",
        "set": {
            "data.captions": "captions.jsonl",
            "data.images": f"pairs-{scenes}/images",
            **SETTINGS,
        },
        "arms": [
            {
                "recipe": recipe,
                "label": f"{recipe}, {share:.0%} still true".replace("%", " %"),
                "data.negatives": f"negatives-{share:g}.jsonl",
            }
            for recipe in recipes
            for share in shares
        ],
    }


def main() -> None:
    """Draw, make, replace, and write the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for captions, negatives, questions and the plan"
    )
    parser.add_argument("--scenes", type=at_least(1), default=8000, help="training scenes (8000)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.2, 0.4, 0.8], help="shares (0 .2 .4 .8)")
    parser.add_argument("--recipes", nargs="+", default=["degla", "negclip"], help="recipes to compare (degla negclip)")
    parser.add_argument("--seeds", type=at_least(1), default=5, help="training seeds (5)")
    parser.add_argument("--items-per-part", type=at_least(1), default=1000, help="questions per part (1000)")
    arguments = parser.parse_args()
    out: Path = arguments.out

    wordings = draw_scenes(out, count=arguments.scenes)
    made = out / "negatives.jsonl"
    generate(read_captions(out / "captions.jsonl"), NegativesSettings(PUBLISHED_RULES, 0), out=made)
    for share in arguments.shares:
        path = out / f"negatives-{share:g}.jsonl"
        write_jsonl(path, with_still_true(read_jsonl(NegativeRecord, made), wordings, share=share))
        rows = [row for row in read_jsonl(NegativeRecord, path) if row.accepted]
        print(f"{path}: {sum(row.source == SOURCE for row in rows) / len(rows):.1%} of {len(rows)} still true")
    draw_benchmark(out / "benchmark", split="test", items_per_part=arguments.items_per_part)
    plan = plan_of(arguments.shares, arguments.recipes, scenes=arguments.scenes, seeds=arguments.seeds)
    (out / "plan.yaml").write_text(
        yaml.safe_dump(plan, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8"
    )
    print(f"degla study {out / 'plan.yaml'} --out {out.parent}")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
