"""Training on all samples in this process at once, to the exact optimum."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from npsoftmax.objective import FullBatch
from npsoftmax.training._checks import checked_data
from npsoftmax.training.objective_trainer import ObjectiveTrainer

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["FullBatchTrainer"]


class FullBatchTrainer(ObjectiveTrainer):
    """Train a model on all samples at once.

    What :func:`npsoftmax.training.fit` does, with a history, test data and checkpoints from which
    a run goes on bit for bit (same machine type, NumPy build, ``threads``).

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place.
    X, y, l2, sample_weight, threads
        As for :class:`npsoftmax.objective.FullBatch`.
    test, tol, checkpoint, checkpoint_every, identity, on_step
        As for :class:`npsoftmax.ObjectiveTrainer`.

    Attributes
    ----------
    problem : FullBatch
        The objective.
    reason : str or None
        Why the last run ended, as in :class:`npsoftmax.lbfgs.Result`.

    Raises
    ------
    ShapeError, LabelError, InputError
        The data do not fit the model, or a setting makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from npsoftmax import SoftmaxRegression
    >>> X, y = np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1]
    >>> trainer = FullBatchTrainer(SoftmaxRegression(1, 2, dtype=np.float64), X, y, l2=0.1)
    >>> records = list(trainer.run(max_iterations=20))
    >>> trainer.reason, [record.iteration for record in records]
    ('converged', [0, 1])
    """

    problem: FullBatch

    def __init__(
        self,
        model: SoftmaxRegression,
        X: ArrayLike,
        y: ArrayLike,
        *,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        tol: float = 1e-5,
        threads: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
        identity: Mapping[str, Any] | None = None,
        on_step: Callable[[Any], None] | None = None,
    ) -> None:
        columns, labels = checked_data(model, X, y)
        scale = model.input_scale(columns.dtype)
        super().__init__(
            model,
            FullBatch(columns, labels, l2, sample_weight, scale=scale, threads=threads),
            test=test,
            tol=tol,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            identity=identity,
            on_step=on_step,
        )
