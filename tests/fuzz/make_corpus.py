#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_safetensors: sound files, and some near each rule.

usage: make_corpus.py [FOLDER]    (default: corpus/ beside this script)
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


def main():
    default = pathlib.Path(__file__).resolve().parent / "corpus"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, data in seeds():
        (folder / name).write_bytes(data)
        count += 1
    print(f"{count} files in {folder}")


if __name__ == "__main__":
    main()
