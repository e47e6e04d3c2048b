r"""What training minimises, and its gradient with respect to ``theta``, derived by hand.

With samples as the columns :math:`x_j` of ``X`` (d x n), labels :math:`y_j` in 0..k-1, an input
scale :math:`s` (1/255 for pixels), a penalty weight :math:`\lambda`, and the parameters
``theta = [W b]`` (k x (d+1)), the objective is

.. math::

    J(\theta) = \frac1n \sum_{j=1}^n \ell(z_j, y_j) + \frac{\lambda}{2} \|W\|_F^2, \qquad
    z_j = s W x_j + b, \qquad \ell(z, y) = \log \sum_i e^{z_i} - z_y .

Its gradient follows by the chain rule, in the shapes of the code:

.. math::

    Z &= s W X + b \mathbf 1^\top                && (k \times n) \quad \text{affine} \\
    P &= \mathrm{softmax}(Z)                     && (k \times n) \\
    dZ &= \frac{\partial J}{\partial Z} = \frac1n (P - Y)   && (k \times n) \quad
        \text{logitcrossentropy\_grad; } Y \text{ one-hot} \\
    dW &= s \, dZ \, X^\top + \lambda W           && (k \times d) \quad \text{affine\_grad} \\
    db &= dZ \, \mathbf 1                         && (k \times 1) \quad \text{no penalty}

:math:`\partial\ell/\partial z_i = e^{z_i} / \sum_m e^{z_m} - [i = y]` gives the third line;
:math:`\partial Z_{ij}/\partial W_{il} = s X_{lj}`, :math:`\partial Z_{ij}/\partial b_i = 1` and
:math:`\partial \|W\|_F^2 / \partial W = 2 W` give the last two. For soft targets
:math:`\ell(z, y) = -\sum_i y_i \, \mathrm{logsoftmax}(z)_i`, and each column of ``P`` is
multiplied by the sum of its targets.

Training with labels computes all of this in one pass, in :mod:`npsoftmax.objective.hot_loop`. The
functions named on the right are the separate formulas, for soft targets and for reading.
"""

from npsoftmax.objective.batch import (
    Evaluation,
    hessian_vector_product,
    loss_and_grad,
    sample_losses,
)
from npsoftmax.objective.full_batch import FullBatch
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.through_origin import ThroughOrigin

__all__ = [
    "Evaluation",
    "FullBatch",
    "ThroughOrigin",
    "Workspace",
    "hessian_vector_product",
    "loss_and_grad",
    "sample_losses",
]
