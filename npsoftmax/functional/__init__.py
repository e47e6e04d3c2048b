"""The formulas, each differentiable one with its gradient, derived by hand, right below it.

Classes are along ``axis=0`` by default, samples are columns (Julia's ``dims=1``).
"""

from npsoftmax.functional.affine import affine, affine_grad
from npsoftmax.functional.losses import (
    crossentropy,
    crossentropy_grad,
    label_smoothing,
    logitcrossentropy,
    logitcrossentropy_and_grad,
    logitcrossentropy_grad,
    onecold,
    onehotbatch,
)
from npsoftmax.functional.softmax import (
    logsoftmax,
    logsoftmax_grad,
    logsumexp,
    logsumexp_grad,
    softmax,
    softmax_grad,
)

__all__ = [
    "affine",
    "affine_grad",
    "crossentropy",
    "crossentropy_grad",
    "label_smoothing",
    "logitcrossentropy",
    "logitcrossentropy_and_grad",
    "logitcrossentropy_grad",
    "logsoftmax",
    "logsoftmax_grad",
    "logsumexp",
    "logsumexp_grad",
    "onecold",
    "onehotbatch",
    "softmax",
    "softmax_grad",
]
