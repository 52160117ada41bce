#!/usr/bin/env python3
"""Writes the data of test_gguf: a file with tensors of every type that is read, and their values by the package gguf.

usage: make_data.py [FOLDER]    (default: ../data/gguf; needs numpy and gguf, pip install gguf==0.19.0)

  types.gguf            written by gguf.GGUFWriter: metadata of every type, and per tensor type random blocks
  expected.safetensors  the tensors' values as F32, by gguf.quants.dequantize
  types.txt             number, name, elements and bytes of a block of every type, by gguf.constants
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value

# Where the halves are in a block; every other byte may be anything.
HALVES = {
    Type.Q8_0: [0],
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}
ROWS, COLUMNS = 3, 512


def halves(random, n):
    """Random finite halves of all exponents and both signs, subnormal ones among them."""
    exponents = random.integers(0, 31, n)
    return (random.integers(0, 2, n) << 15 | exponents << 10 | random.integers(0, 1024, n)).astype(np.uint16)


def blocks(random, kind):
    """(ROWS, bytes of a row)"""
    size, width = gguf.GGML_QUANT_SIZES[kind]
    n = ROWS * COLUMNS // size
    data = random.integers(0, 256, (n, width), dtype=np.uint8)
    for at in HALVES[kind]:
        data[:, at : at + 2] = halves(random, n).view(np.uint8).reshape(n, 2)
    return data.reshape(ROWS, -1)


def tensors(random):
    """Name, type and data (of quantised types their bytes)."""
    for kind in HALVES:
        yield kind.name.lower(), kind, blocks(random, kind)
    half = halves(random, (2, 3, 4, 5))
    half[0, 0, 0, :4] = [0x7C00, 0xFC00, 0x0001, 0x8000]  # infinities, the smallest number, minus zero
    yield "f16", Type.F16, half.view(np.float16)
    yield "bf16", Type.BF16, random.integers(0, 65536, (4, 6), dtype=np.uint16).view(np.uint8)
    yield "f32", Type.F32, random.integers(0, 2**32, (2, 3, 5), dtype=np.uint32).view(np.float32)
    yield "vector", Type.F32, random.standard_normal(7, dtype=np.float32)


def add_metadata(writer):
    writer.add_key_value("test.uint8", 200, Value.UINT8)
    writer.add_key_value("test.int8", -100, Value.INT8)
    writer.add_key_value("test.uint16", 60000, Value.UINT16)
    writer.add_key_value("test.int16", -30000, Value.INT16)
    writer.add_key_value("test.uint32", 4000000000, Value.UINT32)
    writer.add_key_value("test.int32", -2000000000, Value.INT32)
    writer.add_key_value("test.uint64", 2**63 - 1, Value.UINT64)
    writer.add_key_value("test.too_large", 2**63, Value.UINT64)
    writer.add_key_value("test.int64", -(2**63), Value.INT64)
    writer.add_key_value("test.float32", 0.1, Value.FLOAT32)
    writer.add_key_value("test.float64", 0.1, Value.FLOAT64)
    writer.add_key_value("test.true", True, Value.BOOL)
    writer.add_key_value("test.false", False, Value.BOOL)
    writer.add_key_value("test.string", "\u00e9\n\U0001f600", Value.STRING)
    writer.add_key_value("test.empty", "", Value.STRING)
    writer.add_array("test.strings", ["<s>", "", "\u2581a"])
    writer.add_array("test.floats", [-1.5, 0.1, 2.0])
    writer.add_array("test.bools", [True, False, True])
    writer.add_array("test.ints", [1, -2, 3])
    writer.add_key_value("test.bytes", bytes([0, 127, 255]), Value.ARRAY, sub_type=Value.UINT8)
    writer.add_quantization_version(2)


def write_safetensors(path, values):
    header, at = {}, 0
    for name, value in values.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(value.tobytes() for value in values.values()))


def main():
    default = pathlib.Path(__file__).resolve().parents[1] / "data" / "gguf"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20261126)
    writer = gguf.GGUFWriter(folder / "types.gguf", "test")
    add_metadata(writer)
    expected = {}
    for name, kind, data in tensors(random):
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[name] = np.ascontiguousarray(gguf.quants.dequantize(data, kind), np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_safetensors(folder / "expected.safetensors", expected)
    sizes = sorted(gguf.GGML_QUANT_SIZES.items())
    text = "".join(f"{kind.value} {kind.name} {block} {width}\n" for kind, (block, width) in sizes)
    (folder / "types.txt").write_text(text)


if __name__ == "__main__":
    main()
