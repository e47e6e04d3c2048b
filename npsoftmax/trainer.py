"""Training on minibatches: the loop, its checkpoints, and resuming from one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from npsoftmax._checks import (
    Range,
    as_columns,
    as_count,
    as_labels,
    as_size,
    as_test_data,
    check_extracted,
    check_pixels,
    check_trainable,
)
from npsoftmax._threads import blas_threads
from npsoftmax.checkpoint import (
    Checkpoint,
    as_settings,
    check_settings,
    environment,
    max_checkpoint_bytes,
    model_settings,
    newest_usable,
    warn_if_environment_differs,
)
from npsoftmax.errors import DivergedError, InputError
from npsoftmax.history import EpochRecord, Progress
from npsoftmax.objective import Workspace, sample_losses
from npsoftmax.objective.batch import unchecked_loss_and_grad

if TYPE_CHECKING:
    from npsoftmax.data.loader import DataLoader
    from npsoftmax.model import SoftmaxRegression
    from npsoftmax.optimisers import Optimiser

__all__ = ["Trainer"]


class Trainer:
    """Train a model on minibatches.

    ``fit(epochs)`` is equivalent to this loop::

        for epoch in range(epochs):
            for X, y in loader.batches(epoch):
                scale = model.input_scale(X.dtype)
                result = loss_and_grad(model.theta, X, y, l2, scale)
                optimiser.update(model.theta, result.grad)

    It adds a history, the evaluation on test data, a stop *before* the update if the loss is not
    finite, and checkpoints. With the same data, a run resumes from a checkpoint bit for bit, even
    in the middle of an epoch, on the same machine type and NumPy build, with the same number of
    threads.

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place.
    optimiser : Optimiser
        The update rule. It keeps its state from one epoch to the next.
    loader : DataLoader
        The training data.
    test : (array_like, array_like), optional
        ``X (d, n)`` and ``y (n,)`` to evaluate on after each epoch.
    l2 : float
        Weight of the penalty ``l2/2 * ||W||**2``; the bias is not penalised.
    checkpoint : path, optional
        File for the newest checkpoint, written before the first step and after each epoch. The
        previous one is kept next to it, as ``storage.previous(checkpoint)``.
    checkpoint_every : int, optional
        Also write a checkpoint whenever this number of steps has been finished.
    identity : mapping, optional
        Further settings that a checkpoint must have in common with the run that resumes from it,
        for instance hashes of the data: a checkpoint knows their shape and dtype only.
    on_step : callable, optional
        Called with the trainer after each step. It may raise; the trainer can then write a
        checkpoint or continue.
    threads : int
        Threads of the BLAS while an epoch runs; afterwards the previous number applies again. The
        products of a batch are too small to gain much from two, which take many times as long as
        one while other programs run.

    Attributes
    ----------
    history : list of EpochRecord
        One record for each finished epoch.

    Examples
    --------
    >>> from npsoftmax import DataLoader, Descent, SoftmaxRegression
    >>> X, y = np.array([[-1.0, 1.0, -2.0, 2.0]]), np.array([0, 1, 0, 1])
    >>> model = SoftmaxRegression(1, 2, seed=0)
    >>> trainer = Trainer(model, Descent(1.0), DataLoader(X, y, batch_size=2))
    >>> trainer
    Trainer(SoftmaxRegression(1 => 2, float32), Descent(eta=1.0), 2 batches, 0 epochs finished)
    >>> history = trainer.fit(epochs=5)
    >>> history[-1].train_acc
    1.0
    """

    def __init__(
        self,
        model: SoftmaxRegression,
        optimiser: Optimiser,
        loader: DataLoader,
        *,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        l2: float = 0.0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        identity: Mapping[str, Any] | None = None,
        on_step: Callable[[Trainer], None] | None = None,
        threads: int = 1,
    ) -> None:
        check_trainable(model)
        if not all(hasattr(loader, name) for name in ("batches", "X", "y", "__len__")):
            raise InputError(
                f"loader: expected a DataLoader, got {type(loader).__name__}; pass "
                "npsoftmax.DataLoader(X, y, batch_size=256, shuffle=True)"
            )
        check_extracted(model, loader.X.shape[0], loader.X.dtype)
        as_columns(loader.X, model.num_features, finite=False, sparse=True)
        as_labels(loader.y, model.num_outputs)
        if len(loader) == 0:
            raise InputError(
                f"loader: expected at least one batch, got {loader.num_samples} samples, fewer "
                f"than batch_size={loader.batch_size} with drop_last; lower one or unset the other"
            )
        if isinstance(optimiser, type) or not hasattr(optimiser, "update"):
            raise InputError(f"optimiser: expected a rule like Descent(0.1), got {optimiser!r}")
        self.model = model
        self.optimiser = optimiser
        self.loader = loader
        self.test = as_test_data(test, model.num_features, model.num_outputs)
        if model.features is None:
            check_pixels(model, Range.of(loader.X), self.test)
        self.l2 = as_size(l2, "l2")
        self.checkpoint = checkpoint
        if checkpoint_every is not None:
            as_count(checkpoint_every, "checkpoint_every")
        self.checkpoint_every = checkpoint_every
        self.identity = as_settings(identity) if identity else {}
        self.on_step = on_step
        self.threads = as_count(threads, "threads")
        self.history: list[EpochRecord] = []
        self._progress = Progress()
        self._workspace = Workspace()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.model!r}, {self.optimiser!r}, "
            f"{len(self.loader)} batches, {self.epoch} epochs finished)"
        )

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self._progress.epoch

    @property
    def step(self) -> int:
        """Number of finished steps of the current epoch."""
        return self._progress.step

    def fit(self, epochs: int) -> list[EpochRecord]:
        """Train until ``epochs`` more epochs are finished, and return the whole history.

        An epoch that began before the checkpoint of a resumed run counts as one of them. Raises
        DivergedError if the loss or a parameter becomes NaN or infinite.
        """
        for _ in self.run(epochs):
            pass
        return self.history

    def run(self, epochs: int) -> Iterator[EpochRecord]:
        """Train as :meth:`fit` does, lazily; yield each record when its epoch ends."""
        check_trainable(self.model)
        left = as_count(epochs, "epochs", minimum=0)
        if self.checkpoint is not None and self._progress == Progress():
            self.save_checkpoint(self.checkpoint)  # so that a killed run can be resumed
        for _ in range(left):
            with blas_threads(self.threads):
                self._train_epoch()
                if not np.isfinite(self.model.theta).all():
                    raise self._diverged("a parameter is")
                record = self._record()
            self.history = [*self.history, record]
            self._progress = Progress(epoch=record.epoch)
            if self.checkpoint is not None:
                self.save_checkpoint(self.checkpoint)
            yield record

    # An overflow on the way to divergence is reported once, by _diverged.
    @np.errstate(all="ignore")
    def _train_epoch(self) -> None:
        progress, theta = self._progress, self.model.theta
        scale = self.model.input_scale(self.loader.X.dtype)
        started = perf_counter() - progress.seconds
        for X, y in self.loader.batches(progress.epoch, progress.step):
            result = unchecked_loss_and_grad(theta, X, y, self.l2, scale, self._workspace)
            if not math.isfinite(result.loss):
                raise self._diverged(f"the loss is {result.loss},")
            self.optimiser.update(theta, result.grad)
            progress.add(result.crossentropy, round(result.accuracy * y.size), y.size)
            progress.seconds = perf_counter() - started
            if self.checkpoint is not None and self._checkpoint_is_due():
                self.save_checkpoint(self.checkpoint)
            if self.on_step is not None:
                self.on_step(self)

    def _checkpoint_is_due(self) -> bool:
        if not self.checkpoint_every or self.step == len(self.loader):
            return False  # the checkpoint of the whole epoch comes next
        return (self.epoch * len(self.loader) + self.step) % self.checkpoint_every == 0

    def _diverged(self, name: str) -> DivergedError:
        step = min(self.step + 1, len(self.loader))
        return DivergedError(
            f"training diverged in epoch {self.epoch + 1}, step {step} of {len(self.loader)}: "
            f"{name} not finite. The learning rate is the likely cause; lower it "
            f"({self.optimiser!r}), or chain it behind npsoftmax.optimisers.ClipNorm(1.0)"
        )

    def _record(self) -> EpochRecord:
        progress = self._progress
        if not math.isfinite(progress.loss_sum):
            raise self._diverged("the mean loss is")
        started = perf_counter()
        test = self._evaluate_test()
        return EpochRecord(
            epoch=progress.epoch + 1,
            train_loss=progress.loss_sum / progress.num_seen,
            train_acc=progress.num_correct / progress.num_seen,
            train_seconds=progress.seconds,
            test_seconds=perf_counter() - started,
            last_batch_train_loss=progress.last_loss,
            last_batch_train_acc=progress.last_acc,
            **test,
        )

    def _evaluate_test(self) -> dict[str, float | None]:
        """Return the means over the test samples, and over the last batch of them."""
        names = ("test_loss", "test_acc", "last_batch_test_loss", "last_batch_test_acc")
        if self.test is None:
            return dict.fromkeys(names)
        X, y = self.test
        losses, predicted = sample_losses(self.model.theta, X, y, self.model.input_scale(X.dtype))
        if not np.isfinite(losses).all():
            raise self._diverged("a test loss is")
        hits = predicted == y
        # The last batch, if the test samples were cut as in training.
        batch_size = self.loader.batch_size
        last = slice((y.size - 1) // batch_size * batch_size, None)
        means = [
            mean
            for samples in (slice(None), last)
            for mean in (losses[samples].mean(dtype=np.float64), hits[samples].mean())
        ]
        return dict(zip(names, map(float, means), strict=True))

    def _settings(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must have in common with the run."""
        loader, model = self.loader, self.model
        names = ("batch_size", "shuffle", "drop_last", "seed")
        settings = {
            "optimiser": repr(self.optimiser),
            "l2": self.l2,
            **model_settings(model, loader.X.dtype, loader.X.shape),
            **{name: getattr(loader, name) for name in names},
            **self.identity,
        }
        return as_settings(settings)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write everything that :meth:`resume` needs, atomically.

        A previous file is kept as ``storage.previous(path)``. A parameter that is NaN or infinite
        raises DivergedError, and the file stays as it is.
        """
        if not np.isfinite(self.model.theta).all():
            raise self._diverged("a parameter is")
        Checkpoint(
            self._settings(),
            environment(self.threads),
            self.model.theta,
            self.optimiser.state,
            self._progress,
            self.history,
        ).write(path)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Load parameters, optimiser state, history and position from a checkpoint.

        If the file is damaged, the previous one is used.

        Warns
        -----
        ResumeWarning
            The newest checkpoint is damaged; or the machine type, the NumPy build or the number of
            threads differ, so that the run resumes, but not bit for bit.
        """
        saved = newest_usable(path, self._read)
        warn_if_environment_differs(saved.environment, environment(self.threads), path)
        self.model.theta[...] = saved.theta
        self.optimiser.load_state(saved.state)
        self._progress, self.history = saved.progress, list(saved.history)

    def _read(self, path: Path) -> Checkpoint:
        theta = self.model.theta
        saved = Checkpoint.read(path, max_checkpoint_bytes(theta, self.optimiser))
        check_settings(saved.settings, self._settings(), path)
        saved.check_run(theta, self.optimiser, len(self.loader), path)
        return saved
