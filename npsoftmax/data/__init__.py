"""Data: sets by name, the IDX format, downloads, and the minibatch loader."""

from npsoftmax.data.datasets import NAMES, Dataset, load
from npsoftmax.data.loader import DataLoader

__all__ = ["NAMES", "DataLoader", "Dataset", "load"]
