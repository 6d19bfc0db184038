"""Use degla's losses in a `transformers.Trainer` by overriding one method.

The model here is a small CLIP with random weights, so the script downloads nothing. Replace it by
`CLIPModel.from_pretrained("openai/clip-vit-base-patch32")` and its processor.
"""

import math
import tempfile

import torch
from transformers import CLIPConfig, CLIPModel, Trainer, TrainingArguments

from degla.losses import Contrastive, ImageGrounded, Objective

K, LENGTH = 2, 12


class NegativesTrainer(Trainer):
    """Reads `input_ids` [B, T] of the captions and `negative_ids` [B, K, T] of their negatives."""

    objective = Objective({"contrastive": Contrastive(), "image_grounded": ImageGrounded(weight=0.5)})

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        # As in CLIP's training: keep the scale between 1 and 100. `model` may be wrapped for several processes.
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        negatives = inputs["negative_ids"].flatten(0, 1)
        texts = torch.cat([inputs["input_ids"], negatives])
        outputs = model(input_ids=texts, pixel_values=inputs["pixel_values"])
        rows = len(inputs["pixel_values"])
        loss, _ = self.objective(
            image=outputs.image_embeds,
            caption=outputs.text_embeds[:rows],
            negative=outputs.text_embeds[rows:].unflatten(0, (rows, K)),
            scale=self.model.logit_scale.exp(),
        )
        return (loss, outputs) if return_outputs else loss


text = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
text |= {"max_position_embeddings": LENGTH, "bos_token_id": 98, "eos_token_id": 99, "pad_token_id": 0}
vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
vision |= {"image_size": 32, "patch_size": 16}
model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def example(number: int) -> dict[str, torch.Tensor]:
    """One image, caption and K negatives as token ids; each text ends with the end token, 99."""
    chance = torch.Generator().manual_seed(number)
    ids = torch.randint(1, 98, (1 + K, LENGTH), generator=chance)
    ids[:, -1] = 99
    return {"pixel_values": torch.randn(3, 32, 32, generator=chance), "input_ids": ids[0], "negative_ids": ids[1:]}


arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(), max_steps=3, per_device_train_batch_size=8, remove_unused_columns=False,
    report_to=[], logging_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True,
)  # fmt: skip
result = NegativesTrainer(model=model, args=arguments, train_dataset=[example(n) for n in range(24)]).train()
print(f"{result.global_step} steps, mean loss {result.training_loss:.3f}")
