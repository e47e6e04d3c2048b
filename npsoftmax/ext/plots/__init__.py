"""Pictures of training, of models and of what they predict, on matplotlib Axes that you own.

Every function draws on the Axes that it is given and returns them; none touches ``pyplot``, so
nothing is left behind. Class names are drawn as they are written, never as formulas. Letters that
the font lacks become boxes; ``matplotlib.rcParams["font.family"]`` takes further fonts.
"""

from npsoftmax.ext.plots.curves import History, accuracy_curve, loss_curve, validation_curve
from npsoftmax.ext.plots.images import image, weights
from npsoftmax.ext.plots.notebook import live
from npsoftmax.ext.plots.predictions import misclassified, prediction_grid, top_k_bars
from npsoftmax.ext.plots.quality import confusion, reliability

__all__ = [
    "History",
    "accuracy_curve",
    "confusion",
    "image",
    "live",
    "loss_curve",
    "misclassified",
    "prediction_grid",
    "reliability",
    "top_k_bars",
    "validation_curve",
    "weights",
]
