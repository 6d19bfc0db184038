"""The same 8 pairs on 1, 2 and 4 real processes: one loss and one gradient for every term, every mask, and the sums."""

from __future__ import annotations

from pathlib import Path

import process_worker
import pytest
import torch
from process_worker import Outcome, outcomes

from degla.losses.core import Processes
from tests.launch import start

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def alone() -> dict[str, Outcome]:
    """The outcome of one process without torch.distributed."""
    return dict(outcomes(Processes()))


def run(count: int, folder: Path, what: str = "terms") -> list[dict[str, Outcome]]:
    """Every process's outcomes, in rank order."""
    code = "import sys, process_worker; process_worker.work(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])"
    programs = [start(["-c", code, str(rank), str(count), str(folder), what]) for rank in range(count)]
    for program in programs:
        assert program.wait() == 0, program.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def test_the_single_process_has_something_to_compare(alone: dict[str, Outcome]) -> None:
    """Empty or all-zero gradients would compare equal for any code."""
    for title, outcome in alone.items():
        # The additional texts of a single row have nothing to contrast with.
        of_texts = title.startswith(("TextContrast", "PositiveContrast"))
        alone_with_itself = of_texts and title.endswith("only the last row")
        if not title.endswith("mask none") and not alone_with_itself:
            assert outcome["loss"].item() > 0, title
            # A target among one caption's negatives leaves the text tower alone; all other losses with texts train it.
            tower = "image" if title.startswith(("RawDistillation", "ContextualContrast", "ViewContrast")) else "text"
            assert outcome[f"gradient {tower}.weight"].abs().max() > 1e-6, title
    for mask in process_worker.ALL_MASKS:
        for name in ("image.weight", "image.bias", "text.weight", "text.bias", "logit_scale"):
            assert alone[f"sum of DeGLA, mask {mask}"][f"gradient {name}"].abs().max() > 1e-6, (mask, name)


@pytest.mark.parametrize(("count", "what"), [(1, "sums"), (2, "sums"), (4, "terms")])
def test_loss_and_gradients_do_not_depend_on_the_number_of_processes(
    count: int, what: str, alone: dict[str, Outcome], tmp_path: Path
) -> None:
    """Four processes hold all cases of two and one: halves without negatives, and rows that only others have."""
    wrong = []
    chosen = {title: each for title, each in alone.items() if what == "terms" or title.startswith("sum of")}
    assert len(chosen) >= 24
    for rank, by_title in enumerate(run(count, tmp_path, what)):
        assert by_title.keys() == chosen.keys()
        for title, expected in chosen.items():
            assert by_title[title].keys() == expected.keys()
            for what, value in expected.items():
                gap = (by_title[title][what] - value).abs().max().item()
                if not gap < 1e-10:
                    wrong.append(f"process {rank}: {title}: {what} differs by {gap:.3g}")
    assert not wrong, "\n".join(wrong[:40])


def test_gathering_leaves_the_gradient_of_others_alone(tmp_path: Path) -> None:
    for by_title in run(2, tmp_path, "gather"):
        for what, gap in by_title["gather"].items():
            assert torch.count_nonzero(gap) == 0, what


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_sigmoid_contrast_is_that_of_open_clip(count: int, tmp_path: Path) -> None:
    for by_title in run(count, tmp_path, "siglip"):
        assert len(by_title["siglip"]) == 4 * 7
        for what, gap in by_title["siglip"].items():
            assert gap.abs().max() < 1e-12, what
