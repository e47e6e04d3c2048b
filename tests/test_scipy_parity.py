"""Agreement with SciPy's softmax, log_softmax and logsumexp within *their* error.

The bounds are those of Blanchard, Higham and Higham (IMA J. Numer. Anal. 41(4), 2021) for the
shifted formulas in a working precision of unit roundoff u; npsoftmax is far more accurate.
"""

import numpy as np
import oracle
import pytest

from npsoftmax.functional import logsoftmax, logsumexp, softmax

special = pytest.importorskip("scipy.special")

# SciPy's differences overflow where npsoftmax returns -Inf or the correct sum.
FAMILIES = [f for f in oracle.FAMILIES if f is not oracle.overflowing]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 10, 1000])
def test_agreement_within_the_error_of_scipy(family, dtype, n):
    x = family(np.random.default_rng([7, n]), n, 50, dtype).astype(dtype)
    u = float(np.finfo(dtype).eps) / 2
    smallest = float(np.finfo(dtype).smallest_subnormal)
    spread = np.ptp(x, axis=0).astype(float)
    # Theorem 4.3, for each entry: n + 2 + 2 (max - min) roundings, doubled for the error of exp.
    p, theirs = softmax(x).astype(float), special.softmax(x, axis=0)
    assert (np.abs(theirs - p) <= 2 * (n + 4 + 2 * spread) * u * p + 2 * smallest).all()
    # Theorem 4.4 bounds the logarithm: an absolute error where it is near 0.
    logp, theirs = logsoftmax(x).astype(float), special.log_softmax(x, axis=0)
    assert (np.abs(theirs - logp) <= 2 * (n + 4 + spread) * u).all()
    total, theirs = logsumexp(x, axis=0).astype(float), special.logsumexp(x, axis=0)
    assert (np.abs(theirs - total) <= 2 * (n + np.abs(total) + spread) * u).all()


def test_scipy_loses_digits_that_npsoftmax_keeps():
    x = np.float32([20, 0])
    assert special.log_softmax(x)[0] == 0
    assert logsoftmax(x)[0] == pytest.approx(-2.0611537e-09, rel=1e-7)
