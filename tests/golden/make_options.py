#!/usr/bin/env python3
"""Makes the golden cases of options of attention and models, in ../data/golden, with transformers' own modules in float64:

gemma2-tiny   capped scores and logits, scale of the scores, sandwich norms, every other layer with a window
gemma3-tiny   norms of queries and keys, two rotary bases, every sixth layer without a window
gemma3-linear-tiny  the same with linear scaling of positions in layers without a window, as above 1B
qwen3-tiny    norms of queries and keys

layers/attention_sinks       gpt-oss: sinks, biases            layers/attention_gate   Qwen 3 Next: gate, partial rotation
layers/attention_token_norm  OLMo 2: norms over all heads      layers/attention_cap    Gemma 2: capped scores, scale

As in the other cases, model weights are float32 and logits float64. Needs torch, transformers, safetensors and numpy.
Usage: make_options.py"""
import json
import pathlib
import zlib

import numpy
import torch
import transformers
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "data" / "golden"


class Wide(TorchFunctionMode):
    """Answers every request for float32 with float64: the modules compute parts in float32, which here would be less."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            return args[0].double()
        widen = lambda x: torch.float64 if x is torch.float32 else x
        return function(*[widen(x) for x in args], **{k: widen(x) for k, x in (kwargs or {}).items()})


def random(key, shape, scale=1.0):
    numbers = numpy.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    return torch.from_numpy(numpy.asarray(numbers * scale)).float()


def fill(module, name):
    """Random weights, of which none has its default."""
    for key, p in module.named_parameters():
        if "norm" in key:
            value = random(name + key, p.shape, 0.3) + (1 if p.data.flatten()[0] == 1 else 0)
        elif p.dim() == 1:
            value = random(name + key, p.shape, 0.5)
        else:
            value = random(name + key, p.shape, 1.3 / p.shape[-1] ** 0.5)
        p.data.copy_(value)


def visible(seq_len, window):
    i, j = torch.arange(seq_len)[:, None], torch.arange(seq_len)[None, :]
    return (j <= i) & (i - j < window)


def model_case(name, seq_len=40, **options):
    config = transformers.AutoConfig.for_model(
        vocab_size=128, hidden_size=48, intermediate_size=112, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        **options)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config)
    fill(model, name)
    model.tie_weights()
    ids = torch.from_numpy(numpy.random.default_rng(zlib.crc32(name.encode())).integers(0, 128, (2, seq_len)))
    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: p.detach().clone() for key, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_diff_dict() | {"model_type": config.model_type}, indent=2,
                                                   default=str) + "\n")
    torch.set_default_dtype(torch.float64)
    with Wide(), torch.no_grad():
        wide = transformers.AutoModelForCausalLM.from_config(config).double().eval()
        wide.load_state_dict({k: v.double() for k, v in weights.items()}, strict=False)
        wide.tie_weights()
        logits = wide(input_ids=ids, use_cache=False).logits
    torch.set_default_dtype(torch.float32)
    assert logits.dtype == torch.float64
    save_file({"input_ids": ids.to(torch.int32), "logits": logits.contiguous()}, folder / "expected.safetensors")
    print(f"{name}: logits of size {logits.std():.2f}")


BATCH, SEQ_LEN, D_MODEL, HEADS, KV_HEADS, HEAD_DIM, WINDOW = 2, 19, 24, 6, 2, 4, 5


def rotary(channels):
    frequency = 10000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.arange(SEQ_LEN, dtype=torch.float64)[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)[None].expand(BATCH, -1, -1)
    return angle.cos(), angle.sin()


def fused(q, k, v):
    """Rows of queries, keys and values, grouped by key/value head."""
    q, k, v = (x.reshape(KV_HEADS, -1, *x.shape[1:]) for x in (q, k, v))
    return torch.cat([q, k, v], dim=1).reshape(-1, *q.shape[2:])


def layer_case(name, attention, half_tables=False):
    torch.set_default_dtype(torch.float64)
    attention = attention.double()
    fill(attention, name)
    for p in attention.parameters():
        p.data = p.data.double()
    x = random(name + "x", (BATCH, SEQ_LEN, D_MODEL)).double().requires_grad_()
    up = random(name + "up", (BATCH, SEQ_LEN, D_MODEL)).double()
    mask = torch.where(visible(SEQ_LEN, WINDOW), 0.0, -1e300)[None, None].expand(BATCH, 1, -1, -1)
    cos, sin = rotary(getattr(attention, "test_rotary", HEAD_DIM))
    if half_tables:
        cos, sin = cos[..., : cos.shape[-1] // 2], sin[..., : sin.shape[-1] // 2]
    with Wide():
        y = attention(hidden_states=x, position_embeddings=(cos, sin), attention_mask=mask)[0]
        y.backward(up)
    torch.set_default_dtype(torch.float32)

    def named(of):
        q = of(attention.q_proj.weight)
        all = {}
        if hasattr(attention, "test_gate"):  # each head's rows: its query, then its gate
            q = q.reshape(HEADS, 2, HEAD_DIM, D_MODEL)
            all["gate_proj.weight"] = q[:, 1].reshape(-1, D_MODEL)
            q = q[:, 0].reshape(-1, D_MODEL)
        all["attn.weight"] = fused(q, of(attention.k_proj.weight), of(attention.v_proj.weight))
        all["proj.weight"] = of(attention.o_proj.weight)
        if attention.k_proj.bias is not None:
            all["attn.bias"] = fused(of(attention.q_proj.bias), of(attention.k_proj.bias), of(attention.v_proj.bias))
            all["proj.bias"] = of(attention.o_proj.bias)
        if hasattr(attention, "q_norm"):
            all |= {"q_norm.weight": of(attention.q_norm.weight), "k_norm.weight": of(attention.k_norm.weight)}
        if hasattr(attention, "sinks"):
            all["sinks"] = of(attention.sinks)
        return all

    tensors = {"in.x": x, "out.y": y, "up.y": up, "grad.in.x": x.grad}
    tensors |= {"w." + key: w for key, w in named(lambda p: p.data).items()}
    tensors |= {"grad.w." + key: g for key, g in named(lambda p: p.grad).items()}
    save_file({key: t.detach().clone().contiguous() for key, t in tensors.items()},
              GOLDEN / "layers" / f"{name}.safetensors")
    print(f"{name}: outputs of size {y.std():.2f}")


def main():
    transformers.logging.set_verbosity_error()
    model_case("gemma2-tiny", model_type="gemma2", num_hidden_layers=4, sliding_window=16, query_pre_attn_scalar=24,
               attn_logit_softcapping=1.5, final_logit_softcapping=3.0)
    model_case("gemma3-tiny", model_type="gemma3_text", num_hidden_layers=8, sliding_window=16, query_pre_attn_scalar=16)
    model_case("gemma3-linear-tiny", model_type="gemma3_text", num_hidden_layers=2, sliding_window=16,
               query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"],
               rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                                "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0}})
    model_case("qwen3-tiny", model_type="qwen3", num_hidden_layers=2, tie_word_embeddings=True)

    sizes = dict(hidden_size=D_MODEL, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM,
                 num_hidden_layers=2, rms_norm_eps=1e-5, attn_implementation="eager")
    from transformers.models.gemma2 import modeling_gemma2 as gemma2
    from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
    from transformers.models.olmo2 import modeling_olmo2 as olmo2
    from transformers.models.qwen3_next import modeling_qwen3_next as qwen3_next
    layer_case("attention_sinks", gpt_oss.GptOssAttention(transformers.GptOssConfig(**sizes), 0), half_tables=True)
    layer_case("attention_token_norm", olmo2.Olmo2Attention(transformers.Olmo2Config(**sizes), 0))
    gated = qwen3_next.Qwen3NextAttention(transformers.Qwen3NextConfig(**sizes), 0)
    gated.test_rotary, gated.test_gate = 2, True
    layer_case("attention_gate", gated)
    layer_case("attention_cap", gemma2.Gemma2Attention(
        transformers.Gemma2Config(**sizes, query_pre_attn_scalar=9, attn_logit_softcapping=1.5), 0))


if __name__ == "__main__":
    main()
