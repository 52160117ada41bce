#!/usr/bin/env python3
"""Writes a GGUF file of random weights for llama.cpp's llama-bench (PyPI: gguf, numpy).

Usage: random_gguf.py mamba130m|llama438m f32|bf16|q8_0|q4_0 FILE
The sizes are those of the models of the same names in benchmarks/model.cpp. Norms, vectors and Mamba's dt_proj, whose
rows are no multiple of the blocks of q8_0 and q4_0, stay in float. With q4_0 embedding and head are in q8_0: samba's
head is in int8.
"""
import sys

import gguf
import numpy as np

TYPES = {"f32": None, "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0,
         "q4_0": gguf.GGMLQuantizationType.Q4_0}


def matrix_type(name, type_name):
    """The type of a matrix in a file of this type."""
    of_head = type_name == "q4_0" and name in ("token_embd.weight", "output.weight")
    return TYPES["q8_0"] if of_head else TYPES[type_name]


def llama438m(writer):
    """Yields name, shape and whether the tensor is a matrix; so does mamba130m."""
    d_model, layers, d_ff, heads, vocabulary = 1536, 12, 4096, 12, 32000
    writer.add_block_count(layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(d_model)
    writer.add_feed_forward_length(d_ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(d_model // heads)
    writer.add_vocab_size(vocabulary)
    yield "token_embd.weight", (vocabulary, d_model), True
    yield "output_norm.weight", (d_model,), False
    yield "output.weight", (vocabulary, d_model), True
    for i in range(layers):
        yield f"blk.{i}.attn_norm.weight", (d_model,), False
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{i}.{name}.weight", (d_model, d_model), True
        yield f"blk.{i}.ffn_norm.weight", (d_model,), False
        yield f"blk.{i}.ffn_gate.weight", (d_ff, d_model), True
        yield f"blk.{i}.ffn_up.weight", (d_ff, d_model), True
        yield f"blk.{i}.ffn_down.weight", (d_model, d_ff), True


def mamba130m(writer):
    d_model, layers, vocabulary, d_inner, d_state, dt_rank, d_conv = 768, 24, 50280, 1536, 16, 48, 4
    writer.add_block_count(layers)
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(d_model)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(d_conv)
    writer.add_ssm_inner_size(d_inner)
    writer.add_ssm_state_size(d_state)
    writer.add_ssm_time_step_rank(dt_rank)
    writer.add_vocab_size(vocabulary)
    yield "token_embd.weight", (vocabulary, d_model), True
    yield "output_norm.weight", (d_model,), False
    for i in range(layers):
        yield f"blk.{i}.attn_norm.weight", (d_model,), False
        yield f"blk.{i}.ssm_in.weight", (2 * d_inner, d_model), True
        yield f"blk.{i}.ssm_conv1d.weight", (d_inner, d_conv), False
        yield f"blk.{i}.ssm_conv1d.bias", (d_inner,), False
        yield f"blk.{i}.ssm_x.weight", (dt_rank + 2 * d_state, d_inner), True
        yield f"blk.{i}.ssm_dt.weight", (d_inner, dt_rank), True
        yield f"blk.{i}.ssm_dt.bias", (d_inner,), False
        yield f"blk.{i}.ssm_a", (d_inner, d_state), False
        yield f"blk.{i}.ssm_d", (d_inner,), False
        yield f"blk.{i}.ssm_out.weight", (d_model, d_inner), True


MODELS = {"llama438m": ("llama", llama438m), "mamba130m": ("mamba", mamba130m)}


def main(model, type_name, path):
    architecture, tensors = MODELS[model]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(1)
    for name, shape, is_matrix in tensors(writer):
        values = 0.02 * random.standard_normal(shape, dtype=np.float32)
        if "norm" in name:
            values = np.ones(shape, np.float32)
        elif name.endswith("ssm_a"):
            values = -1 - np.abs(values)
        if is_matrix and TYPES[type_name] is not None and (type_name == "bf16" or shape[-1] % 32 == 0):
            kind = matrix_type(name, type_name)
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in MODELS or sys.argv[2] not in TYPES:
        sys.exit(__doc__)
    main(*sys.argv[1:])
