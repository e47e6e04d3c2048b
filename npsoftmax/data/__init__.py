"""Data sets by name, the IDX format, downloads, the minibatch loader, and splitting."""

from npsoftmax.data.datasets import NAMES, Dataset, load
from npsoftmax.data.loader import DataLoader
from npsoftmax.data.split import splitobs

__all__ = ["NAMES", "DataLoader", "Dataset", "load", "splitobs"]
