"""The exceptions of npsoftmax and the exit code that the command line gives each.

Every message says what was expected, what came, and what to do next.
Each class also derives from the built-in exception that a caller would try first,
so ``except ValueError`` goes on working for a wrong shape.
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
    "InterruptionError",
    "ClusterError",
    "ResumeWarning",
    "SlowWorkerWarning",
]


class NpsoftmaxError(Exception):
    """Base of all exceptions raised on purpose by this package."""

    exit_code = 1


class InputError(NpsoftmaxError, ValueError):
    """An argument that cannot be used: a value, a dtype, a NaN, an unknown name."""

    exit_code = 2


class ShapeError(InputError):
    """Arrays whose shapes do not fit each other or the model."""


class LabelError(InputError):
    """Labels that are not integers in ``0..k-1``."""


class OutputError(NpsoftmaxError, OSError):
    """A file or folder that cannot be written."""

    exit_code = 2


class DataUnavailableError(NpsoftmaxError, OSError):
    """A data set that lies nowhere on this machine and could not be downloaded."""

    exit_code = 3


class CorruptFileError(NpsoftmaxError, ValueError):
    """A data, model or checkpoint file whose content is not what its format promises."""

    exit_code = 4


class DataCorrupt(CorruptFileError):  # noqa: N818 - the name says what the data are
    """A data file that is not what its format promises, and from which byte on.

    Attributes
    ----------
    source : str
        The file.
    offset : int
        Where, in bytes from the beginning of the uncompressed content; for gzip damage, of the
        compressed file.
    reason : str
        What was expected there, and what was found.
    """

    def __init__(self, source: object, offset: int, reason: str) -> None:
        super().__init__(f"{source}: at byte {offset}: {reason}")
        self.source, self.offset, self.reason = str(source), offset, reason

    def __reduce__(self) -> tuple[type["DataCorrupt"], tuple[str, int, str]]:
        """Travel between processes whole: the message alone does not make another one."""
        return DataCorrupt, (self.source, self.offset, self.reason)


class DivergedError(NpsoftmaxError, ArithmeticError):
    """Training met a NaN or an infinity.

    If it was the loss of a batch, the parameters are those before that step; if it was a parameter
    or a loss at the end of an epoch, they are of no use, and the last checkpoint is the way back.
    """

    exit_code = 5


class InterruptionError(NpsoftmaxError):
    """Training was asked to stop and stopped between two steps."""

    exit_code = 130


class ClusterError(NpsoftmaxError, ConnectionError):
    """The scheduler or the workers of a cluster are gone, or cannot do what they are asked to."""

    exit_code = 6


class ResumeWarning(UserWarning):
    """A run goes on, but not quite from where or as it was expected to."""


class SlowWorkerWarning(UserWarning):
    """One worker of a cluster takes much longer than the others, and they wait for it."""
