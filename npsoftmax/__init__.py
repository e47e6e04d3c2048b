"""Softmax regression in pure NumPy: columns are samples, gradients are derived by hand.

Importing the package costs next to nothing: each public name loads its module at its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npsoftmax import errors, functional, lbfgs, metrics, objective, optimisers, storage
    from npsoftmax.data import DataLoader, Dataset, load, splitobs
    from npsoftmax.functional import logitcrossentropy, logsoftmax, logsumexp, softmax
    from npsoftmax.history import EpochRecord, IterationRecord
    from npsoftmax.model import SoftmaxRegression
    from npsoftmax.optimisers import (
        Adam,
        AdamW,
        ClipGrad,
        ClipNorm,
        Descent,
        Momentum,
        Nesterov,
        OptimiserChain,
        WeightDecay,
    )
    from npsoftmax.optimum import FullBatchTrainer, Optimum, fit
    from npsoftmax.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "AdamW",
    "ClipGrad",
    "ClipNorm",
    "DataLoader",
    "Dataset",
    "Descent",
    "EpochRecord",
    "FullBatchTrainer",
    "IterationRecord",
    "Momentum",
    "Nesterov",
    "OptimiserChain",
    "Optimum",
    "SoftmaxRegression",
    "Trainer",
    "WeightDecay",
    "errors",
    "fit",
    "functional",
    "lbfgs",
    "load",
    "logitcrossentropy",
    "logsoftmax",
    "logsumexp",
    "metrics",
    "objective",
    "optimisers",
    "softmax",
    "splitobs",
    "storage",
]

_NAMES_OF = {
    "data": ("DataLoader", "Dataset", "load", "splitobs"),
    "functional": ("logitcrossentropy", "logsoftmax", "logsumexp", "softmax"),
    "history": ("EpochRecord", "IterationRecord"),
    "model": ("SoftmaxRegression",),
    "optimisers": (
        "Adam",
        "AdamW",
        "ClipGrad",
        "ClipNorm",
        "Descent",
        "Momentum",
        "Nesterov",
        "OptimiserChain",
        "WeightDecay",
    ),
    "optimum": ("FullBatchTrainer", "Optimum", "fit"),
    "trainer": ("Trainer",),
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name, or a module, when it is first used (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in __all__ or name in _NAMES_OF:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__, *_NAMES_OF})
