#!/usr/bin/env python3
"""Tests scripts/convert_checkpoint.py. Where PyTorch or safetensors is missing it runs the tests
that need neither and ends with status 77, "skipped"."""

import contextlib
import errno
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "scripts" / "convert_checkpoint.py"
spec = importlib.util.spec_from_file_location("convert_checkpoint", SCRIPT)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)


def run(*arguments):
    """(exit status, output, errors) of the script, run in this process: PyTorch loads slowly."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            converter.main([str(argument) for argument in arguments])
            status = 0
        except SystemExit as error:
            status = 1
            print(error, file=err)
    return status, out.getvalue(), err.getvalue()


def expect(condition, *what):
    if not condition:
        raise AssertionError(what)


def expect_failure(part, *arguments):
    status, out, err = run(*arguments)
    expect(
        status == 1 and out == "" and part in err and err.startswith("convert_checkpoint: "),
        part,
        status,
        out,
        err,
    )


def test_names(_):
    for name in (
        "h.0.x",
        "module.h.0.x",
        "_forward_module.module._orig_mod.h.0.x",
        "module.module.h.0.x",
    ):
        expect(converter.clean_name(name) == "h.0.x", name)
    for name in ("h.module.x", "submodule.x", "module", "_orig_mod"):
        expect(converter.clean_name(name) == name, name)
    expect(converter.shown(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more")
    try:
        converter.clean_names({"module.x": 1, "x": 2})
    except SystemExit as error:
        expect("module.x and x would both be called x" in str(error), error)
    else:
        expect(False, "two entries of one name were accepted")


def test_writing(folder):
    """Links, modes and long names, as FileWriter of the library treats them."""

    def save(text, path, metadata):
        expect(metadata == {"format": "pt"}, metadata)
        pathlib.Path(path).write_text(text)

    (folder / "elsewhere").mkdir()
    target, link = folder / "elsewhere" / "target", folder / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to("elsewhere/target")
    converter.write(save, "new", link)
    expect(link.is_symlink() and target.read_text() == "new")
    expect(target.stat().st_mode & 0o777 == 0o640, oct(target.stat().st_mode))
    long_name = folder / ("x" * 255)
    converter.write(save, "new", long_name)
    expect(long_name.read_text() == "new")

    def no_sync(_):
        raise OSError(errno.EINVAL, "")

    fsync, os.fsync = os.fsync, no_sync
    try:
        converter.write(save, "newer", target)
    finally:
        os.fsync = fsync
    expect(target.read_text() == "newer")
    expect(sorted(p.name for p in folder.iterdir()) == ["elsewhere", "link", long_name.name])
    expect([p.name for p in (folder / "elsewhere").iterdir()] == ["target"])


def test_missing_packages(folder):
    """A package of the name that cannot be imported stands for one that is absent."""
    (folder / "absent").mkdir()
    (folder / "absent" / "torch.py").write_text("raise ImportError('no torch here')\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "in.pth", "out.safetensors"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "absent")},
        check=False,
    )
    expect(done.returncode == 1 and done.stdout == "", done)
    expect(
        done.stderr.startswith("convert_checkpoint: needs PyTorch and safetensors (no torch here)"),
        done.stderr,
    )


def test_conversion(folder):
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(7, 4, generator=generator)
    plain = {
        "transformer.wte.weight": embedding,
        "transformer.h.0.attn.in_proj.weight": torch.randn(6, 4, generator=generator),
        "transformer.h.0.norm_1.weight": torch.ones(4, dtype=torch.bfloat16),
        "transformer.h.0.steps": torch.arange(3),
    }
    wrapped = {"_forward_module." + name: value for name, value in plain.items()}
    source, target = folder / "in.pth", folder / "out.safetensors"

    def converted(state, *options):
        torch.save(state, source)
        status, out, err = run(source, target, *options)
        expect(status == 0 and err == "", status, out, err)
        expect(out.count("\n") == 1, out)
        expect(
            sorted(p.name for p in folder.iterdir() if p.is_file()) == ["in.pth", "out.safetensors"]
        )
        return load_file(target), out

    # The head as the same storage, as an equal copy, and as a matrix of its own.
    for head, tied in ((embedding, True), (embedding.clone(), True), (embedding + 1, False)):
        state = {**wrapped, "_forward_module.lm_head.weight": head}
        tensors, out = converted({"model": state, "optimizer": {"state": [1]}, "iter_num": 3})
        expect(("lm_head.weight" not in tensors) == tied)
        expect(set(tensors) - {"lm_head.weight"} == set(plain), tensors.keys())
        for name, value in plain.items():
            expect(tensors[name].dtype == value.dtype and torch.equal(tensors[name], value), name)
        count, parameters = (4, 59) if tied else (5, 87)
        expect(
            f": {count} tensors, {parameters} parameters, {target.stat().st_size:,} bytes" in out,
            out,
        )
    (folder / "any").touch()
    expect(target.stat().st_mode == (folder / "any").stat().st_mode, oct(target.stat().st_mode))
    (folder / "any").unlink()
    with safe_open(target, "pt") as file:
        expect(file.metadata() == {"format": "pt"})

    for option, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        tensors, _ = converted(plain, "--dtype", option)
        for name, value in plain.items():
            wanted = value.to(dtype) if value.is_floating_point() else value
            expect(tensors[name].dtype == wanted.dtype and torch.equal(tensors[name], wanted), name)

    # Views, transposes and shared memory are written out one by one.
    base = torch.arange(12.0).reshape(3, 4)
    views = {
        "whole": base,
        "again": base,
        "row": base[1],
        "transposed": base.t(),
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 3),
        "empty too": torch.zeros(0),
    }
    tensors, _ = converted(views)
    for name, value in views.items():
        expect(torch.equal(tensors[name], value), name)
    converted({"a": torch.nn.Parameter(torch.ones(2))})
    torch.save(plain, source, _use_new_zipfile_serialization=False)
    expect(run(source, target)[0] == 0, "older file format")


def test_refusals(folder):
    import torch

    source, target = folder / "in.pth", folder / "out.safetensors"
    target.write_text("precious")
    ones = torch.ones(2)

    def refused(content, part):
        torch.save(content, source)
        expect_failure(part, source, target)

    refused(
        {"model": {"a": ones, "b": 3, "c": "x"}}, "expected tensors only, found b (int), c (str)"
    )
    refused({"a": ones, "optimizer": {}}, "expected tensors only, found optimizer (dict)")
    refused({"a": ones, "module.a": ones}, "a and module.a would both be called a")
    refused({3: ones}, "expected names as keys of the state dict, found 3")
    refused({"a": ones.to_sparse()}, "expected dense tensors, found others in a")
    refused([ones], "expected a state dict, or one under the key 'model', found list")
    refused({}, "found dict without entries")
    refused({"model": {}}, "found dict without entries")
    refused({"a": pathlib.PurePosixPath("x")}, "cannot be read as a checkpoint of weights")
    source.write_bytes(b"no checkpoint")
    expect_failure("cannot be read as a checkpoint of weights", source, target)
    source.write_bytes(b"")
    expect_failure("cannot be read as a checkpoint of weights", source, target)
    expect_failure("No such file", folder / "none.pth", target)
    torch.save({"a": ones}, source)
    expect_failure("does not exist", source, folder / "none" / "out.safetensors")
    expect_failure("found a directory", source, folder)
    expect_failure("would replace its own input", source, source)
    expect(target.read_text() == "precious")
    expect(sorted(p.name for p in folder.iterdir()) == ["in.pth", "out.safetensors"])

    # A disk that fills up: the writer is replaced by one that stops half way.
    def stops(_tensors, path, **_options):
        pathlib.Path(path).write_text("half")
        raise OSError("No space left on device")

    try:
        converter.write(stops, {}, str(target))
    except SystemExit as error:
        expect("cannot write: No space left on device" in str(error), error)
    else:
        expect(False, "a failed write was taken for a success")
    expect(target.read_text() == "precious")
    expect(sorted(p.name for p in folder.iterdir()) == ["in.pth", "out.safetensors"])


def main():
    tests = [test_names, test_writing, test_missing_packages]
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if not missing:
        tests += [test_conversion, test_refusals]
    for test in tests:
        with tempfile.TemporaryDirectory(prefix="samba-test-") as folder:
            test(pathlib.Path(folder))
        print(f"{test.__name__}: passed", flush=True)
    if missing:
        print(f"skipped: the rest needs {' and '.join(missing)}")
        sys.exit(77)


if __name__ == "__main__":
    main()
