"""How a model is trained: on minibatches, or to the exact optimum."""

from npsoftmax.trainer import Trainer
from npsoftmax.training.fitting import fit
from npsoftmax.training.full_batch import FullBatchTrainer
from npsoftmax.training.objective_trainer import ObjectiveTrainer
from npsoftmax.training.optimum import Optimum

__all__ = ["FullBatchTrainer", "ObjectiveTrainer", "Optimum", "Trainer", "fit"]
