"""The command ``npsoftmax``, which runs the others: ``npsoftmax train``, and so on."""

import argparse
import sys
from importlib import import_module

from npsoftmax import __version__
from npsoftmax.commands.command_line import COMMANDS, Parser


def main() -> int:
    """Run the command that the first word names, and return its exit code."""
    command, *words = sys.argv[1:] or [""]
    if command in COMMANDS:
        code: int = import_module(f"npsoftmax.commands.{command}").main(words)
        return code
    flags = parser()
    flags.parse_known_args([command])  # prints the help or the version, and exits
    got = repr(command) if command else "none"
    return flags.error(f"expected one of {', '.join(COMMANDS)}, got {got}")


def parser() -> Parser:
    """Declare the flags."""
    commands = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
    flags = Parser(
        "",
        usage="%(prog)s COMMAND [flags]",
        description=f"Softmax regression in pure NumPy.\n\ncommands:\n{commands}",
        epilog="%(prog)s COMMAND --help explains the flags of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("--version", action="version", version=f"npsoftmax {__version__}")
    return flags


if __name__ == "__main__":
    sys.exit(main())
