"""Each picture embedded once, before the first step, for a run that leaves the image tower as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from degla.evaluation.cache import DiskCache, default_cache_folder, image_identity_of
from degla.evaluation.embed import Embedder
from degla.evaluation.processes import EvaluationProcesses
from degla.progress import TaskProgress
from degla.records import ItemImage

if TYPE_CHECKING:
    from degla.evaluation.scoring import EmbeddingRows
    from degla.losses.core import Processes
    from degla.model.encoder import Encoder

_log = logging.getLogger("degla.train")


@dataclass(frozen=True)
class PictureRows:
    """Unit embeddings [D] of pictures by their paths: what a data set gives in place of pixels."""

    row_of: dict[str, int]
    rows: EmbeddingRows

    def __call__(self, path: str) -> Tensor:
        """The embedding of one picture."""
        return torch.from_numpy(self.rows[self.row_of[path]].copy())


def embed_pictures(paths: Iterable[str], *, folder: Path, encoder: Encoder, processes: Processes) -> PictureRows:
    """Embed each picture whole, by the model's own evaluation transform; earlier runs and evaluations are made use of.

    Args:
        paths: relative to `folder`, or absolute; each once or more.
        folder: of the pictures.
        encoder: the student before the first step.
        processes: that share the work, and all get the rows.

    Raises:
        InputError: a picture cannot be read.
    """
    group = EvaluationProcesses(processes.rank, processes.count)
    images = [ItemImage(path=path) for path in dict.fromkeys(paths)]
    with DiskCache(default_cache_folder()) as cache:
        embedded = Embedder(
            encoder, root=folder, cache=cache, identity=image_identity_of(encoder), processes=group,
            progress=TaskProgress(group.first),
        ).embed(images, [])  # fmt: skip
    _log.info("%d pictures are embedded once, whole and by the model's own transform: no random crops.", len(images))
    row_of = {image.path: row for image, row in embedded.image_row.items()}
    return PictureRows(row_of, group.from_first(lambda: embedded.images))
