"""What the bits of a run depend on besides its settings and data."""

import platform
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from npsoftmax.errors import ResumeWarning

__all__ = ["environment", "warn_of_another"]


def environment(threads: int | None = None) -> dict[str, Any]:
    """Return the machine's type, the NumPy build and the number of threads, as JSON holds them.

    The same product differs in its last bits from one of these to the other: OpenBLAS has other
    loops for each family of processors, and sums in another order with each number of threads.

    Parameters
    ----------
    threads : int, optional
        Those that share the work; else those of the BLAS.
    """
    from threadpoolctl import threadpool_info

    # The first that was loaded is NumPy's; SciPy may bring another.
    libraries = (lib for lib in threadpool_info() if lib["user_api"] == "blas")
    blas: dict[str, Any] = next(libraries, {})
    build = np.show_config(mode="dicts")
    return {
        "machine": f"{platform.machine()} {' '.join(build['SIMD Extensions']['found'])}".strip(),
        "numpy": np.__version__,
        "blas": f"{blas.get('internal_api')} {blas.get('version')} {blas.get('architecture')}",
        "threads": blas.get("num_threads") if threads is None else threads,
    }


def warn_of_another(there: Mapping[str, Any], here: Mapping[str, Any], source: object) -> None:
    """Warn, naming them, of the differences that keep a resumed run from being bit for bit."""
    differing = [
        f"{name} {there.get(name)!s:.32} there, {here.get(name)!s:.32} here"
        for name in here
        if there.get(name) != here.get(name)
    ]
    if differing:
        warnings.warn(
            f"{source} was written in another environment ({', '.join(differing)}); the run goes "
            "on, but not bit for bit",
            ResumeWarning,
            stacklevel=3,
        )
