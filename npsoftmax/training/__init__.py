"""How a model is trained: on minibatches, or to the exact optimum."""

from npsoftmax.optimum import FullBatchTrainer, ObjectiveTrainer, Optimum, fit
from npsoftmax.trainer import Trainer

__all__ = ["FullBatchTrainer", "ObjectiveTrainer", "Optimum", "Trainer", "fit"]
