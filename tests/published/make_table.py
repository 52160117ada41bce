#!/usr/bin/env python3
"""Writes ../data/published.json: for each published model its config.json, as far as it is not names and tokens, and the
number of parameters that transformers makes of it (tied ones once). No weights are made or downloaded.
Needs torch and transformers (made with 2.13 and 5.x: the file says which). Usage: make_table.py"""
import json
import pathlib

import torch
import transformers


def llama(d, layers, heads, kv_heads, d_ff, vocab, **more):
    return {"model_type": "llama", "hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "intermediate_size": d_ff, "vocab_size": vocab, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "attention_bias": False, "rope_theta": 10000.0,
            "rope_scaling": None, **more}


def llama31(factor):
    return {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3"}


def gemma(d, layers, heads, kv_heads, d_ff):
    return {"model_type": "gemma", "hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": 256, "intermediate_size": d_ff, "vocab_size": 256000,
            "hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "attention_bias": False, "rope_theta": 10000.0}


def gemma3(d, layers, d_ff):
    return {"model_type": "gemma3_text", "hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": d_ff, "vocab_size": 262144,
            "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "attention_bias": False,
            "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window": 512,
            "query_pre_attn_scalar": 256, "attn_logit_softcapping": None, "final_logit_softcapping": None,
            "layer_types": ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(layers)]}


def mamba(d, layers):
    return {"model_type": "mamba", "hidden_size": d, "num_hidden_layers": layers, "state_size": 16, "conv_kernel": 4,
            "expand": 2, "intermediate_size": 2 * d, "time_step_rank": -(-d // 16), "vocab_size": 50280,
            "hidden_act": "silu", "layer_norm_epsilon": 1e-5, "use_bias": False, "use_conv_bias": True}


MODELS = {
    "SmolLM2_135M": llama(576, 30, 9, 3, 1536, 49152, tie_word_embeddings=True, rope_theta=100000),
    "SmolLM2_360M": llama(960, 32, 15, 5, 2560, 49152, tie_word_embeddings=True, rope_theta=100000),
    "SmolLM2_1_7B": llama(2048, 24, 32, 32, 8192, 49152, tie_word_embeddings=True, rope_theta=130000),
    "Llama2_7B": llama(4096, 32, 32, 32, 11008, 32000, pretraining_tp=1),
    "Llama2_13B": llama(5120, 40, 40, 40, 13824, 32000, pretraining_tp=1),
    "Llama3_8B": llama(4096, 32, 32, 8, 14336, 128256, rope_theta=500000.0),
    "Llama3_1_8B": llama(4096, 32, 32, 8, 14336, 128256, rope_theta=500000.0, rope_scaling=llama31(8.0)),
    "Llama3_2_1B": llama(2048, 16, 32, 8, 8192, 128256, rope_theta=500000.0, rope_scaling=llama31(32.0),
                         tie_word_embeddings=True, head_dim=64),
    "Llama3_2_3B": llama(3072, 28, 24, 8, 8192, 128256, rope_theta=500000.0, rope_scaling=llama31(32.0),
                         tie_word_embeddings=True, head_dim=128),
    "Mistral_7B": {**llama(4096, 32, 32, 8, 14336, 32000), "model_type": "mistral", "sliding_window": 4096},
    "Phi3Mini_4K": {**llama(3072, 32, 32, 32, 8192, 32064), "model_type": "phi3", "sliding_window": 2047,
                    "original_max_position_embeddings": 4096},
    "Gemma_2B": gemma(2048, 18, 8, 1, 16384),
    "Gemma_7B": gemma(3072, 28, 16, 16, 24576),
    "Gemma3_270M": gemma3(640, 18, 2048),
    "Gemma3_1B": gemma3(1152, 26, 6912),
    "RecurrentGemma_2B": {
        "model_type": "recurrent_gemma", "hidden_size": 2560, "num_hidden_layers": 26, "num_attention_heads": 10,
        "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 15360, "lru_width": 2560, "conv1d_width": 4,
        "attention_window_size": 2048, "block_types": ["recurrent", "recurrent", "attention"], "vocab_size": 256000,
        "hidden_activation": "gelu_pytorch_tanh", "logits_soft_cap": 30.0, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "attention_bias": False, "w_init_variance_scale": 0.01},
    "PileMamba_130M": mamba(768, 24),
    "PileMamba_370M": mamba(1024, 48),
    "PileMamba_790M": mamba(1536, 48),
    "PileMamba_1_4B": mamba(2048, 48),
    "PileMamba_2_8B": mamba(2560, 64),
}


def parameters(config):
    made = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(made)
    model.tie_weights()
    return sum({id(p): p.numel() for p in model.parameters()}.values())


def main():
    table = {name: {"config": config, "parameters": parameters(config)} for name, config in MODELS.items()}
    file = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}", "models": table}
    path = pathlib.Path(__file__).resolve().parent.parent / "data" / "published.json"
    path.write_text(json.dumps(file, indent=1) + "\n")
    for name, row in table.items():
        print(f"{name:16} {row['parameters']:15,}")


if __name__ == "__main__":
    main()
