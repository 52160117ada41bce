#!/usr/bin/env python3
"""Turns a training checkpoint of the public Samba code (.pth) into a safetensors file.

Needs PyTorch and safetensors:  pip install torch safetensors

IN is what torch.save wrote: {"model": state_dict, ...}, of which only the model is taken, or a bare
state dict. It is read with weights_only=True, so it cannot run code. Names lose the prefixes that
wrappers add (module., _forward_module., _orig_mod.). A head that equals the embedding is left out:
its absence says that the two are tied. OUT appears complete or not at all.

Example: scripts/convert_checkpoint.py iter-100000-ckpt.pth samba-421m/model.safetensors --dtype bfloat16
"""

import argparse
import errno
import os
import sys

PREFIXES = ("module.", "_forward_module.", "_orig_mod.")
EMBEDDING, HEAD = "transformer.wte.weight", "lm_head.weight"


def fail(message):
    sys.exit(f"convert_checkpoint: {message}")


def shown(names):
    """Up to eight of the names, for a message."""
    names = sorted(map(str, names))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def clean_name(name):
    """The name without the prefixes of wrappers, in whatever order they stand."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if name.startswith(prefix):
                name, stripped = name[len(prefix) :], True
    return name


def clean_names(state):
    """The state dict under clean names; a name that two entries would share is an error."""
    cleaned, origin = {}, {}
    for name, value in state.items():
        if not isinstance(name, str):
            fail(f"expected names as keys of the state dict, found {name!r}")
        clean = clean_name(name)
        if clean in cleaned:
            fail(f"{origin[clean]} and {name} would both be called {clean}")
        cleaned[clean], origin[clean] = value, name
    return cleaned


def load_state(torch, path):
    """The state dict in a file of torch.save."""

    def load(**options):
        return torch.load(path, map_location="cpu", weights_only=True, **options)

    try:
        try:
            content = load(mmap=True)  # optimiser states, twice the model, are then never read
        except (RuntimeError, TypeError):
            content = load()  # the older file format, or a PyTorch without mmap
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except Exception as error:  # unpickling of bytes that are no checkpoint can raise anything
        reason = str(error).strip() or type(error).__name__
        fail(f"{path}: cannot be read as a checkpoint of weights: {reason}")
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        found = type(content).__name__ + (" without entries" if content == {} else "")
        fail(f"{path}: expected a state dict, or one under the key 'model', found {found}")
    return content


def convert(torch, state, dtype):
    """Dense, contiguous tensors, none of which share memory, in the wanted dtype."""
    state = clean_names(state)
    others = [
        f"{name} ({type(value).__name__})"
        for name, value in state.items()
        if not torch.is_tensor(value)
    ]
    if others:
        fail(f"expected tensors only, found {shown(others)}")
    sparse = [
        name
        for name, tensor in state.items()
        if tensor.layout != torch.strided or tensor.is_quantized
    ]
    if sparse:
        fail(f"expected dense tensors, found others in {shown(sparse)}")
    if EMBEDDING in state and HEAD in state:
        head, embedding = state[HEAD], state[EMBEDDING]
        if head.dtype == embedding.dtype and torch.equal(head, embedding):
            del state[HEAD]

    tensors, storages = {}, set()
    for name, tensor in state.items():
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage()
        if (
            storage.data_ptr() in storages
            or storage.nbytes() != tensor.numel() * tensor.element_size()
        ):
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    return tensors


def sync(path, flags):
    """Waits until a file or folder is on the disk, where the file system can."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write(save_file, tensors, path):
    """Writes beside the file that `path` leads to, waits for the disk, and renames. A file that is
    replaced passes on its mode."""
    place = os.path.realpath(path)
    folder, name = os.path.split(os.fsencode(place))
    ending = b".tmp-%d" % os.getpid()
    temporary = os.fsdecode(os.path.join(folder, name[: 255 - len(ending)] + ending))
    try:
        save_file(tensors, temporary, metadata={"format": "pt"})
        sync(temporary, os.O_RDWR)
        umask = os.umask(0)
        os.umask(umask)
        # safetensors may leave it readable by its owner alone
        mode = os.stat(place).st_mode & 0o777 if os.path.exists(place) else 0o666 & ~umask
        os.chmod(temporary, mode)
        os.replace(temporary, place)
        sync(folder, os.O_RDONLY)
    except Exception as error:  # the writer has its own types for a full disk and the like
        fail(f"{path}: cannot write: {error}")
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN.pth")
    parser.add_argument("output", metavar="OUT.safetensors")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "keep"),
        default="keep",
        help="of the floating-point tensors in OUT (default: as they are)",
    )
    options = parser.parse_args(arguments)
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        fail(
            f"needs PyTorch and safetensors ({error}); "
            "install them with: pip install torch safetensors"
        )

    folder = os.path.dirname(os.path.abspath(options.output))
    if not os.path.isdir(folder):
        fail(f"{options.output}: the folder {folder} does not exist")
    if os.path.isdir(options.output):
        fail(f"{options.output}: expected the name of a file to write, found a directory")
    if os.path.exists(options.output) and not os.path.isfile(options.output):
        fail(f"{options.output}: expected a file, found a device or pipe")
    if (
        os.path.exists(options.output)
        and os.path.exists(options.input)
        and os.path.samefile(options.input, options.output)
    ):
        fail(f"{options.output}: would replace its own input")

    dtype = None if options.dtype == "keep" else getattr(torch, options.dtype)
    tensors = convert(torch, load_state(torch, options.input), dtype)
    write(save_file, tensors, options.output)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    print(
        f"{options.output}: {len(tensors)} tensors, {parameters:,} parameters, "
        f"{os.path.getsize(options.output):,} bytes"
    )


if __name__ == "__main__":
    main()
