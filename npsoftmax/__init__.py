"""Softmax regression in pure NumPy: columns are samples, gradients are derived by hand.

Importing the package is cheap: each public name and each module is loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names by the module that defines them; "" stands for the package, whose names are
# modules.
_PUBLIC = {
    "": ("errors", "features", "functional", "metrics", "objective", "optimisers"),
    "certificate": ("Certificate", "certify"),
    "data": ("DataLoader", "Dataset", "load", "splitobs"),
    "functional": ("logitcrossentropy", "logsoftmax", "logsumexp", "softmax"),
    "model": ("SoftmaxRegression",),
    "optimisers": ("Adam", "AdamW", "Descent", "Momentum", "Nesterov"),
    "optimum": ("FullBatchTrainer", "Optimum", "fit"),
    "path": ("PathRecord", "PenaltyPath", "fit_path"),
    "trainer": ("Trainer",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:  # type checkers cannot read the table
    from npsoftmax import errors as errors
    from npsoftmax import features as features
    from npsoftmax import functional as functional
    from npsoftmax import metrics as metrics
    from npsoftmax import objective as objective
    from npsoftmax import optimisers as optimisers
    from npsoftmax.certificate import Certificate as Certificate
    from npsoftmax.certificate import certify as certify
    from npsoftmax.data import DataLoader as DataLoader
    from npsoftmax.data import Dataset as Dataset
    from npsoftmax.data import load as load
    from npsoftmax.data import splitobs as splitobs
    from npsoftmax.functional import logitcrossentropy as logitcrossentropy
    from npsoftmax.functional import logsoftmax as logsoftmax
    from npsoftmax.functional import logsumexp as logsumexp
    from npsoftmax.functional import softmax as softmax
    from npsoftmax.model import SoftmaxRegression as SoftmaxRegression
    from npsoftmax.optimisers import Adam as Adam
    from npsoftmax.optimisers import AdamW as AdamW
    from npsoftmax.optimisers import Descent as Descent
    from npsoftmax.optimisers import Momentum as Momentum
    from npsoftmax.optimisers import Nesterov as Nesterov
    from npsoftmax.optimum import FullBatchTrainer as FullBatchTrainer
    from npsoftmax.optimum import Optimum as Optimum
    from npsoftmax.optimum import fit as fit
    from npsoftmax.path import PathRecord as PathRecord
    from npsoftmax.path import PenaltyPath as PenaltyPath
    from npsoftmax.path import fit_path as fit_path
    from npsoftmax.trainer import Trainer as Trainer


if not TYPE_CHECKING:  # type checkers would accept every name

    def __getattr__(name: str) -> Any:
        """Load a public name or a module on first use (PEP 562)."""
        if _MODULE_OF.get(name):
            value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
            globals()[name] = value
            return value
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    """Return the public names and the public modules, loaded or not."""
    from pkgutil import iter_modules

    modules = {module.name for module in iter_modules(__path__) if not module.name.startswith("_")}
    return sorted({"__version__", *__all__, *modules})
