"""The two ways to train that the command offers: what each builds, says and leaves behind."""

import argparse
import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from distributed import Client
    from tqdm import tqdm

    import npsoftmax
    from npsoftmax.history import EpochRecord, IterationRecord
    from npsoftmax.objective import FullBatch

OPTIMISERS = {
    "descent": "Descent",
    "momentum": "Momentum",
    "nesterov": "Nesterov",
    "adam": "Adam",
    "adamw": "AdamW",
}
CHECKPOINT_EVERY = 10


class Minibatches:
    """Stochastic gradient descent, epoch after epoch."""

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "epochs": 10,
        "batch_size": 256,
        "lr": None,
        "optimiser": "descent",
    }
    UNIT = "epochs"

    def __init__(
        self, args: argparse.Namespace, data: "npsoftmax.Dataset", client: None = None
    ) -> None:
        import npsoftmax

        X, y = training_part(args, data)
        self.asked = args.epochs
        self.weights = f", weights from N(0, 0.01), seed {args.seed}"
        self.threads = int(os.environ["OPENBLAS_NUM_THREADS"])
        self.trainer = npsoftmax.Trainer(
            new_model(args, data),
            rule(args),
            npsoftmax.DataLoader(X, y, args.batch_size, shuffle=True, seed=args.seed),
            test=(data.X_test, data.y_test),
            l2=args.l2,
            checkpoint_every=args.checkpoint_every,
            identity=identity(data),
        )

    @property
    def done(self) -> int:
        """Finished epochs."""
        return self.trainer.epoch

    @property
    def method(self) -> str:
        """What trains, for a title."""
        return f"{self.trainer.optimiser!r}, batches of {self.trainer.loader.batch_size}"

    def introduction(self) -> str:
        """Say what is about to happen."""
        trainer = self.trainer
        return (
            f"{self.asked} epochs, batches of {trainer.loader.batch_size}, "
            f"{trainer.optimiser!r}, l2={trainer.l2:g}"
        )

    def place(self) -> str:
        """Say where training stands."""
        epoch, step = self.trainer.epoch, self.trainer.step
        if step == 0:
            return f"after epoch {epoch}"
        return f"in epoch {epoch + 1} after step {step} of {len(self.trainer.loader)}"

    def records(self) -> Iterator["EpochRecord"]:
        """Train what is left of the epochs."""
        return self.trainer.run(max(self.asked - self.trainer.epoch, 0))

    def is_shown(self, record: Any) -> bool:
        """Say whether to print a record while training goes on: each."""
        return True

    def bar(self, quiet: bool) -> "tqdm[Any]":
        """Return a bar of the steps on stderr, which shows itself on a terminal only."""
        from tqdm import tqdm

        steps = len(self.trainer.loader)
        return tqdm(
            total=self.asked * steps,
            initial=self.trainer.epoch * steps + self.trainer.step,
            unit="step",
            leave=False,
            disable=True if quiet else None,
        )

    def outcome(self) -> dict[str, Any]:
        """Return what the summary says of this way to train alone."""
        return {"settings": {"optimiser": repr(self.trainer.optimiser)}}


class ExactOptimum:
    """L-BFGS on all samples, to the optimum."""

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "max_iterations": 1000,
        "tol": 1e-5,
        "scheduler": None,
        "workers": None,
    }
    UNIT = "max-iterations"

    def __init__(
        self,
        args: argparse.Namespace,
        data: "npsoftmax.Dataset",
        client: "Client | None" = None,
    ) -> None:
        import npsoftmax

        model = new_model(args, data)
        self.asked = args.max_iterations
        self.weights = ""  # where they start does not matter
        self.trainer = npsoftmax.FullBatchTrainer(
            model,
            problem(args, data, model.input_scale(data.X_train.dtype), client),
            test=(data.X_test, data.y_test),
            tol=args.tol,
            checkpoint_every=args.checkpoint_every or CHECKPOINT_EVERY,
            identity=identity(data),
        )
        self.threads = self.trainer.problem.threads
        self.cluster = None if client is None else described(client)

    @property
    def done(self) -> int:
        """Finished iterations."""
        return max(len(self.trainer.history) - 1, 0)

    @property
    def method(self) -> str:
        """What trains, for a title."""
        return f"L-BFGS, l2={self.trainer.problem.l2:g}"

    def introduction(self) -> str:
        """Say what is about to happen."""
        problem = self.trainer.problem
        return (
            f"L-BFGS on all samples until max|gradient| <= {self.trainer.tol:g}, "
            f"l2={problem.l2:g}, threads={problem.threads}"
        )

    def place(self) -> str:
        """Say where training stands."""
        return f"after iteration {self.done}"

    def records(self) -> Iterator["IterationRecord"]:
        """Train until the tolerance or the last iteration is reached."""
        return self.trainer.run(self.asked)

    def is_shown(self, record: Any) -> bool:
        """Say whether to print a record while training goes on: the first ones, then each tenth."""
        return bool(record.iteration < 10 or record.iteration % 10 == 0)

    def bar(self, quiet: bool) -> "tqdm[Any]":
        """Return a bar that never shows: nobody knows how many iterations it takes."""
        from tqdm import tqdm

        return tqdm(disable=True)

    @cached_property
    def optimum(self) -> "npsoftmax.Optimum":
        """How good the end is; it takes a few passes over the samples to say."""
        return self.trainer.optimum()

    def outcome(self) -> dict[str, Any]:
        """Return what the summary says of this way to train alone."""
        from dataclasses import asdict

        return {"optimum": asdict(self.optimum), "cluster": self.cluster}


Solver = Minibatches | ExactOptimum
SOLVERS: dict[str, type[Minibatches] | type[ExactOptimum]] = {
    "sgd": Minibatches,
    "lbfgs": ExactOptimum,
}


def complete(args: argparse.Namespace) -> None:
    """Fill in the solver's own defaults, and refuse the flags of another one."""
    from npsoftmax.errors import InputError

    for name, kind in SOLVERS.items():
        for flag, value in kind.DEFAULTS.items():
            if name == args.solver:
                given = getattr(args, flag)
                setattr(args, flag, value if given is None else given)
            elif getattr(args, flag) is not None:
                raise InputError(
                    f"--{flag.replace('_', '-')}: expected with --solver {name}, got it with "
                    f"--solver {args.solver}; leave it out"
                )


def refuse_unusable(args: argparse.Namespace) -> None:
    """Raise InputError for settings that no training takes, before any data are loaded for it."""
    from npsoftmax._checks import as_size

    as_size(args.l2, "l2")
    if args.solver == "sgd":
        rule(args)
    else:
        as_size(args.tol, "tol")


def rule(args: argparse.Namespace) -> "npsoftmax.optimisers.Optimiser":
    """Return the optimiser."""
    import npsoftmax

    kind: type[Any] = getattr(npsoftmax.optimisers, OPTIMISERS[args.optimiser])
    optimiser: npsoftmax.optimisers.Optimiser = kind() if args.lr is None else kind(args.lr)
    return optimiser


def problem(
    args: argparse.Namespace, data: "npsoftmax.Dataset", scale: float, client: "Client | None"
) -> "FullBatch":
    """Return the objective on the training images, here or on the workers of a cluster."""
    if client is None:
        from npsoftmax.objective import FullBatch

        X, y = training_part(args, data)
        return FullBatch(X, y, args.l2, scale=scale, threads=args.threads)
    from npsoftmax.ext import cluster

    rows, labels = cluster.training_rows(
        data, client, limit=args.limit, data_dir=args.data_dir, offline=args.offline
    )
    return cluster.FullBatch(rows, labels, args.l2, client, scale=scale)


def described(client: "Client") -> dict[str, Any]:
    """Return what the summary says of a cluster."""
    from importlib.metadata import version

    return {"workers": len(client.nthreads()), "distributed": version("distributed")}


def new_model(args: argparse.Namespace, data: "npsoftmax.Dataset") -> "npsoftmax.SoftmaxRegression":
    """Return the model to train."""
    import npsoftmax

    return npsoftmax.SoftmaxRegression(
        data.X_train.shape[0],
        len(data.classes),
        seed=args.seed,
        dtype=args.dtype,
        classes=data.classes,
    )


def training_part(args: argparse.Namespace, data: "npsoftmax.Dataset") -> tuple[Any, Any]:
    """Return the training images and labels that ``--limit`` leaves."""
    return data.X_train[:, : args.limit], data.y_train[: args.limit]


def identity(data: "npsoftmax.Dataset") -> dict[str, Any]:
    """Return what tells data sets apart in a checkpoint."""
    return {"dataset": data.name, "sha256": data.sha256}
