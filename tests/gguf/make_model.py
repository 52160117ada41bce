#!/usr/bin/env python3
"""Writes the models of test_gguf_checkpoint: golden cases as GGUF files, by the package gguf.

usage: make_model.py [FOLDER]    (default: ../data/gguf; needs numpy and gguf, pip install gguf==0.19.0)

  llama3-tiny.gguf  in float32; queries and keys with the halves of each head interleaved, as llama.cpp converts them
  llama3-q8_0.gguf  the same with matrices in Q8_0 where rows have whole blocks; the first code of every block is -128
  gemma3-tiny.gguf  in float32; norms as 1 + weight, no pattern of windows and no local rotary base, as it converts these
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
GEMMA3_NAMES = NAMES | {
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
}
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in tensor["data_offsets"])
            yield name, np.frombuffer(data[begin:end], np.float32).reshape(tensor["shape"])


def interleaved(weight, heads):
    """Row i of the first half of each head, then row i of the second."""
    rows, columns = weight.shape
    return np.ascontiguousarray(weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)).reshape(rows, columns)


def write(path, architecture, case, extra, convert, add=lambda writer, name, weight: writer.add_tensor(name, weight)):
    case = DATA / "golden" / case
    config = json.loads((case / "config.json").read_text())
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    extra(writer, config)
    names = GEMMA3_NAMES if architecture == "gemma3" else NAMES
    for name, weight in read_safetensors(case / "model.safetensors"):
        weight = convert(name, weight, config)
        if name in OUTSIDE:
            add(writer, OUTSIDE[name], weight)
            continue
        block, rest = name.removeprefix("model.layers.").split(".", 1)
        add(writer, f"blk.{block}.{names[rest]}", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_fields(writer, config):
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])


def in_pairs(name, weight, config):
    if "q_proj" in name:
        return interleaved(weight, config["num_attention_heads"])
    if "k_proj" in name:
        return interleaved(weight, config["num_key_value_heads"])
    return weight


def add_q8_0(writer, name, weight):
    if weight.ndim == 1 or weight.shape[1] % 32 != 0:
        return writer.add_tensor(name, weight)
    rows = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
    blocks = rows.reshape(-1, 34)  # a half, 32 codes
    blocks[:, 2] = 0x80
    writer.add_tensor(name, blocks.reshape(rows.shape), raw_dtype=gguf.GGMLQuantizationType.Q8_0)


def gemma3_fields(writer, config):
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["full_attention"]["rope_theta"])
    writer.add_sliding_window(config["sliding_window"])


def norm_scales(name, weight, config):
    return weight + np.float32(1) if name.endswith("norm.weight") else weight


def main(folder=DATA / "gguf"):
    folder = pathlib.Path(folder)
    write(folder / "llama3-tiny.gguf", "llama", "llama3-tiny", llama_fields, in_pairs)
    write(folder / "llama3-q8_0.gguf", "llama", "llama3-tiny", llama_fields, in_pairs, add_q8_0)
    write(folder / "gemma3-tiny.gguf", "gemma3", "gemma3-tiny", gemma3_fields, norm_scales)


if __name__ == "__main__":
    main(*sys.argv[1:])
