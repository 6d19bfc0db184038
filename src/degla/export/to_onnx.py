"""Export both towers of a model as ONNX graphs, with tokenizer.json and the preprocessing settings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from degla.errors import InputError
from degla.export.check import Probe, require_tokens
from degla.export.to_transformers import write_processor
from degla.export.tokenizer import write_tokenizer
from degla.files import write_json
from degla.model import probe
from degla.model.encoder import Encoder
from degla.model.onnx_folder import IMAGE, INFO, INSTALL, TEXT, OnnxInfo, OnnxModel
from degla.parse import read_json_object
from degla.progress import only_errors

OPSET = 18
"""ONNX opset version: the newest that PyTorch exports without rewriting the graph."""
_QUANTISED = ["MatMul", "Gather"]
"""Operators whose weights are quantised: matrix products and token embeddings. Convolutions are not."""


def require_onnx(*, quantize: bool) -> None:
    """Check that the needed packages are installed, before a model is loaded.

    Raises:
        InputError: a package is missing; names it.
    """
    for package in ("onnx", "onnxruntime", "transformers", *(["onnxruntime.quantization"] if quantize else [])):
        try:
            __import__(package)
        except ImportError:
            raise InputError(f"--to onnx needs {package}, which is not installed. {INSTALL}") from None


class _Tower(nn.Module):
    """Unit-length embeddings from one of a model's two functions, "encode_image" or "encode_text"."""

    def __init__(self, clip: nn.Module, function: str) -> None:
        super().__init__()
        self.clip, self.function = clip, function

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.normalize(getattr(self.clip, self.function)(inputs), dim=-1)


def write_onnx(encoder: Encoder, folder: Path) -> None:
    """Write image.onnx, text.onnx, degla_onnx.json, tokenizer and preprocessor_config.json, for any batch size.

    Raises:
        InputError: PyTorch cannot export a tower to ONNX, or the tokenizer only works in open_clip.
    """
    reference = Probe.of(encoder)
    parts = (
        ("encode_image", reference.pixels, IMAGE, "pixel_values", "image_embeds"),
        ("encode_text", reference.tokens, TEXT, "input_ids", "text_embeds"),
    )
    for function, example, file, source, target in parts:
        try:
            with torch.no_grad(), _plain_attention(), TemporaryDirectory(dir=folder) as apart:
                torch.onnx.export(
                    _Tower(encoder.clip, function).eval(), (example[:2],), str(Path(apart) / file),
                    dynamo=False, opset_version=OPSET, input_names=[source], output_names=[target],
                    dynamic_axes={source: {0: "batch"}, target: {0: "batch"}},
                )  # fmt: skip
                _move_graph(Path(apart) / file, folder / file)
        except torch.onnx.OnnxExporterError as error:
            raise InputError(
                f"{encoder.name}: PyTorch cannot export {file}: {str(error).splitlines()[0]}. Export it to open_clip."
            ) from None
    write_tokenizer(encoder, folder)
    write_processor(encoder, folder)
    write_json(folder / INFO, _info(encoder, reference).model_dump(mode="json"))


def _move_graph(source: Path, target: Path) -> None:
    """Move a graph. PyTorch writes a graph of over 2 GB as a file per weight: these become one file, TARGET.data."""
    import onnx

    if len(list(source.parent.iterdir())) == 1:
        source.replace(target)
    else:
        onnx.save_model(onnx.load(source), target, save_as_external_data=True, location=f"{target.name}.data")


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disable PyTorch's fused path through whole blocks, which ONNX lacks, and silence tracing warnings."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _info(encoder: Encoder, reference: Probe) -> OnnxInfo:
    inner: Any = getattr(encoder.tokenize, "tokenizer", None)
    bias = getattr(encoder.clip, "logit_bias", None)
    return OnnxInfo(
        name=encoder.name,
        image_size=encoder.image_size,
        context_length=encoder.context_length,
        padding=int(getattr(inner, "pad_token_id", 0) or 0),
        padding_side=getattr(inner, "padding_side", "right"),
        dimension=reference.images.shape[1],
        logit_scale=float(encoder.scale.detach()),
        logit_bias=None if bias is None else float(bias.detach().reshape(())),
        activation=encoder.activation,
        precision="fp32",
        opset=OPSET,
        preprocess=encoder.description.preprocess_config,
        versions={name: version(name) for name in ("degla", "torch", "onnx", "onnxruntime")},
    )


def check_onnx(encoder: Encoder, folder: Path) -> float:
    """Run the graphs with onnxruntime in several batch sizes; return the largest difference to the model's embeddings.

    Raises:
        DeglaError: embeddings differ by more than rounding, or texts are encoded differently.
    """
    reference, model = Probe.of(encoder), OnnxModel(folder, name=encoder.name)
    require_tokens("onnx", encoder, reference.tokens, model.tokenize(list(probe.TEXTS)))
    images = torch.cat([model.encode_images(reference.pixels[:1]), model.encode_images(reference.pixels[1:])])
    texts = torch.cat([model.encode_captions(reference.tokens[:1]), model.encode_captions(reference.tokens[1:])])
    return reference.require("onnx", images, texts, bound=probe.ROUNDED)


def quantise(encoder: Encoder, folder: Path) -> dict[str, float]:
    """Quantise the weights of both graphs to int8, with dynamic quantisation of activations.

    Returns:
        For "images" and "texts", the lowest cosine similarity of an embedding to the full model's, on generated inputs.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    reference = Probe.of(encoder)
    for file in (IMAGE, TEXT):
        small = folder / f"{file}.small"
        # onnxruntime logs advice to pre-process the graphs, which would change nothing here.
        with warnings.catch_warnings(), only_errors():
            warnings.simplefilter("ignore")
            source, kind = str(folder / file), QuantType.QInt8
            quantize_dynamic(source, str(small), weight_type=kind, per_channel=True, op_types_to_quantize=_QUANTISED)
        small.replace(folder / file)
        for leftover in folder.glob(f"{file}.data"):
            leftover.unlink()
    write_json(folder / INFO, read_json_object(folder / INFO) | {"precision": "int8"})
    model = OnnxModel(folder, name=encoder.name)
    return {
        "images": _cosine(model.encode_images(reference.pixels), reference.images),
        "texts": _cosine(model.encode_captions(reference.tokens), reference.texts),
    }


def _cosine(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum(dim=-1).min())
