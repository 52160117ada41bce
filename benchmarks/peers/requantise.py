#!/usr/bin/env python3
"""Writes the weights of a GGUF file in another type (PyPI: gguf, numpy); the rest of the file is copied.

Usage: requantise.py SOURCE bf16|q8_0|q4_0 FILE
Matrices get the numbers of SOURCE, rounded to the type; with q4_0 the embedding, and the head if it is another, is in
q8_0, as samba has them in int8. Vectors stay in float.
Example: requantise.py build/models/SmolLM2-135M-Instruct.Q4_1.gguf bf16 smollm2-bf16.gguf
"""
import os
import sys

import gguf
from random_gguf import TYPES, matrix_type

FILE_TYPES = {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
              "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}


def main(source, type_name, path):
    reader = gguf.GGUFReader(source)
    partial = path + ".partial"
    writer = gguf.GGUFWriter(partial, reader.fields["general.architecture"].contents())
    writer.add_file_type(FILE_TYPES[type_name])
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if is_array else None)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, values)
        else:
            kind = matrix_type(tensor.name, type_name)
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, path)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[2] not in FILE_TYPES:
        sys.exit(__doc__)
    main(*sys.argv[1:])
