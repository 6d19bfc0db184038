"""A folder of ONNX graphs written by `degla export --to onnx`: a model for evaluation with onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from degla.errors import InputError
from degla.files import sha256_of_files
from degla.parse import in_one_line, read_json_object, require_form
from degla.records import validate

INFO, IMAGE, TEXT = "degla_onnx.json", "image.onnx", "text.onnx"
INSTALL = "Install it: pip install 'degla[export]'."

# Read when onnxruntime is imported; without it, newer versions report their use to their maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class OnnxInfo(BaseModel):
    """The contents of ``degla_onnx.json``: what a program needs to know to use the two graphs.

    Attributes:
        schema_version: number of the form.
        name: of the exported model.
        image_size: height and width of the images in pixels.
        context_length: tokens per text.
        padding: padding token id.
        padding_side: side of the padding.
        dimension: of the unit-length embeddings.
        logit_scale: factor of the cosine similarity before a softmax or sigmoid.
        logit_bias: bias that a sigmoid-loss model adds to it.
        activation: of the towers.
        precision: of the weights, "fp32" or "int8".
        opset: version of the ONNX operator set.
        preprocess: open_clip's settings of the image transform.
        versions: of the programs that wrote the graphs.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    name: str
    image_size: tuple[int, int]
    context_length: int = Field(gt=0)
    padding: int = Field(default=0, ge=0)
    padding_side: Literal["left", "right"] = "right"
    dimension: int = Field(gt=0)
    logit_scale: float
    logit_bias: float | None = None
    activation: str
    precision: str
    opset: int
    preprocess: dict[str, Any]
    versions: dict[str, str] = {}


def is_onnx_folder(folder: Path) -> bool:
    """Whether a folder was written by `degla export --to onnx`."""
    return (folder / INFO).is_file()


class OnnxModel:
    """Two graphs with the interface that evaluation uses; runs on the CPU.

    Args:
        folder: see `is_onnx_folder`.
        name: as given by the user.

    Raises:
        InputError: a file is missing or damaged, or onnxruntime is not installed.
    """

    trims = False

    def __init__(self, folder: Path, *, name: str) -> None:
        self.name, self.folder = name, folder
        content = read_json_object(folder / INFO, remedy="Export again.")
        require_form(content, where=folder / INFO, remedy="Export again.")
        self.info = validate(OnnxInfo, content, where=str(folder / INFO))
        self.device = torch.device("cpu")
        self.tokenize, self.transform = _tokenize(folder, self.info), _transform(self.info)
        self.activation, self.precision = self.info.activation, self.info.precision
        self.context_length = self.info.context_length
        self.scale, self.bias = self.info.logit_scale, self.info.logit_bias
        """See `OnnxInfo`."""
        self._image, self._text = (open_graph(folder / file) for file in (IMAGE, TEXT))

    @property
    def fingerprint(self) -> str:
        """The sha256 of both graphs."""
        return sha256_of_files(sorted(self.folder.glob("*.onnx*")), self.folder)

    def encode_images(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Return unit-length embeddings of transformed images."""
        return _run(self._image, images.float().cpu().numpy())

    def encode_captions(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts dim"]:
        """Return unit-length embeddings of tokenised texts, padded to the context length."""
        return _run(self._text, tokens.long().cpu().numpy())


def open_graph(path: Path) -> Any:
    """Open an onnxruntime session for one graph.

    Raises:
        InputError: the file is missing or damaged, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: needs onnxruntime, which is not installed. {INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own exception types for missing and damaged files
        message = in_one_line(error).rstrip(".")
        raise InputError(f"{path}: cannot be loaded by onnxruntime: {message}. Export again.") from None


def _run(session: Any, rows: np.ndarray[Any, Any]) -> Tensor:
    embeddings = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(rows)})[0]
    return nn.functional.normalize(torch.from_numpy(np.array(embeddings)), dim=-1)


def _transform(info: OnnxInfo) -> Any:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**info.preprocess), is_train=False)


def _tokenize(folder: Path, info: OnnxInfo) -> Any:
    file = folder / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(f"{file}: needs tokenizers, which is not installed. {INSTALL}") from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(f"{file}: cannot be read: {in_one_line(error)}. Export again.") from None
    tokenizer.enable_truncation(info.context_length)
    tokenizer.enable_padding(length=info.context_length, pad_id=info.padding, direction=info.padding_side)

    def tokenize(texts: list[str]) -> Int[Tensor, "texts context"]:
        return torch.tensor([row.ids for row in tokenizer.encode_batch(list(texts))], dtype=torch.long)

    return tokenize
