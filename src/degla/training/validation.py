"""Evaluation during training: the score that decides which checkpoint is the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from degla.config import ValidationConfig
from degla.errors import InputError
from degla.evaluation.processes import Processes
from degla.model.encoder import Encoder
from degla.shelf import did_you_mean


class Validation:
    """Runs benchmarks every few steps and remembers the best score and its checkpoint.

    Args:
        config: which benchmarks, how often, and which named average decides.
        run: the run's folder; ``validation.jsonl`` in it holds every score.
        label: the recipe's name, for the results.
        seed: the run's seed, for the results.
        start: steps already taken; scores of later steps belong to an interrupted process and are forgotten.
        processes: that share each evaluation; all of them must call `score`, and the first writes the scores down.
    """

    def __init__(
        self, config: ValidationConfig, *, run: Path, label: str, seed: int, start: int, processes: Processes
    ) -> None:
        if config.benchmarks and config.root is None:
            raise InputError("--validation.benchmarks needs --validation.root, the folder of their data.")
        self.config, self.run, self.label, self.seed = config, run, label, seed
        self.best: str | None = None
        self._highest = float("-inf")
        self.processes = processes
        self._recall(start)

    def _recall(self, start: int) -> None:
        path = self.run / "validation.jsonl"
        if not self.processes.first or not path.is_file():
            return
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [row for row in rows if row["step"] <= start]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for row in rows:
            self._note(row)

    def _note(self, row: dict[str, Any]) -> None:
        if row["score"] > self._highest:
            self._highest, self.best = row["score"], f"step-{row['step']}"

    def due(self, step: int) -> bool:
        """Whether to evaluate after step number `step` (from 1)."""
        return bool(self.config.benchmarks and self.config.every_steps) and step % self.config.every_steps == 0

    @property
    def due_at_epoch_end(self) -> bool:
        """Whether to evaluate after each pass over the data."""
        return bool(self.config.benchmarks) and not self.config.every_steps

    def score(self, encoder: Encoder, step: int) -> dict[str, float]:
        """Evaluate, each process its share, and return the named averages with the prefix ``validation/``.

        Raises:
            InputError: the benchmarks' files are wrong, or there is no such average.
        """
        from degla.evaluation.run import evaluate
        from degla.evaluation.terminal import named_scores

        assert self.config.root is not None
        encoder.eval()
        try:
            result = evaluate(
                encoder, benchmarks=self.config.benchmarks, root=self.config.root, label=self.label,
                training_seed=self.seed, progress=False, processes=self.processes,
            )  # fmt: skip
        finally:
            encoder.train()
        averages = named_scores(result)
        if self.config.score not in averages:
            raise InputError(
                f"--validation.score {self.config.score!r} is no average of these benchmarks."
                f"{did_you_mean(self.config.score, averages)} Known: {', '.join(sorted(averages))}."
            )
        row = {"step": step, "score": averages[self.config.score], **averages}
        if self.processes.first:
            with (self.run / "validation.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        self._note(row)
        return {f"validation/{name}": value for name, value in averages.items()}
