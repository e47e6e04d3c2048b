"""Download and verify a data set: `npsoftmax fetch fashion-mnist`."""

import argparse
import json
from collections.abc import Sequence
from functools import partial

from npsoftmax.commands import command_line
from npsoftmax.errors import InputError
from npsoftmax.files import quoted


def parser() -> command_line.Parser:
    """Declare the flags."""
    flags = command_line.Parser(
        "fetch", description="Find or download the files of a data set and verify them."
    )
    flags.add_argument("dataset", metavar="DATASET", nargs="?", help="fashion-mnist or mnist")
    flags.add_argument(
        "files", metavar="FILE", nargs="*", help="only these files, by their names; default: all"
    )
    command_line.add_data_flags(flags)
    seconds = partial(command_line.positive_float, name="number of seconds")
    flags.add_argument("--timeout", type=seconds, default=300, metavar="S",
        help="seconds for each file, all mirrors, attempts and pauses together; "
        "default 300")  # fmt: skip
    command_line.add_output_flags(flags)
    return flags


def fetch(args: argparse.Namespace) -> None:
    """Find or download the files, and print where they are."""
    from npsoftmax.data.datasets import DATASETS, acquire, find

    if args.dataset is None:
        raise InputError(
            f"expected a data set, {' or '.join(DATASETS)}, got none; for example: "
            f"{command_line.start('fetch')} fashion-mnist"
        )
    source = find(args.dataset)
    names = {file.name: role for role, file in source.files.items()}
    unknown = [name for name in args.files if name not in names]
    if unknown:
        raise InputError(
            f"FILE: expected one of {', '.join(names)}, got {', '.join(unknown)}; check the name"
        )
    roles = [names[name] for name in args.files] or list(source.files)
    paths, origin = acquire(
        source,
        {role: source.files[role] for role in roles},
        args.data_dir,
        args.mirror_url,
        args.offline,
        progress=command_line.wants_bar(args),
        timeout=args.timeout,
    )
    if args.json:
        print(json.dumps({role: str(path) for role, path in paths.items()}))
    elif not args.quiet:
        print(f"{source.name}: {origin}")
        for path in paths.values():
            print(f"{quoted(path)}  {path.stat().st_size:,} bytes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return command_line.run(parser(), fetch, argv)
