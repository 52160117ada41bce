#!/usr/bin/env python3
"""Writes the seeds of fuzz_safetensors (corpus/) and fuzz_gguf (corpus_gguf/): sound files, and some near each rule.

usage: make_corpus.py [FOLDER]    (default: the folder of this script)
"""

import json
import pathlib
import struct
import sys


def safetensors(header, data=0):
    """A file with this header (text or an object) and `data` bytes behind it."""
    text = header if isinstance(header, str) else json.dumps(header)
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(i % 251 for i in range(data))


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def seeds():
    yield "empty_header", safetensors("{}")
    yield "one_float", safetensors({"a": tensor("F32", [1], 0, 4)}, 4)
    yield "scalar", safetensors({"a": tensor("F64", [], 0, 8)}, 8)
    yield "padded", safetensors(json.dumps({"a": tensor("I32", [2], 0, 8)}) + "    ", 8)
    yield "metadata_null", safetensors({"__metadata__": None, "a": tensor("F4", [3, 4], 0, 6)}, 6)
    yield "metadata", safetensors(
        {"__metadata__": {"format": "pt", "\u00e9": "\n"}, "a": tensor("U8", [3], 0, 3)}, 3
    )
    sizes = {
        "F64": 8,
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U64": 8,
        "U32": 4,
        "U16": 2,
        "U8": 1,
        "BOOL": 1,
    }
    header, at = {}, 0
    for dtype, size in sizes.items():
        header[dtype.lower()] = tensor(dtype, [1, 2], at, at + 2 * size)
        at += 2 * size
    yield "every_dtype", safetensors(header, at)
    yield "misaligned", safetensors(
        {"a": tensor("U8", [], 0, 1), "b": tensor("BF16", [2], 1, 5)}, 5
    )
    yield "no_elements", safetensors(
        {"a": tensor("F32", [0, 7], 0, 0), "b": tensor("F32", [1], 0, 4)}, 4
    )
    yield "escapes", safetensors(
        '{"\\u0041\\ud83d\\ude00\\n\\\\":%s}' % json.dumps(tensor("I8", [1], 0, 1)), 1
    )
    yield "overlap", safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [1], 4, 8)}, 8)
    yield "hole", safetensors({"a": tensor("F32", [1], 4, 8)}, 8)
    yield "overflow", safetensors({"a": tensor("F32", [2**32, 2**32], 0, 0)})
    yield "large_number", safetensors({"a": tensor("F32", [2**63 - 1], 0, 2**63 - 1)})
    yield "duplicate", safetensors('{"a":{},"a":{}}')
    yield "truncated", safetensors({"a": tensor("F32", [1], 0, 4)}, 4)[:20]
    yield "header_only", json.dumps({"a": tensor("F32", [0], 0, 0)}).encode()
    yield "index", json.dumps(
        {
            "metadata": {"total_size": 4, "x": [1.5e-3, None, True]},
            "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"},
        }
    ).encode()
    yield "index_path", json.dumps({"weight_map": {"a": "../a"}}).encode()
    yield "nested", b"[" * 40 + b"]" * 40
    yield "numbers", b"[0,-0,1.5,-2e+10,3E-1,123456789012345678901234567890]"


def u32(x):
    return struct.pack("<I", x)


def u64(x):
    return struct.pack("<Q", x)


def text(x):
    raw = x.encode()
    return u64(len(raw)) + raw


def array(kind, values):
    return u32(kind) + u64(len(values)) + b"".join(values)


def pad(raw, alignment=32):
    return raw + bytes(-len(raw) % alignment)


def gguf(entries=(), tensors=(), alignment=32, version=3):
    """A file with these entries (key, type, value) and tensors (name, type, shape, bytes)."""
    raw = b"GGUF" + u32(version) + u64(len(tensors)) + u64(len(entries))
    for key, kind, value in entries:
        raw += text(key) + u32(kind) + value
    data = b""
    for name, kind, shape, size in tensors:
        data = pad(data, alignment)
        raw += text(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(kind) + u64(len(data))
        data += bytes(i % 251 for i in range(size))
    return (pad(raw, alignment) if tensors else raw) + data


def gguf_seeds():
    yield "empty", gguf()
    yield "version_2", gguf(version=2)
    yield "version_1", gguf(version=1)
    yield "big_endian", gguf(version=0x03000000)
    scalars = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    yield "scalars", gguf([(f"a.{k}", k, b"\x01" * n) for k, n in scalars.items()] + [("a.8", 8, text("\u00e9"))])
    yield "arrays", gguf([(f"a.{k}", 9, array(k, [b"\x01" * n] * 2)) for k, n in scalars.items()])
    yield "tokens", gguf([("tokens", 9, array(8, [text("a"), text(""), text("\u2581b")])), ("none", 9, array(8, []))])
    yield "nested", gguf([("a", 9, array(9, [array(4, [u32(1)])]))])
    yield "too_large", gguf([("a", 10, u64(2**63)), ("b", 9, array(10, [u64(2**64 - 1)]))])
    yield "many", gguf([("a", 9, u32(4) + u64(2**62) + u32(0))])
    yield "long", gguf([("a", 8, u64(2**64 - 1))])
    yield "bool", gguf([("a", 7, b"\x02")])
    yield "utf8", gguf([("a", 8, u64(2) + b"\xc0\x80")])
    yield "same_key", gguf([("a", 0, b"a"), ("a", 0, b"b")])
    yield "alignment", gguf([("general.alignment", 4, u32(64))], [("a", 0, [1], 4), ("b", 0, [1], 4)], 64)
    yield "alignment_24", gguf([("general.alignment", 4, u32(24))])
    small = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 30: (1, 2)}
    large = {12: (256, 144), 13: (256, 176), 14: (256, 210)}
    for name, kinds in ("small", small), ("large", large):
        tensors = [(f"t{k}", k, [block, 2], 2 * size) for k, (block, size) in kinds.items()]
        yield f"{name}_blocks", gguf([("general.quantization_version", 4, u32(2))], tensors)
    yield "stored", gguf(tensors=[("a", 26, [2, 3], 24), ("b", 41, [128], 18), ("c", 10, [256], 84)])
    yield "shapes", gguf(tensors=[("a", 0, [1], 4), ("b", 0, [1, 2], 8), ("c", 0, [1, 1, 2], 8), ("d", 0, [2, 1, 1, 1], 8)])
    yield "five_extents", gguf(tensors=[("a", 0, [1, 1, 1, 1, 1], 4)])
    yield "no_elements", gguf(tensors=[("a", 0, [0, 2], 0)])
    yield "overflow", gguf(tensors=[("a", 0, [2**32, 2**32], 4)])
    yield "part_of_block", gguf(tensors=[("a", 2, [16], 18)])
    yield "unknown_type", gguf(tensors=[("a", 4, [1], 4)])
    yield "same_name", gguf(tensors=[("a", 0, [1], 4), ("a", 0, [1], 4)])
    yield "overlap", gguf(tensors=[("a", 0, [9], 4), ("b", 0, [1], 4)])
    yield "hole", gguf(tensors=[("a", 0, [1], 36), ("b", 0, [1], 4)])
    yield "rest", gguf(tensors=[("a", 0, [1], 64)])
    yield "truncated", gguf(tensors=[("a", 0, [2], 7)])
    yield "quantization_version", gguf([("general.quantization_version", 4, u32(1))], [("a", 2, [32], 18)])


def main():
    here = pathlib.Path(__file__).resolve().parent
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    for folder, files in (root / "corpus", seeds()), (root / "corpus_gguf", gguf_seeds()):
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        for name, data in files:
            (folder / name).write_bytes(data)
            count += 1
        print(f"{count} files in {folder}")


if __name__ == "__main__":
    main()
