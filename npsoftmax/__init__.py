"""Softmax regression in pure NumPy: columns are samples, gradients are derived by hand.

Importing the package loads only NumPy and the standard library.
"""

from npsoftmax import errors, functional, metrics, objective, optimisers, storage
from npsoftmax.data import DataLoader, Dataset, load, splitobs
from npsoftmax.functional import logitcrossentropy, logsoftmax, logsumexp, softmax
from npsoftmax.history import EpochRecord
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
from npsoftmax.training import Trainer

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
    "Momentum",
    "Nesterov",
    "OptimiserChain",
    "SoftmaxRegression",
    "Trainer",
    "WeightDecay",
    "errors",
    "functional",
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
