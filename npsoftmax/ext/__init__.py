"""Modules that need another package, one package each. The core never imports from here."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["EXTRAS", "advice", "extra"]

# What the extras of the project install. The project itself is on no package index, so only these
# can be installed anywhere by name.
EXTRAS = {
    "plot": "matplotlib>=3.9",
    "image": "pillow>=12.3.0",
    "sparse": "scipy>=1.13",
    "table": "polars>=1.20",
    "sklearn": "scikit-learn>=1.6",
    "onnx": "onnx>=1.21.0",
    "safetensors": "safetensors>=0.4.4",
    "distributed": "dask[array,distributed]>=2025.1",
}


def advice(name: str) -> str:
    """Return how to install what an extra installs.

    Examples
    --------
    >>> print(advice("image"))
    install what the extra "image" needs: python -m pip install "pillow>=12.3.0"
    """
    return f'install what the extra "{name}" needs: python -m pip install "{EXTRAS[name]}"'


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Add to an ImportError of the block how to install what an extra installs.

    Examples
    --------
    >>> with extra("image"):
    ...     import no_such_package
    Traceback (most recent call last):
    ModuleNotFoundError: No module named 'no_such_package'; install what the extra "image" ...
    """
    try:
        yield
    except ImportError as error:
        kind = type(error)
        raise kind(f"{error}; {advice(name)}", name=error.name, path=error.path) from error
