"""How a folder is loaded, by its form: the lines of its card."""

from __future__ import annotations

from typing import Literal

CardForm = Literal["checkpoint", "open_clip", "transformers", "onnx"]

_DEGLA = """With degla:

```sh
degla evaluate FOLDER --benchmarks sugarcrepe --root DATA --out results.json
```

```python
import degla

model = degla.load_model("FOLDER")
images, texts = degla.encode_images(model, ["photo.jpg"]), degla.encode_captions(model, ["a dog chases a cat"])
```
"""

_OPEN_CLIP = """With open_clip:

```python
import open_clip

model, _, transform = open_clip.create_model_and_transforms("local-dir:FOLDER")  # or hf-hub:OWNER/NAME
tokenize = open_clip.get_tokenizer("local-dir:FOLDER")
```

Where `vision_cfg.timm_model_name` in open_clip_config.json ends in `_tanh`, `import degla.model.timm_towers` first.
"""

_TRANSFORMERS = """With transformers:

```python
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained("FOLDER"), AutoProcessor.from_pretrained("FOLDER")
inputs = processor(text=["a dog"], images=image, padding="max_length", truncation=True, return_tensors="pt")
```
"""

_ONNX = """With onnxruntime, from any language: `image.onnx` takes `pixel_values` [batch, 3, height, width] in float32,
`text.onnx` takes `input_ids` [batch, context] in int64; both give embeddings of length one. `degla_onnx.json` holds
the sizes, the scale and the version of the operators, `tokenizer.json` the tokenizer, `preprocessor_config.json` the
mean, deviation and sizes.

```python
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/text.onnx")
(texts,) = session.run(None, {"input_ids": input_ids})
```
"""

_TO_OTHERS = """For other programs: `degla export FOLDER --to transformers --out OUT`, or `--to onnx`.
`--to open_clip` gives the weights without what training needs.
"""


def _lines(*parts: str) -> list[str]:
    return ["## Use", "", *"\n".join(parts).splitlines(), ""]


USE: dict[CardForm, list[str]] = {
    "checkpoint": _lines(_DEGLA, _OPEN_CLIP, _TO_OTHERS),
    "open_clip": _lines(_DEGLA, _OPEN_CLIP, _TO_OTHERS),
    "transformers": _lines(_DEGLA, _TRANSFORMERS),
    "onnx": _lines(_DEGLA, _ONNX),
}
"""Lines of a card, by form."""
