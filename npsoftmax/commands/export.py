"""Export a model for use without this package: `npsoftmax export MODEL --onnx`."""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npsoftmax.commands import command_line
from npsoftmax.errors import InputError
from npsoftmax.files import quoted

if TYPE_CHECKING:
    import npsoftmax

# The name of a format is also its flag and its file suffix.
MODULES = {"onnx": "onnx_export", "safetensors": "safetensors_export", "html": "web_page"}
SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))  # at the end of a folder


def parser() -> command_line.Parser:
    """Declare the flags."""
    flags = command_line.Parser(
        "export", description="Write a model in formats that other programs read."
    )
    command_line.add_model(flags)
    group = flags.add_argument_group("formats, one or several")
    for flag, content in (
        ("--onnx", "a graph from raw pixels, or other features, to labels and probabilities"),
        ("--safetensors", "weight and bias, as torch.nn.Linear stores them"),
        ("--html", "one page that classifies images in a browser"),
    ):
        group.add_argument(flag, action="store_true", help=content)
    flags.add_argument("-o", "--output", metavar="FILE", type=command_line.path,
        help="the file to write, if there is one format, or a folder; default: MODEL with the "
        "suffix .onnx, .safetensors or .html. An existing file is replaced")  # fmt: skip
    command_line.add_output_flags(flags)
    return flags


def export(args: argparse.Namespace) -> None:
    """Write the requested formats, and print how to use them."""
    import npsoftmax

    model = npsoftmax.SoftmaxRegression.load(args.model)
    paths = output_paths(args)
    check_no_model(args.model, paths.values())
    exporters = {  # all of them before the first file is written
        name: command_line.import_extra(f"npsoftmax.ext.{MODULES[name]}", f"--{name}: ")
        for name in paths
    }
    files = []
    for name, path in paths.items():
        exporters[name].save(model, path)
        size = path.stat().st_size
        use = uses(model)[name]
        files.append({"format": name, "path": str(path), "bytes": size, "use": use})
        if not (args.json or args.quiet):
            print(f"{quoted(path)}  {size:,} bytes", *use, sep="\n  ")
    if args.json:
        print(json.dumps({**about(model), "classes": model.classes, "files": files}))


def output_paths(args: argparse.Namespace) -> dict[str, Path]:
    """Return the path for each requested format."""
    names = [name for name in MODULES if getattr(args, name)]
    if not names:
        raise InputError("expected a format, got none; add --onnx, --safetensors or --html")
    output = args.output
    if output is None or os.path.isdir(output) or output.endswith(SEPARATORS):
        folder = Path(args.model).parent if output is None else Path(output)
        return {name: folder / f"{Path(args.model).stem}.{name}" for name in names}
    if len(names) > 1:
        raise InputError(
            f"--output: expected one format for one file, got {len(names)}; name a folder instead: "
            f"-o {quoted(output)}/"
        )
    (name,) = names
    if not output.lower().endswith(f".{name}"):
        raise InputError(
            f"--output: expected a name that ends in .{name}, or a folder, got {quoted(output)}; "
            f"name it {quoted(Path(output).with_suffix(f'.{name}'))}, or {quoted(f'{output}/')}"
        )
    return {name: Path(output)}


def check_no_model(model: str, paths: Iterable[Path]) -> None:
    """Raise InputError if a path is the model, under any name, or another one."""
    from npsoftmax import storage

    for path in paths:
        if os.path.exists(path) and (os.path.samefile(model, path) or storage.is_whole(path)):
            raise InputError(
                f"{quoted(path)}: expected a file other than a model; name one with -o"
            )


def about(model: "npsoftmax.SoftmaxRegression") -> dict[str, Any]:
    """Return the facts that hold for every format."""
    return {
        "num_inputs": model.num_inputs,
        "num_features": model.num_features,
        "num_outputs": model.num_outputs,
        "dtype": str(model.theta.dtype),
        "pixel_scale": model.pixel_scale,
        "framing": model.framing,
        "temperature": model.temperature,
    }


def uses(model: "npsoftmax.SoftmaxRegression") -> dict[str, list[str]]:
    """Return lines that say how to use each format."""
    from npsoftmax.features import Standardise

    d, k, dtype = model.num_inputs, model.num_outputs, model.theta.dtype
    m, standardised = model.num_features, isinstance(model.features, Standardise)
    taken = "float64" if standardised else dtype
    graph_input, scaling = f"features: {taken} (N, {d})", "features, as they are"
    if model.pixel_scale is not None:
        scaling = f"pixels times {model.pixel_scale!r}"
        graph_input = (
            f"pixels: uint8 (N, {d}), as they are; times {model.pixel_scale!r} in the graph"
        )
    if model.features is not None:
        scaling = "what model.extract(X) returns; the tensors features.… are its numbers"
    return {
        "onnx": [
            f"input    {graph_input}",
            f"outputs  label: int64 (N,), probabilities: {dtype} (N, {k})",
        ],
        "safetensors": [
            f"tensors  weight: {dtype} ({k}, {m}), bias: {dtype} ({k},)",
            f"input    {scaling}",
        ],
        "html": ["opens in a browser, without a server or a network"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return command_line.run(parser(), export, argv)
