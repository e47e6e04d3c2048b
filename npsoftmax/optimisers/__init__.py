r"""Update rules that change ``theta`` in place, with the semantics of Optimisers.jl.

Every rule turns a gradient into the step that is subtracted, ``theta -= step``, and may keep
arrays from one step to the next in ``state``. Rules chain from left to right. They know no
bias: :class:`WeightDecay` and :class:`AdamW` shrink all of the array, whereas the objective's
``l2`` touches only the weights.
"""

from npsoftmax.optimisers.base import Optimiser, OptimiserChain
from npsoftmax.optimisers.descent import Adam, AdamW, Descent, Momentum, Nesterov
from npsoftmax.optimisers.shaping import ClipGrad, ClipNorm, WeightDecay

__all__ = [
    "Adam",
    "AdamW",
    "ClipGrad",
    "ClipNorm",
    "Descent",
    "Momentum",
    "Nesterov",
    "Optimiser",
    "OptimiserChain",
    "WeightDecay",
]
