"""Samples in this process, shared by its threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from npsoftmax.objective._parts import Parts, one_blas_thread
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.samples import Contents, Draw, Samples

__all__ = ["LocalStore"]

Result = TypeVar("Result")


class LocalStore:
    """Where samples lie, as :class:`npsoftmax.objective.samples.Store` says it.

    Parameters
    ----------
    samples : Samples
        All of them.
    threads : int, optional
        How many at most; the cores that this process may use unless given.
    """

    def __init__(self, samples: Samples, threads: int | None) -> None:
        self.samples = samples
        self.contents = Contents.of(samples)
        self._parts = Parts(threads, samples.X.shape[0] * self.contents.class_totals.size)
        self.threads = self.threads_here = self._parts.threads
        self.place = "this process"

    def shared(
        self,
        function: Callable[[Samples, Workspace], Result],
        combine: Callable[[Result, Result], Result],
    ) -> Result:
        """Call a function on parts of the samples, one for each thread."""
        results = self._parts.call(
            lambda columns, workspace: function(self.samples.columns(columns), workspace),
            self.samples.y.size,
        )
        return reduce(combine, results)

    def together(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Callable[[Result, Result], Result],
        draws: list[Draw],
    ) -> Result:
        """Call a function on all samples, which may use all threads."""
        if self.threads == 1:
            return function(self.samples, 1, draws)
        with one_blas_thread():
            return function(self.samples, self.threads, draws)

    def select(self, kept: NDArray[np.intp]) -> LocalStore:
        """Return a store of copies of the samples at these ascending places."""
        return LocalStore(self.samples.picked(kept, 0), self.threads)
