"""Adapter for mteb, the benchmark collection: `mteb.evaluate(mteb_model("runs/degla"), tasks=tasks)`.

`read_mteb_results` reads the results that mteb writes; `degla report --mteb` shows them beside our own scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.api import encode_captions, encode_images, load_model, refuse_other
from degla.errors import InputError
from degla.evaluation.in_print import MtebScore, read_mteb_results

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from degla.evaluation.models import EmbeddingModel

__all__ = ["MtebScore", "mteb_model", "read_mteb_results"]

INSTALL = "Install it: pip install 'degla[mteb]'."


def mteb_model(model: str | Path | EmbeddingModel, *, device: str | torch.device = "cpu") -> Any:
    """Wrap a model as an mteb encoder: images and texts to unit embeddings, compared by cosine.

    An image and a text given together are embedded as their normalised sum, as mteb does for other dual encoders.
    mteb's prompts and instructions are ignored, because CLIP was trained without any. Images are read as everywhere in
    this package (upright, on white).

    Args:
        model: a name or path as for `degla.load_model`, a loaded model, or one of your own, a
            `degla.evaluation.models.EmbeddingModel`.
        device: device of a named model's parameters.

    Raises:
        InputError: there is no such model, it is another library's, or mteb is not installed.
    """
    try:
        from mteb.models.abs_encoder import AbsEncoder
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError as error:
        raise InputError(f"mteb_model: needs {error.name or 'mteb'}, which is not installed. {INSTALL}") from None
    inner = load_model(model, device=device) if isinstance(model, str | Path) else model
    refuse_other(inner, "mteb_model")

    class DeglaEncoder(AbsEncoder):  # type: ignore[misc, unused-ignore]
        def encode(self, inputs: Iterable[Mapping[str, Sequence[Any]]], **_: Any) -> Tensor:
            return _embed(inner, inputs)

    encoder = DeglaEncoder()
    encoder.model = inner
    encoder.mteb_model_meta = ModelMeta.create_empty(
        {
            "name": f"degla/{Path(inner.name).name.replace(':', '-')}", "revision": inner.fingerprint[:16],
            "modalities": ["image", "text"], "max_tokens": inner.context_length, "framework": ["PyTorch"],
            "similarity_fn_name": ScoringFunction.COSINE,
        }
    )  # fmt: skip
    return encoder


def _embed(model: EmbeddingModel, batches: Iterable[Mapping[str, Sequence[Any]]]) -> Tensor:
    import torch

    rows = []
    for batch in batches:
        parts = [embed(model, batch[key]) for key, embed in (("text", encode_captions), ("image", encode_images))
                 if batch.get(key) is not None]  # fmt: skip
        if not parts:
            raise InputError(f"mteb: a batch has neither texts nor images, but {', '.join(batch) or 'nothing'}.")
        rows.append(torch.nn.functional.normalize(sum(parts[1:], parts[0]), dim=-1))
    return torch.cat(rows)
