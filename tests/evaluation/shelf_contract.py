"""What every benchmark must answer on made data: an oracle scores 1, a liar 0, and a constant model ties everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import open_clip
import torch
from PIL import Image

from degla.evaluation.aggregate import Scores, aggregate
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.run import Evaluation
from degla.evaluation.verdicts import Judged
from degla.model.encoder import Description, Encoder
from degla.results import BenchmarkResult, ItemVerdict, Result
from tests.evaluation.fake_encoders import FakeEncoder, constant, knowing

Colours = dict[str, tuple[int, int, int]]


def paint(root: Path, paths: Iterable[str], *, size: tuple[int, int] = (32, 24)) -> Colours:
    """One-coloured images under the given paths, each in its own colour."""
    colours: Colours = {}
    for number, path in enumerate(dict.fromkeys(paths)):
        colours[path] = (60 * (number % 5), 60 * (number // 5 % 5), 40 * (number // 25))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colours[path]).save(root / path, format="PNG")
    return colours


def score(encoder: FakeEncoder | Encoder, name: str, root: Path, **settings: object) -> Result:
    settings = {"allow_missing": True} | settings
    return Evaluation([name], root, progress=False, **settings).score(encoder)  # type: ignore[arg-type]


def values_of(result: BenchmarkResult) -> dict[str, float]:
    """Every score by "part.metric" and every average by its name."""
    parts = {f"{part.name}.{score.metric}": score.value for part in result.parts for score in part.scores}
    values = parts | {score.name: score.value for score in result.averages}
    return {name: round(value, 12) for name, value in values.items()}


def assert_contract(name: str, root: Path, truth: dict[str, list[str]], colours: Colours) -> None:
    """`truth` is each image's path with the texts that are true of it."""
    oracle = score(knowing(truth, colours, lying=False), name, root).benchmarks[0]
    assert set(values_of(oracle).values()) == {1.0}
    # Only where the true text stands among the false ones does even the oracle tie.
    assert all(row.ties == part.degenerate for part in oracle.parts for row in part.scores)
    liar = score(knowing(truth, colours, lying=True), name, root).benchmarks[0]
    assert set(values_of(liar).values()) == {0.0}
    assert_constant_ties(name, root)


def assert_constant_ties(name: str, root: Path) -> None:
    result = score(constant(), name, root).benchmarks[0]
    for part in result.parts:
        for row in part.scores:
            assert row.ties == row.n
            assert row.value == (0.0 if _is_mistake(row.metric) else {"strict": 0.0, "lenient": 1.0}[part.tie])
    half = score(constant(), name, root, tie="half").benchmarks[0]
    assert all(0 < row.value < 1 for part in half.parts for row in part.scores if not _is_mistake(row.metric))
    strict = values_of(score(constant(), name, root, tie="strict").benchmarks[0])
    assert {value for metric, value in strict.items() if not _is_mistake(metric)} == {0.0}


def _is_mistake(metric: str) -> bool:
    """Whether a metric counts wrong answers of one sort: of equal ones, the first is the answer."""
    return "answered_" in metric


@cache
def tiny_encoder() -> Encoder:
    """Random weights, real tokenizer and transform; nobody changes it."""
    torch.manual_seed(0)
    config = {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
    return Encoder(
        open_clip.CLIP(**config).eval(),
        description=Description("tiny", config, {}),
        tokenize=open_clip.get_tokenizer("ViT-B-32"),
        transform=open_clip.image_transform(64, is_train=False),
    )


def literal_image(encoder: Encoder, path: Path, box: tuple[int, int, int, int] | None = None) -> torch.Tensor:
    """One image, one forward, length one; `box` is left, top, right, bottom."""
    return _image_row(encoder, path.read_bytes(), box)


@cache
@torch.no_grad()
def _image_row(encoder: Encoder, content: bytes, box: tuple[int, int, int, int] | None) -> torch.Tensor:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    if box is not None:
        image = image.crop(box)
    row = encoder.clip.encode_image(encoder.transform(image)[None])[0]
    return row / row.norm()


@cache
@torch.no_grad()
def literal_text(encoder: Encoder, text: str) -> torch.Tensor:
    """One text, its whole token row, one forward, length one."""
    row = encoder.clip.encode_text(encoder.tokenize([text]))[0]
    return row / row.norm()


def average_columns(benchmark: Benchmark, columns: dict[str, float], counts: dict[str, int] | None = None) -> Scores:
    """The benchmark's own averages of printed columns: each part gets its items, all worth the column."""
    judged = [
        Judged(
            ItemVerdict(
                id=f"{part}/{number}",
                benchmark=benchmark.name,
                part=part,
                image=f"{part}/{number}",
                ok={metric.verdict: value for metric in benchmark.part(part).metrics},
                ties={metric.verdict: 0 for metric in benchmark.part(part).metrics},
                margin=0.1,
            ),
            {},
        )
        for part, value in columns.items()
        for number in range((counts or {}).get(part, 1))
    ]
    return aggregate(benchmark, judged)
