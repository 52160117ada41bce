"""llama.cpp's side of benchmarks/peers/published.py: loads a GGUF file, reads a prompt as one batch, and decodes some
of its tokens one by one, on the processor, by the C interface of llama.cpp in PyPI's xllamacpp. Prints JSON as
benchmarks/published.cpp does.

python3 llama_rows.py MODEL.gguf --ids 5,6,7,8 --short-prompt 1 --decode 3 --threads 2"""
import argparse
import ctypes
import importlib.util
import json
import pathlib
import sys
import time
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_uint32, c_uint64, c_void_p

# Python itself and its packages are not counted as memory, so this imports nothing large.


class Parameters(ctypes.Structure):
    """A struct that the interface passes by value, with room for more than it has. The first three numbers of
    llama_context_params are set here, and checked in the context that is made."""
    _fields_ = [("n_ctx", c_uint32), ("n_batch", c_uint32), ("n_ubatch", c_uint32), ("others", c_uint64 * 128)]


FUNCTIONS = {
    "llama_backend_init": (None, []),
    "llama_print_system_info": (c_char_p, []),
    "llama_model_default_params": (Parameters, []),
    "llama_context_default_params": (Parameters, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, Parameters]),
    "llama_model_size": (c_uint64, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, Parameters]),
    "llama_n_ctx": (c_uint32, [c_void_p]),
    "llama_n_batch": (c_uint32, [c_void_p]),
    "llama_n_ubatch": (c_uint32, [c_void_p]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_batch_get_one": (Parameters, [POINTER(c_int32), c_int32]),
    "llama_decode": (c_int32, [c_void_p, Parameters]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_sampler_init_greedy": (c_void_p, []),
    "llama_sampler_sample": (c_int32, [c_void_p, c_void_p, c_int32]),
}


def llama_library():
    package = importlib.util.find_spec("xllamacpp")
    if package is None:
        sys.exit(f"{sys.executable} has no xllamacpp: install it with pip.")
    folder = pathlib.Path(package.origin).parent
    path = next(folder.glob("xllamacpp*.so"), None)
    if path is None:
        sys.exit(f"{folder} has no library xllamacpp*.so.")
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            sys.exit(f"{path} has no function {name}: this needs xllamacpp 2026.10.")
        function.restype, function.argtypes = result, arguments
    return library


def memory(field):
    """A field of /proc/self/status, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field + ":"))


class Model:
    def __init__(self, llama, path, positions, batch, threads):
        self.llama = llama
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}.")
        parameters = llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = positions, batch, batch
        self.context = llama.llama_init_from_model(self.model, parameters)
        if not self.context:
            sys.exit(f"llama.cpp cannot make a context of {positions} positions for {path}.")
        found = llama.llama_n_batch(self.context), llama.llama_n_ubatch(self.context)
        if found != (batch, batch) or llama.llama_n_ctx(self.context) < positions:
            sys.exit(f"llama.cpp: expected batches of {batch} tokens in a context of at least {positions}, found "
                     f"{found[0]}, {found[1]} and {llama.llama_n_ctx(self.context)}: llama_context_params has changed.")
        llama.llama_set_n_threads(self.context, threads, threads)

    def clear(self):
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), False)

    def read(self, ids):
        """Continues with these tokens, until the logits after the last one are there."""
        tokens = (c_int32 * len(ids))(*ids)
        if self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(tokens, len(ids))) != 0:
            sys.exit(f"llama.cpp cannot read {len(ids)} tokens.")
        self.llama.llama_get_logits_ith(self.context, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--ids", required=True, help="the tokens of the prompt, with commas between them")
    parser.add_argument("--short-prompt", type=int, default=16, help="how many of them come before decoding")
    parser.add_argument("--decode", type=int, default=64, help="tokens")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    ids = [int(word) for word in options.ids.split(",")]
    if len(ids) < options.short_prompt + options.decode:
        sys.exit(f"--ids: expected at least {options.short_prompt + options.decode} tokens, found {len(ids)}.")
    if not options.model.exists():
        sys.exit(f"{options.model} does not exist.")
    llama = llama_library()
    greedy = llama.llama_sampler_init_greedy()

    before = memory("VmRSS")
    start = time.perf_counter()
    llama.llama_backend_init()
    model = Model(llama, options.model, len(ids) + options.decode, len(ids), options.threads)
    model.read([0])
    load = time.perf_counter() - start

    prefill, decode, likely = [], [], []
    for i in range(options.repetitions + 1):  # the first one warms up
        model.clear()
        start = time.perf_counter()
        model.read(ids)
        prefill.append(time.perf_counter() - start)
    first, last = options.short_prompt, options.short_prompt + options.decode
    for i in range(options.repetitions + 1):
        model.clear()
        model.read(ids[:first])
        start = time.perf_counter()
        for id in ids[first:last]:
            model.read([id])
            if i == 0:
                likely.append(llama.llama_sampler_sample(greedy, model.context, -1))
        decode.append(time.perf_counter() - start)
    json.dump({"target": llama.llama_print_system_info().decode(), "load_seconds": load,
               "prefill_seconds": prefill[1:], "decode_seconds": decode[1:], "likely": likely,
               "peak_bytes": memory("VmHWM") - before, "weight_bytes": llama.llama_model_size(model.model)}, sys.stdout)


if __name__ == "__main__":
    main()
