"""Validation during training: gains and losses, the best checkpoint, and early stopping."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.config.sections import StopConfig, ValidationConfig
from degla.errors import InputError
from degla.evaluation.choice import TradeOff, require_score, trade_off
from degla.evaluation.questions import BenchmarkQuestions
from degla.files import LineFile, write_text
from degla.model.encoder import Encoder
from degla.model.runs import checkpoints
from degla.pages.words import counted, percent, points
from degla.processes import ProcessGroup
from degla.training.metrics import lines_up_to

if TYPE_CHECKING:
    from degla.data.table import PairTable
    from degla.evaluation.overlap import Leakage
    from degla.evaluation.trainings import Trainings

log = logging.getLogger("degla.train")

JOINT = "joint"
"""Name of the score that weighs gains against losses."""


@dataclass
class Validation:
    """Runs benchmarks before the first step and every few steps; tracks the best score and its checkpoint.

    Attributes:
        config: which benchmarks to run, how often, and which score decides.
        stop: limits on forgetting and on evaluations without a better score.
        run: folder of the run; its ``validation.jsonl`` has every score.
        label: name of the recipe, for the results.
        seed: seed of the run, for the results.
        processes: processes that share each evaluation; all must call `begin` and `score`, and the first writes the
            scores.
    """

    config: ValidationConfig
    stop: StopConfig
    _: KW_ONLY
    run: Path
    label: str
    seed: int
    processes: ProcessGroup
    best: str | None = field(default=None, init=False)
    """Name of the best checkpoint among those within the limit on forgetting."""
    ended: str | None = field(default=None, init=False)
    """Why the run should end early, after the newest evaluation, or None; the same on all processes."""

    def __post_init__(self) -> None:
        if self.config.benchmarks and self.config.root is None:
            raise InputError("--validation.benchmarks requires --validation.root, the folder of their data.")
        self._questions: list[BenchmarkQuestions] | None = None
        self._highest = self._before = float("-inf")
        self._without_better = 0
        self._scores_before: dict[str, float] = {}

    def read(self, *, trained: TrainConfig, rows: Sequence[PairTable], earlier: Trainings | None = None) -> None:
        """Read and check the benchmarks before a model is loaded; warn if they contain training images.

        Args:
            trained: configuration of the run; what its base was trained on before counts too.
            rows: rows of each stream of pairs.
            earlier: that, if the checkpoint that the run resumes from records it.

        Raises:
            InputError: the benchmarks' files are wrong, or lack the scores that decide.
        """
        if self.config.benchmarks:
            from degla.evaluation.caveats import trained_on, trained_unknown
            from degla.evaluation.neutral import require_declared, score_names
            from degla.evaluation.overlap import find_leakage, images_of_pairs, joined_images, training_images
            from degla.evaluation.run import ask_all
            from degla.evaluation.trainings import TrainedPairs

            root = self.config.root
            assert root is not None
            self._questions = ask_all(self.config.benchmarks, root, processes=self.processes)
            declared = chain.from_iterable(score_names(each.benchmark, each.counts) for each in self._questions)
            require_declared(self._needed, tuple(declared))
            shown = [each.scored_images for each in self._questions]

            def look() -> Leakage:
                pairs = (TrainedPairs.model_validate(to_plain(stream.data)) for stream in trained.streams)
                own = [images_of_pairs(each, table.images()) for each, table in zip(pairs, rows, strict=True)]
                before = training_images(trained.model, earlier)
                return find_leakage(joined_images([*own, before]), shown, root=root)

            leakage = self.processes.from_first(look)
            titles = {each.benchmark.name: each.benchmark.title for each in self._questions}
            if self.processes.first:
                for sentence in trained_on("validation", leakage, titles):
                    log.warning("%s Its scores, and so the best checkpoint, also measure memorisation.", sentence)
                for sentence in trained_unknown("validation", leakage):
                    log.warning("%s", sentence)

    def begin(self, encoder: Encoder, *, resumed_from: int | None = None) -> dict[str, float]:
        """Evaluate the model before training, or read the scores that an interrupted run has measured.

        Args:
            encoder: the model before training.
            resumed_from: step of the checkpoint that the run resumes from; scores of later steps are dropped. None
                for a new run.

        Returns:
            The scores before training with the prefix ``validation/``; empty if they were not measured now.

        Raises:
            InputError: the benchmarks' files are wrong, or lack the scores that decide.
        """
        if not self.config.benchmarks:
            return {}
        rows, there = self.processes.from_first(lambda: self._recorded(resumed_from))
        measured = not any(row["step"] == 0 for row in rows)
        if measured:
            rows = [{"step": 0, **self._measure(encoder)}, *rows]
        before, *later = rows
        self._scores_before = {name: value for name, value in before.items() if name not in ("step", "score")}
        for place, name in self._needed:
            require_score(place, name, self._scores_before)
        before["score"] = self._before = self._decisive(self._scores_before, self._trade(self._scores_before))
        if self.processes.first:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_text(self.run / "validation.jsonl", text)
        for row in later:
            self._note(row, there=there)
        if not measured:
            return {}
        self._tell(before, "before training")
        return {f"validation/{name}": value for name, value in self._scores_before.items()}

    def due(self, step: int, *, end: bool) -> bool:
        """Return whether to evaluate after step number `step` (from 1); `end`: it ends an epoch or the run."""
        if not self.config.benchmarks:
            return False
        return step % self.config.every_steps == 0 if self.config.every_steps else end

    def warn_if_never_due(self, steps: int) -> None:
        """Warn if no evaluation is due in a run of `steps` steps."""
        if self.config.benchmarks and self.config.every_steps > steps and self.processes.first:
            log.warning(
                "--validation.every-steps is %d, but the run has %d steps: only the starting model is evaluated.",
                self.config.every_steps, steps,
            )  # fmt: skip

    @property
    def improved(self) -> bool:
        """Whether the best checkpoint scores higher than the model before training."""
        return self._highest > self._before

    def score(self, encoder: Encoder, step: int) -> dict[str, float]:
        """Evaluate, each process its share, and return all scores with the prefix ``validation/``.

        They include ``gained``, ``lost`` and ``joint`` if the benchmarks have the scores `gain` and `kept`.

        Raises:
            InputError: the benchmarks' files are wrong.
            DeglaError: the disk is full.
        """
        scores = self._measure(encoder)
        trade = self._trade(scores)
        traded = {} if trade is None else {"gained": trade.gained, "lost": trade.lost, JOINT: trade.joint}
        row = {"step": step, "score": self._decisive(scores, trade), **scores, **traded}
        if self.processes.first:
            with LineFile(self.run / "validation.jsonl") as file:
                file.append([json.dumps(row) + "\n"])
        self._note(row)
        over = self._over(row)
        self._tell(row, "over the budget" if over else "best" if self.best == f"step-{step}" else "")
        return {f"validation/{name}": value for name, value in (scores | traded).items()}

    def _measure(self, encoder: Encoder) -> dict[str, float]:
        from degla.evaluation.run import Evaluation
        from degla.evaluation.terminal import named_scores

        assert self.config.root is not None
        evaluation = Evaluation(
            self.config.benchmarks, self.config.root, progress=False, processes=self.processes,
            questions=self._questions,
        )  # fmt: skip
        return named_scores(evaluation.score(encoder, label=self.label, training_seed=self.seed))

    def _recorded(self, last: int | None) -> tuple[list[dict[str, Any]], set[str]]:
        """Return the rows up to a step, in order, and the names of the checkpoints that still exist."""
        path = self.run / "validation.jsonl"
        lines = lines_up_to(path, last) if last is not None and path.is_file() else []
        rows = {row["step"]: row for _, row in lines}
        return [rows[step] for step in sorted(rows)], {folder.name for folder in checkpoints(self.run)}

    def _trade(self, scores: Mapping[str, float]) -> TradeOff | None:
        gain, kept = self.config.gain, self.config.kept
        if not {gain, kept} <= scores.keys() & self._scores_before.keys():
            return None
        return trade_off(scores, self._scores_before, gain=gain, kept=kept, price=self.config.price)

    def _decisive(self, scores: Mapping[str, float], trade: TradeOff | None) -> float:
        if self.config.score != JOINT:
            return scores[self.config.score]
        assert trade is not None
        return trade.joint

    @property
    def _needed(self) -> list[tuple[str, str]]:
        """The scores that decide: the flag that names each, and its name."""
        joint, budget = self.config.score == JOINT, self.stop.max_forgetting is not None
        needed = [] if joint else [("--validation.score", self.config.score)]
        if joint:
            needed.append(("--validation.score joint counts the gain of --validation.gain", self.config.gain))
        if joint or budget:
            by = "--validation.score joint counts" if joint else "--stop.max-forgetting limits"
            needed.append((f"{by} the loss of --validation.kept", self.config.kept))
        return needed

    def _over(self, scores: Mapping[str, float]) -> bool:
        budget = self.stop.max_forgetting
        # A loss of exactly the budget is within it, despite rounding errors.
        return budget is not None and self._points_lost(scores) > budget + 1e-6

    def _points_lost(self, scores: Mapping[str, float]) -> float:
        """Return the loss of the kept score in points; the benchmarks need not have the score to improve."""
        return 100 * (self._scores_before[self.config.kept] - scores[self.config.kept])

    def _note(self, row: Mapping[str, Any], *, there: Collection[str] | None = None) -> None:
        """Process an evaluation; `there`: checkpoints that can still be the best, all by default."""
        name, over = f"step-{row['step']}", self._over(row)
        self.ended = None
        if not over and row["score"] > self._highest and (there is None or name in there):
            self._highest, self.best, self._without_better = row["score"], name, 0
        else:
            self._without_better += 1
            if self.stop.patience is not None and self._without_better >= self.stop.patience:
                self.ended = (
                    f"the last {counted(self._without_better, 'evaluation')} did not improve {self.config.score} "
                    f"(--stop.patience {self.stop.patience})"
                )
        if over:
            self.ended = (
                f"{self.config.kept} is {self._points_lost(row):.2f} points below its start "
                f"(--stop.max-forgetting {self.stop.max_forgetting:g})"
            )

    def _tell(self, row: Mapping[str, Any], remark: str) -> None:
        """Log one line: "step 200: composition 75.1 (+6.7), recognition 88.2 (−8.6), joint −1.9, best"."""
        if not self.processes.first:
            return
        shown = dict.fromkeys((self.config.gain, self.config.kept, self.config.score))
        words = [self._phrase(name, row) for name in shown if name in self._scores_before]
        if JOINT in row:
            words.append(f"{JOINT} {points(row[JOINT])}")
        log.info("step %d: %s", row["step"], ", ".join([*words, remark] if remark else words))

    def _phrase(self, name: str, row: Mapping[str, Any]) -> str:
        change = "" if row["step"] == 0 else f" ({points(row[name] - self._scores_before[name])})"
        return f"{name} {percent(row[name])}{change}"
