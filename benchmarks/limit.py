"""Measure how close the training loop is to what the machine can do.

An epoch of ``Trainer`` over Fashion-MNIST runs in turn with the work that no such program avoids:
two matrix products for each batch, on floats in the cache and into existing arrays, and one pass
over the bytes. The products are computed as a whole, and in pieces so small that OpenBLAS does not
copy them on processors with AVX-512. The other parts are timed on their own too, and the loop with
other block sizes; all of this as CPU time of one thread. Then passes over all samples run with one
and two threads, as wall time, which needs a machine without other work.

    python benchmarks/limit.py            # prints the tables, writes results and picture
    python benchmarks/limit.py --docs     # and puts the tables into benchmarks/README.md
    python benchmarks/limit.py --quick    # fewer samples and rounds, nothing written

The data are Fashion-MNIST (``NPSOFTMAX_DATA``).
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import measure

measure.threads(1)

import numpy as np

import npsoftmax as nps
from npsoftmax.objective import FullBatch, Workspace, hot_loop
from npsoftmax.objective.batch import unchecked_loss_and_grad

LOOP = "the loop, Trainer.fit(1)"
PRODUCTS = ("its two products per batch alone", "the products in pieces")
PIECE = 64  # samples: 10 * 784 * 64 is at most 1,000,000 multiplications
GRADIENT, HESSIAN = "loss and gradient", "product with the Hessian"
THREADS = ("one thread", "two threads")
BATCH_SIZES = (32, 256, 1024, 4096)
BLOCK_SIZES = (128, 256, 512, 1024, 2048, 4096)


def parts_of(batch_size: int, samples: int) -> dict[str, Callable[[], Any]]:
    """Return an epoch of the loop, and the parts of it, each for a whole epoch."""
    data = nps.load("fashion-mnist")
    X, y = data.X_train[:, :samples], data.y_train[:samples]
    loader = nps.DataLoader(X, y, batch_size, shuffle=True, seed=0)
    block = min(batch_size, hot_loop.samples_per_block(np.empty((10, 785), np.float32)))
    floats = np.asfortranarray(X[:, :block].astype(np.float32))
    blocks = range(0, samples, block)
    rows = np.ascontiguousarray(X.T)
    # With a single feature, what is left of the loop's work is all but the products.
    small, little, workspace = np.zeros((10, 2), np.float32, order="F"), floats[:1], Workspace()

    def loop() -> Any:
        model = nps.SoftmaxRegression(784, 10, seed=0, pixel_scale=1 / 255)
        nps.Trainer(model, nps.Descent(0.1), loader).fit(1)
        return model.theta

    def losses() -> None:
        for _ in blocks:
            unchecked_loss_and_grad(small, little, y[:block], 0.0, 1 / 255, workspace)

    def conversion() -> None:
        for start in blocks:
            some = X[:, start : start + block]
            np.copyto(floats[:, : some.shape[1]], some, casting="unsafe")

    def gathering() -> None:
        for _ in loader.batches(0):
            pass

    def reading() -> None:
        np.bitwise_xor.reduce(rows.view(np.uint64), axis=None)

    return {
        LOOP: loop,
        **dict(zip(PRODUCTS, products_of(floats, len(blocks)), strict=True)),
        "softmax, losses and their gradient": losses,
        "converting its bytes to float32": conversion,
        "gathering its batches": gathering,
        "reading its bytes once": reading,
    }


def products_of(X: Any, repeats: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the two products of a block, as a whole and in pieces, each a number of times."""
    d, n = X.shape
    rng = np.random.default_rng(0)
    W = np.asfortranarray(rng.normal(0, 0.01, (10, d)).astype(np.float32))
    pieces = X.T.reshape(-1, min(n, PIECE), d)  # samples as rows
    columns, W_by_class = pieces.transpose(0, 2, 1), np.ascontiguousarray(W)
    # All in the memory order that is fastest.
    logits, grad = np.empty((10, n), X.dtype, order="F"), np.empty_like(W)
    logits_of_pieces = np.empty((len(pieces), 10, pieces.shape[1]), X.dtype)
    grad_of_pieces, total = np.empty((len(pieces), 10, d), X.dtype), np.empty_like(W_by_class)

    def whole() -> Any:
        for _ in range(repeats):
            np.matmul(W, X, out=logits)
            np.matmul(logits, X.T, out=grad)
        return grad

    def in_pieces() -> Any:
        for _ in range(repeats):
            np.matmul(W_by_class, columns, out=logits_of_pieces)
            np.matmul(logits_of_pieces, pieces, out=grad_of_pieces)
            np.add.reduce(grad_of_pieces, axis=0, out=total)
        return total

    np.testing.assert_allclose(in_pieces(), whole(), rtol=1e-3, atol=1e-3)
    return whole, in_pieces


def passes_of(dtype: str, samples: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return passes over all samples, with one thread and with two."""
    data = nps.load("fashion-mnist")
    X, y = data.X_train[:, :samples], data.y_train[:samples]
    rng = np.random.default_rng(0)
    theta, V = (np.asfortranarray(rng.normal(0, 0.01, (10, 785)).astype(dtype)) for _ in range(2))
    passes: dict[str, dict[str, Callable[[], Any]]] = {GRADIENT: {}, HESSIAN: {}}
    for threads, name in enumerate(THREADS, start=1):
        problem = FullBatch(X, y, 1e-4, scale=1 / 255, threads=threads)
        passes[GRADIENT][name] = partial(problem.loss_and_grad, theta)
        passes[HESSIAN][name] = partial(problem.hessian_vector_product, theta, V)
    ends = [call().grad for call in passes[GRADIENT].values()]
    np.testing.assert_allclose(*ends, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(*(call() for call in passes[HESSIAN].values()), rtol=1e-3, atol=1e-5)
    return {f"{name}, {dtype}": calls for name, calls in passes.items()}


def loop_in_blocks(samples: int) -> dict[str, Callable[[], Any]]:
    """Return an epoch of batches of 4,096 with each size of block."""
    loop = parts_of(4096, samples)[LOOP]

    def with_blocks(size: int) -> Callable[[], Any]:
        def epoch() -> Any:
            in_use = hot_loop.BLOCK_BYTES
            hot_loop.BLOCK_BYTES = size * 784 * 4
            try:
                return loop()
            finally:
                hot_loop.BLOCK_BYTES = in_use

        np.testing.assert_allclose(epoch(), expected, rtol=1e-3, atol=2e-5, err_msg=str(size))
        return epoch

    expected = loop()
    return {str(size): with_blocks(size) for size in BLOCK_SIZES}


def parts_table(results: dict[str, Any]) -> str:
    """Return milliseconds of the loop, each part's share of them, and the ratio to the products."""
    names = list(next(iter(results.values())))
    rows = []
    for batch_size, row in results.items():
        shares = [measure.middle(row[name], ".0%") for name in names[1:]]
        over = f"{1 / min(row[name]['ratio'] for name in PRODUCTS):.2f}"
        milliseconds = f"{row[LOOP]['median_seconds'] * 1e3:.0f} ms"
        rows.append([batch_size, milliseconds, *shares, over])
    return measure.markdown(["batch", *names, "the loop over its faster products"], rows)


def passes_table(results: dict[str, Any]) -> str:
    """Return milliseconds of each pass with one thread, and the ratio of two threads to one."""
    rows = []
    for name, row in results.items():
        milliseconds = f"{row[THREADS[0]]['median_seconds'] * 1e3:.0f} ms"
        rows.append([name, milliseconds, measure.middle(row[THREADS[1]])])
    return measure.markdown(["pass", THREADS[0], f"{THREADS[1]} over {THREADS[0]}"], rows)


def blocks_table(results: dict[str, Any]) -> str:
    """Return the loop's time with each size of block, relative to the one in use."""
    cells = [measure.middle(row) for row in results.values()]
    return measure.markdown(["samples in a block", *results], [["time", *cells]])


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the page of benchmarks by name."""
    return {
        "limit_machine": measure.described(results["machine"]),
        "limit": parts_table(results["parts"]),
        "limit_blocks": blocks_table(results["blocks"]),
        "limit_passes": passes_table(results["passes"]),
    }


def picture(results: dict[str, Any]) -> Any:
    """Draw the loop and its parts in milliseconds."""
    milliseconds = {
        f"batch {batch_size}": {name: got["median_seconds"] * 1e3 for name, got in row.items()}
        for batch_size, row in results["parts"].items()
    }
    return measure.bars(milliseconds, "An epoch, and what it is made of", "ms per epoch")


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=15).parse_args()
    samples, rounds = (6000, 3) if arguments.quick else (60_000, arguments.rounds)
    parts, passes, clock = {}, {}, time.process_time
    for batch_size in BATCH_SIZES:
        print(f"batch {batch_size}", file=sys.stderr)
        times = measure.in_turn(parts_of(batch_size, samples), rounds, 0.05, clock)
        parts[str(batch_size)] = measure.compared(times, LOOP)
    in_use = str(hot_loop.samples_per_block(nps.SoftmaxRegression(784, 10).theta))
    times = measure.in_turn(loop_in_blocks(samples), rounds, 0, clock)
    blocks = measure.compared(times, in_use)
    for dtype in ("float32", "float64"):
        for name, calls in passes_of(dtype, samples).items():
            print(name, file=sys.stderr)
            passes[name] = measure.compared(measure.in_turn(calls, rounds, 0), THREADS[0])
    results = {"machine": measure.machine(), "parts": parts, "blocks": blocks, "passes": passes}
    measure.publish("limit", results, tables(results), picture, arguments)


if __name__ == "__main__":
    main()
