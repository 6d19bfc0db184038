"""Images of the questions that runs of a study are trained on; looked for once for all runs on the same data."""

from __future__ import annotations

import logging
from typing import Any

from degla.config.plain import to_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.evaluation.overlap import Leakage, find_leakage, joined_images, trained_images, training_images
from degla.evaluation.questions import ask
from degla.evaluation.verdicts import images_of
from degla.shelf import BENCHMARKS
from degla.study.materials import StudyQuestions

log = logging.getLogger("degla.study")


class Leakages:
    """What has been looked for."""

    def __init__(self) -> None:
        self._found: dict[Any, Leakage | None] = {}
        self._images: dict[StudyQuestions, list[tuple[str, list[str]]]] = {}

    def of(self, config: TrainConfig | None, *, base: str, asked: StudyQuestions) -> Leakage | None:
        """Leakage of a run, the data of its base among it.

        Args:
            config: with its data; None: the base alone.
            base: the model that it begins from.
            asked: what it is measured on.

        Returns:
            None where nothing is known of the training data, or the questions cannot be read, which measuring says.
        """
        data = None if config is None else config.data
        key = (data and (data.captions, data.images, data.format), base, asked)
        if key not in self._found:
            self._found[key] = self._look(config, base=base, asked=asked)
        return self._found[key]

    def _look(self, config: TrainConfig | None, *, base: str, asked: StudyQuestions) -> Leakage | None:
        known = training_images(base)
        if config is not None:
            known = joined_images([trained_images(to_plain(config)["data"]), *([known] if known else [])])
        if known is None:
            return None
        try:
            if asked not in self._images:
                self._images[asked] = [
                    (name, [image.path for image in images_of(questions.entries)])
                    for name in asked.benchmarks
                    for questions in (ask(BENCHMARKS.load(name).BENCHMARK, asked.root, allow_missing=True),)
                ]
            return find_leakage(known, self._images[asked], root=asked.root)
        except InputError as error:
            log.warning("whether benchmark images are trained on is not known: %s", error)
            return None
