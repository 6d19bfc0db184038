"""A random language model of a few thousand weights with its own tokenizer, as a folder and as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import torch

CAPTIONS = (
    "A man in a red shirt is riding a brown horse.",
    "Two small dogs sit on a wooden bench next to a big tree.",
    "A woman is riding a skateboard down a busy street.",
    "A black cat is sleeping on a blue motorcycle.",
)
WIDTH, HEADS, LAYERS, CONTEXT = 32, 4, 2, 512


def write_folder(folder: Path, *, model_type: str = "llama") -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<start>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<start>", eos_token="<start>").save_pretrained(
        folder
    )
    size = tokenizer.get_vocab_size()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if model_type == "llama":
            config = LlamaConfig(
                vocab_size=size, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS,
                num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=CONTEXT,
                bos_token_id=0, eos_token_id=0, initializer_range=0.4, tie_word_embeddings=True,
            )  # fmt: skip
            LlamaForCausalLM(config).save_pretrained(folder)
        else:
            config = GPT2Config(vocab_size=size, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=CONTEXT, bos_token_id=0)
            GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def write_gguf(folder: Path, file: Path, *, architecture: str = "llama") -> Path:
    """The folder's model as a GGUF file, in float32."""
    import gguf
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("A working title")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == "<start>" else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"].numpy())
    for layer in range(LAYERS):
        for name, packed in names.items():
            tensor = weights[f"model.layers.{layer}.{name}.weight"]
            if packed in ("attn_q", "attn_k"):
                # llama.cpp keeps the two halves of each rotated pair side by side.
                heads = HEADS if packed == "attn_q" else 2
                tensor = tensor.reshape(heads, 2, -1, WIDTH).transpose(1, 2).reshape(tensor.shape)
            writer.add_tensor(f"blk.{layer}.{packed}.weight", tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
