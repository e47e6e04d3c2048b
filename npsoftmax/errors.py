"""Exceptions, warnings and their exit codes on the command line.

Messages have the form "expected X, got Y; do Z". Each exception also derives from the built-in one
that a caller would catch first, so ``except ValueError`` catches a wrong shape.
"""

__all__ = [
    "NpsoftmaxError",
    "InputError",
    "ShapeError",
    "LabelError",
    "OutputError",
    "DataUnavailableError",
    "CorruptFileError",
    "DataCorrupt",
    "DivergedError",
    "ClusterError",
    "InputWarning",
    "ResumeWarning",
]


class NpsoftmaxError(Exception):
    """Base class of the exceptions of this package."""

    exit_code = 1


class InputError(NpsoftmaxError, ValueError):
    """An argument with an unusable value: a wrong dtype, a NaN, an unknown name."""

    exit_code = 2


class ShapeError(InputError):
    """Array shapes that do not fit each other or the model."""


class LabelError(InputError):
    """Labels that are not integers in ``0..k-1``."""


class OutputError(NpsoftmaxError, OSError):
    """A file or folder that cannot be written."""

    exit_code = 2


class DataUnavailableError(NpsoftmaxError, OSError):
    """A data set that was not found locally and could not be downloaded."""

    exit_code = 3


class CorruptFileError(NpsoftmaxError, ValueError):
    """A data, model or checkpoint file whose content violates its format."""

    exit_code = 4


class DataCorrupt(CorruptFileError):  # noqa: N818 - a public name
    """A data file that violates its format at a known byte.

    Attributes
    ----------
    source : str
        The file.
    offset : int
        The byte, counted in the uncompressed content; for gzip damage, in the compressed file.
    reason : str
        The expected and the actual content.
    """

    def __init__(self, source: object, offset: int, reason: str) -> None:
        super().__init__(f"{source}: at byte {offset}: {reason}")
        self.source, self.offset, self.reason = str(source), offset, reason

    def __reduce__(self) -> tuple[type["DataCorrupt"], tuple[str, int, str]]:
        """Pickle the three arguments; the default would pass the message only."""
        return DataCorrupt, (self.source, self.offset, self.reason)


class DivergedError(NpsoftmaxError, ArithmeticError):
    """A NaN or an infinity in training.

    If the loss of a batch diverged, the parameters are those before that step. If the divergence
    was detected at the end of an epoch, restore the last checkpoint.
    """

    exit_code = 5


class ClusterError(NpsoftmaxError, ConnectionError):
    """A cluster whose scheduler or workers are lost or out of memory."""

    exit_code = 6


class InputWarning(UserWarning):
    """Numbers that are used as they are given, and are probably meant otherwise."""


class ResumeWarning(UserWarning):
    """A run that resumes from an older checkpoint, or in a different environment, than expected."""
