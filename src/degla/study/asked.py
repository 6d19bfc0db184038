"""What the questions of a study are now: digests of all that is asked, and their images that runs are trained on."""

from __future__ import annotations

import logging
from typing import Any

from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.evaluation.overlap import Leakage, find_leakage, joined_images, trained_by, training_images
from degla.evaluation.questions import ask, questions_digest
from degla.evaluation.verdicts import images_of
from degla.shelf import BENCHMARKS
from degla.study.materials import StudyQuestions

log = logging.getLogger("degla.study")


class AskedNow:
    """Questions as their files and images are now, each read once for all runs."""

    def __init__(self) -> None:
        self._found: dict[Any, Leakage | None] = {}
        self._asked: dict[StudyQuestions, tuple[dict[str, str], list[tuple[str, list[str]]]]] = {}

    def digests(self, asked: StudyQuestions) -> dict[str, str] | None:
        """By benchmark, the digest of all that is asked, as results have it; None where that cannot be read."""
        try:
            return self._read(asked)[0]
        except InputError:
            return None  # Measuring says why, and what was measured stays.

    def _read(self, asked: StudyQuestions) -> tuple[dict[str, str], list[tuple[str, list[str]]]]:
        """Digests, and paths of images, by benchmark."""
        if asked not in self._asked:
            digests, images = {}, []
            for name in asked.benchmarks:
                questions = ask(BENCHMARKS.load(name).BENCHMARK, asked.root, allow_missing=True)
                # Without leave to miss any, a result has them all, whatever was deleted since.
                digests[name] = questions_digest(questions.entries if asked.allow_missing else questions.kept)
                images.append((name, [image.path for image in images_of(questions.entries)]))
            self._asked[asked] = digests, images
        return self._asked[asked]

    def leakage(self, config: TrainConfig | None, *, base: str, asked: StudyQuestions) -> Leakage | None:
        """Leakage of a run, the data of its base among it.

        Args:
            config: with its data; None: the base alone.
            base: the model that it begins from.
            asked: what it is measured on.

        Returns:
            None where nothing is known of the training data, or the questions cannot be read, which measuring says.
        """
        streams = () if config is None else (config.data, config.replay.data)
        key = (tuple((data.captions, data.images, data.format) for data in streams), base, asked)
        if key not in self._found:
            self._found[key] = self._look(config, base=base, asked=asked)
        return self._found[key]

    def _look(self, config: TrainConfig | None, *, base: str, asked: StudyQuestions) -> Leakage | None:
        known = training_images(base)
        if config is not None:
            known = joined_images([*trained_by(to_plain(config)), *([known] if known else [])])
        if known is None:
            return None
        try:
            return find_leakage(known, self._read(asked)[1], root=asked.root)
        except InputError as error:
            log.warning("whether benchmark images are trained on is not known: %s", error)
            return None
