"""How a model is trained: on minibatches, or to the exact optimum."""

from npsoftmax.training.fitting import fit
from npsoftmax.training.full_batch import FullBatchTrainer
from npsoftmax.training.minibatches import Trainer
from npsoftmax.training.optimum import Optimum

__all__ = ["FullBatchTrainer", "Optimum", "Trainer", "fit"]
