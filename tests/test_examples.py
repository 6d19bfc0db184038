"""Every example runs as it is, and does what its first line says."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from degla.cli import main
from degla.inputs import INPUTS
from degla.losses import Contrastive, ImageGrounded
from degla.study.workers import Ended

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWS = {
    "plain_loop": r"step 3: loss \d\.\d+ \{'contrastive': \d.*'image_grounded': \d",
    "open_clip_loop": r"open_clip trained 2 steps; logit_scale 3\.\d+ -> 3\.\d+",
    "transformers_trainer": r"3 steps, mean loss \d\.\d+",
    "negatives_for_your_captions": r"swap_nouns +a black cat chases a white dog\n(.|\n)*3 captions:",
    "train_evaluate_report": r"before \{.*'composition\.id': 0\.\d+(.|\n)*after \{.*\n(.|\n)*report\.html",
    "add_a_loss": r"alone \d\.\d+, in a sum \d\.\d+: \{'contrastive': \d.*'my_margin'.*'my_paraphrase'",
    "add_a_benchmark": r"swap_adjectives: 0\.\d+, chance 0\.5, blind \{'shorter text'",
}


def test_the_list_names_every_example() -> None:
    files = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))
    listed = re.findall(r"^\| \[`([^`]+)`\]\(([^)]+)\) \|", (EXAMPLES / "README.md").read_text(), flags=re.MULTILINE)
    assert sorted(name for name, _ in listed) == files and all(name == target for name, target in listed)
    assert sorted(SHOWS) == [Path(name).stem for name in files if name.endswith(".py")]


@pytest.mark.parametrize("name", SHOWS)
def test_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with patch.dict(INPUTS):  # One of them adds what its loss reads.
        example = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert re.search(SHOWS[name], capsys.readouterr().out)
    if name == "open_clip_loop":
        check_joined_batches(example)


def check_joined_batches(example: dict[str, Any]) -> None:
    """With `--accum-freq` the loop concatenates the features of several batches."""
    loader = list(example["Batches"]())
    with torch.no_grad():
        outputs = [example["model"](*batch) for batch in loader]
        image, text = (torch.cat([each[f"{kind}_features"] for each in outputs]) for kind in ("image", "text"))
        loss = example["WithNegatives"]()(image, text, outputs[0]["logit_scale"])
        rows = text.unflatten(0, (len(image), -1))
        tokens = example["tokenizer"]([row.text for row, _ in example["usable"][:16]])
        torch.testing.assert_close(rows[:, 0], example["model"].encode_text(tokens, normalize=True))
        inputs = {"image": image, "caption": rows[:, 0], "negative": rows[:, 1:], "scale": outputs[0]["logit_scale"]}
        torch.testing.assert_close(loss, Contrastive()(**inputs) + 0.5 * ImageGrounded()(**inputs))


def test_the_plan_for_own_data_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model: Path,
    tiny_pairs: dict[str, Path],
) -> None:
    """After the steps of the quick start, with fewer steps and seeds."""

    def in_this_process(work: Any, jobs: Any, *, ended: Any, **_: Any) -> Any:
        ends = [Ended(work(job)) for job in jobs]
        for number, end in enumerate(ends):
            ended(number, end)
        return ends, ""

    monkeypatch.setattr("degla.study.conduct.run_jobs", in_this_process)
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "own_data.yaml", tmp_path)
    Path("images").symlink_to(tiny_pairs["images"])
    held_out, balanced = "data/own/captions.jsonl", "data/own/negatives.jsonl"
    small = {
        "base": tiny_model,
        "seeds": 1,
        "train.steps": 1,
        "optim.lr": 1e-5,
        "train.batch_size": 8,
        "data.workers": 0,
    }
    for words in (
        ["prepare", "split", str(tiny_pairs["captions"]), "--images", "images", "--out", "data"],
        ["negatives", "data/train.jsonl", "--out", "negatives.jsonl"],
        ["negatives", held_out, "--per-rule", "6", "--out", "candidates.jsonl"],
        ["negatives", "balance", "candidates.jsonl", "--captions", held_out, "--out", balanced, "--text-only-rule=1"],
        ["study", "own_data.yaml", "--out", "study", "--processes", "1"]
        + [f"--set={name}={value}" for name, value in small.items()],
    ):
        assert main(words) == 0, words
    capsys.readouterr()
    assert main(["study", "own_data.yaml", "--out", "other", "--list"]) == 0
    runs = capsys.readouterr().out.splitlines()
    assert (len(runs), runs[0]) == (18, "negclip, last image block lr 3e-6, seed 0"), "and nothing is missing"
    page = Path("study/study.md").read_text()
    assert page.startswith("# Three recipes on own data") and "retrieval" in page
    assert all(name in page for name in ("negclip, last image block", "degla_plus", "degla"))


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    notebook = json.loads((EXAMPLES / "first_look.ipynb").read_text())
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "outputs are made, not committed"
            exec("".join(cell["source"]), names)
    output = capsys.readouterr().out
    assert "TRUE" in output and re.search(r"swap_nouns +\d+% of \d+", output)
