"""Softmax regression by a plain Newton method in float64, and whether an optimum exists at all.

Nothing of the package is used. Rows are samples, standardised first, and the last class is the
reference: its parameters are 0 until the end.
"""

import numpy as np
from scipy.optimize import linprog


def standardised(X):
    """Return standardised rows with a column of ones, and the divisors; constant columns are 0."""
    deviations = X - X.mean(axis=0)
    units = deviations.std(axis=0)
    constant = units <= 1e-13 * np.abs(X).max(axis=0)
    units[constant] = 1.0
    deviations[:, constant] = 0.0
    return np.column_stack([deviations / units, np.ones(len(X))]), units


def probabilities(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def newton(X, y, l2, iterations=100):
    """Return the weights, (k, d), and the probabilities of the rows, (n, k), at the optimum."""
    A, units = standardised(np.asarray(X, float))
    n, columns = A.shape
    k = y.max() + 1
    centring = np.eye(k - 1) - 1 / k
    penalty = l2 * np.append(1 / units**2, 0.0)
    phi, Y = np.zeros((k - 1, columns)), np.eye(k)[y]

    def objective(phi):
        logits = np.column_stack([A @ phi.T, np.zeros(n)])
        top = logits.max(axis=1)
        losses = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - (logits * Y).sum(axis=1)
        return losses.mean() + np.sum(phi * (centring @ phi) * penalty) / 2

    for _ in range(iterations):
        P = probabilities(np.column_stack([A @ phi.T, np.zeros(n)]))[:, :-1]
        gradient = (P - Y[:, :-1]).T @ A / n + centring @ phi * penalty
        H = np.einsum("ab,cd->acbd", centring, np.diag(penalty))
        for a in range(k - 1):
            for b in range(k - 1):
                curvature = P[:, a] * ((a == b) - P[:, b]) / n
                H[a, :, b] += (A * curvature[:, None]).T @ A
        H = H.reshape(phi.size, phi.size)
        scale = np.sqrt(H.diagonal())
        scale[scale == 0] = 1.0
        scaled = H / scale / scale[:, None]
        step = -np.linalg.pinv(scaled, 1e-14, hermitian=True) @ (gradient.ravel() / scale) / scale
        step, t, before = step.reshape(phi.shape), 1.0, objective(phi)
        while objective(phi + t * step) > before * (1 + 1e-14) and t > 1e-6:
            t /= 2
        phi = phi + t * step
        if np.abs(A @ step.T).max() < 1e-10:
            break
    W = np.vstack([phi, np.zeros(columns)])[:, :-1] / units
    return W - W.mean(axis=0), probabilities(np.column_stack([A @ phi.T, np.zeros(n)]))


def has_no_optimum(X, y):
    """Whether a direction exists along which no row gets worse and one better, by HiGHS."""
    A, _ = standardised(np.asarray(X, float))
    k = y.max() + 1
    margins = []
    for row, label in zip(A, y, strict=True):
        for other in set(range(k)) - {label}:
            functional = np.zeros((k, A.shape[1]))
            functional[label], functional[other] = row, -row
            margins.append(functional.ravel())
    margins = np.array(margins)
    found = linprog(
        -margins.sum(axis=0), A_ub=-margins, b_ub=np.zeros(len(margins)), bounds=(-1, 1)
    )
    return -found.fun > 1e-6
