"""The training step of benchmarks/training.cpp in PyTorch, for torch_rows.py: a Samba of 20 M parameters on 4 sequences
of 512 tokens, AdamW with clipping. The model is compiled (torch.compile), in bf16 with autocast and float32 weights.

What was tried for each part is in docs/performance_log.md; the fastest is here. PyTorch has no selective scan: this one
goes through CHUNK tokens at a time in functions without loops, which its compiler makes one loop over channels of,
with the states in registers; the backward pass computes the states of a chunk anew. Attention as products and a
softmax is faster on these sizes than scaled_dot_product_attention."""
import json
import pathlib

import torch
import torch.nn.functional as F
from torch import library

D_MODEL, D_INNER, D_STATE, DT_RANK, N_HEADS, HEAD_DIM, N_BLOCKS, VOCABULARY = 384, 768, 16, 24, 6, 64, 4, 10240
SEQUENCES, LENGTH = 4, 512  # not longer than the window, so attention is causal only
CHUNK = 8
NORM_EPS = 1e-5


def compiled(function):
    return torch.compile(function, dynamic=False,
                         options={"max_fusion_size": 4096, "cpp.max_horizontal_fusion_size": 4096})


# The scan. Of a chunk: u, delta, y, and the gradient g of y are (sequences, CHUNK, D_INNER), B and C (sequences, CHUNK,
# D_STATE), A (D_STATE, D_INNER), a state and its gradient (sequences, D_STATE, D_INNER).


def advance(h, u, delta, A, B):
    """For each token the states after it, a list."""
    h = h.unbind(1)
    for t in range(CHUNK):
        step, x = delta[:, t], delta[:, t] * u[:, t]
        h = [torch.exp(step * A[n]) * h[n] + x * B[:, t, n, None] for n in range(D_STATE)]
        yield h


@compiled
def scan_chunk(h, u, delta, A, B, C):
    """y, and the state at the end."""
    ys = []
    for t, states in enumerate(advance(h, u, delta, A, B)):
        ys.append(sum(h * C[:, t, n, None] for n, h in enumerate(states)))
    return torch.stack(ys, 1), torch.stack(states, 1)


@compiled
def chunk_states(h, u, delta, A, B):
    """The states after every token, (sequences, CHUNK * D_STATE, D_INNER)."""
    return torch.stack([h for states in advance(h, u, delta, A, B) for h in states], 1)


@compiled
def scan_chunk_backward(dh, g, h, states, u, delta, A, B, C):
    """dh: the gradient of the state at the end. Returns that of the state h at the begin, those of u, delta, and, by
    sequence, A, and those of the states after every token."""
    before, dh = [*h.unbind(1), *states.unbind(1)], list(dh.unbind(1))
    du, ddelta, dA, dstates = [], [], [0] * D_STATE, []
    for t in reversed(range(CHUNK)):
        step, dx, dstep = delta[:, t], 0, 0  # x: what is added to the states, delta B u
        for n in range(D_STATE):
            dh[n] = dh[n] + g[:, t] * C[:, t, n, None]
        dstates = dh + dstates
        for n in range(D_STATE):
            dx = dx + dh[n] * B[:, t, n, None]
            dh[n] = dh[n] * torch.exp(step * A[n])
            exponent = dh[n] * before[t * D_STATE + n]
            dstep = dstep + exponent * A[n]
            dA[n] = dA[n] + exponent * step
        du.append(dx * step)
        ddelta.append(dstep + dx * u[:, t])
    return (torch.stack(dh, 1), torch.stack(du[::-1], 1), torch.stack(ddelta[::-1], 1), torch.stack(dA, 1),
            torch.stack(dstates, 1))


@compiled
def sums_over_channels(states, dstates, g, u, delta):
    """The gradients of B and C."""
    by_token = (-1, CHUNK, D_STATE, D_INNER)
    return ((dstates.view(by_token) * (delta * u)[:, :, None]).sum(-1), (states.view(by_token) * g[:, :, None]).sum(-1))


def chunks(*tensors):
    return list(zip(*(t.split(CHUNK, 1) for t in tensors)))


@library.custom_op("training::scan", mutates_args=())
def scan(u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
         C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """y of whole sequences, and the state at the begin of each chunk."""
    h, states, ys = u.new_zeros(len(u), D_STATE, D_INNER), [], []
    for u_, delta_, B_, C_ in chunks(u, delta, B, C):
        states.append(h)
        y, h = scan_chunk(h, u_, delta_, A, B_, C_)
        ys.append(y)
    return torch.cat(ys, 1), torch.stack(states)


@scan.register_fake
def _(u, delta, A, B, C):
    return torch.empty_like(u), u.new_empty(LENGTH // CHUNK, len(u), D_STATE, D_INNER)


@library.custom_op("training::scan_backward", mutates_args=())
def scan_backward(g: torch.Tensor, u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
                  C: torch.Tensor, begins: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor,
                                                                  torch.Tensor, torch.Tensor]:
    dh, dA, parts = torch.zeros_like(begins[0]), torch.zeros_like(begins[0]), []
    for h, (g_, u_, delta_, B_, C_) in reversed(list(zip(begins, chunks(g, u, delta, B, C)))):
        states = chunk_states(h, u_, delta_, A, B_)
        dh, du, ddelta, dA_, dstates = scan_chunk_backward(dh, g_, h, states, u_, delta_, A, B_, C_)
        dA += dA_
        parts.append((du, ddelta, *sums_over_channels(states, dstates, g_, u_, delta_)))
    du, ddelta, dB, dC = (torch.cat(part, 1) for part in zip(*reversed(parts)))
    return du, ddelta, dA.sum(0), dB, dC


@scan_backward.register_fake
def _(g, *tensors):
    return tuple(torch.empty_like(t) for t in tensors[:5])


scan.register_autograd(lambda ctx, g, _: scan_backward(g.contiguous(), *ctx.saved_tensors),
                       setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, output[1]))


# Products by oneDNN, which F.linear uses in bf16; in float it calls MKL, which is slower on some processors.


def onednn(x, w):
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


@library.custom_op("training::onednn_linear", mutates_args=())
def onednn_linear(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return onednn(x, w)


@onednn_linear.register_fake
def _(x, w):
    return x.new_empty(*x.shape[:-1], len(w))


@library.custom_op("training::onednn_linear_backward", mutates_args=())
def onednn_linear_backward(g: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    g = g.flatten(0, -2)
    return onednn(g, w.t()).view(x.shape), onednn(g.t(), x.flatten(0, -2).t())


@onednn_linear_backward.register_fake
def _(g, x, w):
    return torch.empty_like(x), torch.empty_like(w)


onednn_linear.register_autograd(lambda ctx, g: onednn_linear_backward(g.contiguous(), *ctx.saved_tensors),
                                setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


class Model:
    """Weights are float32 tensors by their name in the public Samba code."""

    def __init__(self, weights, linear):
        self.weights, self.linear = weights, linear
        angles = torch.outer(torch.arange(LENGTH), 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.cos, self.sin = angles.cos()[:, None], angles.sin()[:, None]
        self.mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)

    def mamba(self, prefix, x):
        def weight(name):
            return self.weights[prefix + name]

        x, z = self.linear(x, weight("in_proj.weight")).chunk(2, -1)
        padded, taps = F.pad(x, (0, 0, 3, 0)), weight("conv1d.weight")
        x = F.silu(sum(padded[:, i:i + LENGTH] * taps[:, 0, i] for i in range(4)) + weight("conv1d.bias"))
        r, B, C = self.linear(x, weight("x_proj.weight")).split([DT_RANK, D_STATE, D_STATE], -1)
        delta = F.softplus(self.linear(r.contiguous(), weight("dt_proj.weight")) + weight("dt_proj.bias"))
        x = x.float()
        y, _ = scan(x.contiguous(), delta.contiguous(), -torch.exp(weight("A_log")).t().contiguous(),
                    B.float().contiguous(), C.float().contiguous())
        return self.linear((y + weight("D") * x) * F.silu(z), weight("out_proj.weight"))

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        return torch.cat((a * self.cos - b * self.sin, b * self.cos + a * self.sin), -1)

    def attention(self, prefix, x):
        qkv = self.linear(x, self.weights[prefix + "attn.weight"]).unflatten(-1, (N_HEADS, 3, HEAD_DIM))
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(-2))
        q, k = (self.rotate(t.transpose(1, 2)).to(v.dtype).transpose(1, 2) for t in (q, k))
        scores = (q * HEAD_DIM ** -0.5) @ k.transpose(2, 3)
        mixed = (scores.float() + self.mask).softmax(-1).to(v.dtype) @ v
        return self.linear(mixed.transpose(1, 2).flatten(2), self.weights[prefix + "proj.weight"])

    def mlp(self, prefix, x):
        w1, w2, w3 = (self.weights[f"{prefix}swiglu.w{i}.weight"] for i in (1, 2, 3))
        return self.linear(F.silu(self.linear(x, w1)) * self.linear(x, w2), w3)

    def norm(self, name, x):
        return F.rms_norm(x, (D_MODEL,), self.weights[name], NORM_EPS)

    def loss(self, tokens, targets):
        embedding = self.weights["transformer.wte.weight"]
        x = F.embedding(tokens, embedding)
        for i in range(2 * N_BLOCKS):
            block = f"transformer.h.{i}."
            mixer = self.attention if i % 2 else self.mamba
            x = x + mixer(block + "attn.", self.norm(block + "norm_1.weight", x))
            x = x + self.mlp(block + "mlp.", self.norm(block + "norm_2.weight", x))
        logits = self.linear(self.norm("transformer.ln_f.weight", x), embedding)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def read_weights(path):
    """The tensors of a .safetensors file of float32."""
    data = bytearray(pathlib.Path(path).read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    weights = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            flat = torch.frombuffer(data, dtype=torch.float32, offset=begin + first, count=(last - first) // 4)
            weights[name] = flat.view(entry["shape"]).clone().requires_grad_()
    return weights


def training_step(type, weights_path, linear=F.linear):
    """The row: a step from the weights in the file, and the loss after three of them."""
    weights = read_weights(weights_path)
    model = Model(weights, linear)
    loss_of = torch.compile(model.loss, dynamic=False)
    groups = [{"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": 0.1},
              {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True)
    ids = torch.arange(SEQUENCES * LENGTH + 1) * 7919 % VOCABULARY
    tokens, targets = ids[:-1].view(SEQUENCES, LENGTH), ids[1:].view(SEQUENCES, LENGTH)

    def step(_):
        with torch.autocast("cpu", torch.bfloat16, enabled=type == torch.bfloat16):
            loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    losses = [step(0) for _ in range(4)]
    matrices = sum(w.numel() for name, w in weights.items() if w.dim() == 2 and not name.endswith("A_log"))
    attention = N_BLOCKS * SEQUENCES * 4 * D_MODEL * LENGTH * (LENGTH + 1) // 2
    parameters = sum(w.numel() for w in weights.values())
    # Read: weights, gradients, and the means of both kinds by the optimiser; written: all of these.
    return {"run": step, "inference": False, "loss": losses[3], "bytes": 9 * 4 * parameters,
            "flops": 6 * matrices * SEQUENCES * LENGTH + 3 * attention}
