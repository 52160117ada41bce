"""PyTorch's rows for benchmarks/peers/run.py: times operations and a Llama-438M on the processor, eagerly, with random
weights, and training steps (torch_training.py), and prints a JSON object: the version, and for each row its times in
seconds, bytes, FLOPs and tokens, of training the loss after three steps.

python3 torch_rows.py --row linear_512/f32 --row decode/bf16 --threads 2"""
import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F

from torch_training import onednn_linear, training_step

D_MODEL, D_FF, N_HEADS, HEAD_DIM, N_LAYERS, VOCABULARY = 1536, 4096, 12, 128, 12, 32000
SEQUENCE, WINDOW = 4096, 2048
PROMPT, STEPS = 512, 16
COLD = 2 ** 28  # bytes that no cache holds
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def random(type, *shape):
    return torch.empty(shape, dtype=type).uniform_(-0.05, 0.05)


def n_bytes(*tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def copies(make, size):
    """So many of make() that together they exceed the caches."""
    return [make() for _ in range(-(-COLD // size))]


def linear(type, rows):
    weights = copies(lambda: random(type, D_FF, D_MODEL), D_FF * D_MODEL * type.itemsize)
    x = random(type, rows, D_MODEL)
    return {"run": lambda call: F.linear(x, weights[call % len(weights)]),
            "bytes": n_bytes(weights[0], x) + rows * D_FF * type.itemsize, "flops": 2 * rows * D_MODEL * D_FF}


def swiglu(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def swiglu_weights(type):
    return random(type, D_FF, D_MODEL), random(type, D_FF, D_MODEL), random(type, D_MODEL, D_FF)


def swiglu_row(type, rows):
    weights = copies(lambda: swiglu_weights(type), 3 * D_FF * D_MODEL * type.itemsize)
    x = random(type, rows, D_MODEL)
    return {"run": lambda call: swiglu(x, *weights[call % len(weights)]), "bytes": n_bytes(*weights[0], x, x),
            "flops": 6 * rows * D_MODEL * D_FF}


def window_attention(type):
    """Queries see themselves and the WINDOW - 1 tokens before; only those products count as FLOPs."""
    q, k, v = (random(type, 1, N_HEADS, SEQUENCE, HEAD_DIM) for _ in range(3))
    distance = torch.arange(SEQUENCE)[:, None] - torch.arange(SEQUENCE)[None, :]
    mask = (distance >= 0) & (distance < WINDOW)
    return {"run": lambda call: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            "bytes": n_bytes(q, k, v, q), "flops": 4 * N_HEADS * HEAD_DIM * int(mask.sum())}


class Llama:
    """12 x [attention, SwiGLU], RMSNorm, rotary embedding, head not tied; keys and values in tensors made once."""

    def __init__(self, type, capacity):
        self.embedding, self.head = random(type, VOCABULARY, D_MODEL), random(type, VOCABULARY, D_MODEL)
        self.norm = torch.ones(D_MODEL, dtype=type)
        self.layers = [{"norm1": torch.ones(D_MODEL, dtype=type), "norm2": torch.ones(D_MODEL, dtype=type),
                        "qkv": random(type, 3 * D_MODEL, D_MODEL), "out": random(type, D_MODEL, D_MODEL),
                        "mlp": swiglu_weights(type),
                        "keys": torch.zeros(1, N_HEADS, capacity, HEAD_DIM, dtype=type),
                        "values": torch.zeros(1, N_HEADS, capacity, HEAD_DIM, dtype=type)} for _ in range(N_LAYERS)]
        angles = torch.outer(torch.arange(capacity), 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.cos, self.sin = angles.cos().to(type), angles.sin().to(type)
        layer = self.layers[0]
        self.layer_bytes = N_LAYERS * n_bytes(layer["norm1"], layer["norm2"], layer["qkv"], layer["out"], *layer["mlp"])
        self.token_bytes = self.layer_bytes + n_bytes(self.norm, self.head)  # what every token reads
        self.kv_bytes = N_LAYERS * 2 * D_MODEL * type.itemsize               # per position
        self.layer_flops = N_LAYERS * 2 * (4 * D_MODEL * D_MODEL + 3 * D_MODEL * D_FF)
        self.head_flops = 2 * D_MODEL * VOCABULARY

    def attention_flops(self, position, n):
        return N_LAYERS * 4 * D_MODEL * sum(range(position + 1, position + n + 1))

    def rotate(self, x, position):
        """x: (1, heads, tokens, HEAD_DIM), the token at [0] at that position."""
        cos, sin = (t[position:position + x.shape[2]] for t in (self.cos, self.sin))
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def attention(self, layer, x, position):
        n = x.shape[0]
        q, k, v = F.linear(x, layer["qkv"]).view(1, n, 3, N_HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4)
        layer["keys"][:, :, position:position + n] = self.rotate(k, position)
        layer["values"][:, :, position:position + n] = v
        keys, values = layer["keys"][:, :, :position + n], layer["values"][:, :, :position + n]
        mixed = F.scaled_dot_product_attention(self.rotate(q, position), keys, values, is_causal=n > 1)
        return F.linear(mixed.transpose(1, 2).reshape(n, D_MODEL), layer["out"])

    def forward(self, tokens, position):
        """The logits of the last of the tokens: a prompt at position 0, or one token anywhere."""
        x = F.embedding(tokens, self.embedding)
        for layer in self.layers:
            x = x + self.attention(layer, F.rms_norm(x, (D_MODEL,), layer["norm1"]), position)
            x = x + swiglu(F.rms_norm(x, (D_MODEL,), layer["norm2"]), *layer["mlp"])
        return F.linear(F.rms_norm(x[-1:], (D_MODEL,), self.norm), self.head)


def prefill(type):
    model = Llama(type, PROMPT)
    tokens = torch.arange(PROMPT) * 7919 % VOCABULARY
    return {"run": lambda call: model.forward(tokens, 0), "bytes": model.token_bytes + PROMPT * model.kv_bytes,
            "flops": PROMPT * model.layer_flops + model.head_flops + model.attention_flops(0, PROMPT),
            "tokens": PROMPT}


def decode(type):
    """The mean of STEPS tokens from position 0 on."""
    model = Llama(type, PROMPT)
    tokens = torch.arange(STEPS) * 7919 % VOCABULARY

    def run(call):
        for i in range(STEPS):
            model.forward(tokens[i:i + 1], i)

    return {"run": run, "calls": STEPS, "bytes": model.token_bytes + STEPS // 2 * model.kv_bytes,
            "flops": model.layer_flops + model.head_flops + model.attention_flops(0, STEPS) // STEPS, "tokens": 1}


# Functions of the type and the file of weights.
ROWS = {"linear_512": lambda type, _: linear(type, 512), "linear_1": lambda type, _: linear(type, 1),
        "swiglu_512": lambda type, _: swiglu_row(type, 512), "attention": lambda type, _: window_attention(type),
        "prefill": lambda type, _: prefill(type), "decode": lambda type, _: decode(type),
        "training": training_step,
        "training_onednn": lambda type, weights: training_step(type, weights, onednn_linear)}


def measure(row, repetitions, min_time):
    """Seconds of one call, repeatedly, each the mean over min_time or one run."""
    run, calls = row["run"], 0
    begin = time.perf_counter()
    while calls < 2 or time.perf_counter() - begin < min_time:  # warm up
        run(calls)
        calls += 1
    per_run = (time.perf_counter() - begin) / calls
    n, times = max(1, round(min_time / per_run)), []
    for _ in range(repetitions):
        begin = time.perf_counter()
        for _ in range(n):
            run(calls)
            calls += 1
        times.append((time.perf_counter() - begin) / n / row.get("calls", 1))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--row", action="append", required=True, metavar="NAME/TYPE",
                        help=f"one of {', '.join(ROWS)}, with one of {', '.join(TYPES)}")
    parser.add_argument("--weights", metavar="FILE", help="of training: the initial ones, .safetensors of float32")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--min-time", type=float, default=0.2, help="seconds of a repetition")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    rows = []
    for name in options.row:
        operation, _, type = name.partition("/")
        if operation not in ROWS or type not in TYPES:
            sys.exit(f"There is no row {name}.")
        row = ROWS[operation](TYPES[type], options.weights)
        with torch.inference_mode(row.get("inference", True)):
            times = measure(row, options.repetitions, options.min_time)
        rows.append({"name": name, "times": times, "bytes": row["bytes"], "flops": row["flops"],
                     "tokens": row.get("tokens", 0), "loss": row.get("loss", 0.0)})
    json.dump({"version": torch.__version__, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
