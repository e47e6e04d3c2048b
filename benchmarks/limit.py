"""Measure how close the training loop is to what the machine can do.

An epoch of ``Trainer`` over Fashion-MNIST runs in turn with the work that no such program avoids:
two matrix products for each batch, on floats in the cache and into existing arrays, and one pass
over the bytes. The other parts are timed on their own too, and the loop with other block sizes.

    python benchmarks/limit.py            # prints the tables, writes results and picture
    python benchmarks/limit.py --docs     # and puts the tables into benchmarks/README.md
    python benchmarks/limit.py --quick    # fewer samples and rounds, nothing written

The data are Fashion-MNIST (``NPSOFTMAX_DATA``).
"""

import sys
from collections.abc import Callable
from typing import Any

import measure

measure.threads(1)

import numpy as np

import npsoftmax as nps
from npsoftmax.objective import hot_loop

LOOP = "the loop, Trainer.fit(1)"
PRODUCTS = "its two products per batch alone"
BATCH_SIZES = (32, 256, 1024, 4096)
BLOCK_SIZES = (128, 256, 512, 1024, 2048, 4096)


def parts_of(batch_size: int, samples: int) -> dict[str, Callable[[], Any]]:
    """Return an epoch of the loop, and the parts of it, each for a whole epoch."""
    data = nps.load("fashion-mnist")
    X, y = data.X_train[:, :samples], data.y_train[:samples]
    loader = nps.DataLoader(X, y, batch_size, shuffle=True, seed=0)
    model = nps.SoftmaxRegression(784, 10, seed=0, pixel_scale=1 / 255)
    W = model.W
    block = min(batch_size, hot_loop.samples_per_block(model.theta))
    floats = np.asfortranarray(X[:, :block].astype(np.float32))
    logits = np.empty((10, block), np.float32, order="F")
    grad, grad_of_bias = np.empty_like(W), np.empty((10, 1), np.float32, order="F")
    # Without features the products cost nothing and the bias is all of the logits.
    bias, nothing = np.asfortranarray(model.theta[:, -1:]), np.empty((0, block), floats.dtype)
    loop_block, labels = hot_loop.Block(bias, block), y[:block]
    blocks = range(0, samples, block)
    rows = np.ascontiguousarray(X.T)

    def loop() -> Any:
        model = nps.SoftmaxRegression(784, 10, seed=0, pixel_scale=1 / 255)
        nps.Trainer(model, nps.Descent(0.1), loader).fit(1)
        return model.theta

    def products() -> None:
        for _ in blocks:
            np.matmul(W, floats, out=logits)
            np.matmul(logits, floats.T, out=grad)

    def losses() -> None:
        for _ in blocks:
            loop_block.losses(bias, nothing, labels, 1 / 255)
            loop_block.gradient(bias, nothing, 1 / 255, batch_size, grad_of_bias, None)

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
        PRODUCTS: products,
        "softmax, losses and their gradient": losses,
        "converting its bytes to float32": conversion,
        "gathering its batches": gathering,
        "reading its bytes once": reading,
    }


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
    """Return milliseconds of the loop, and each part's share of them."""
    names = list(next(iter(results.values())))
    rows = []
    for batch_size, row in results.items():
        shares = [
            f"{row[n]['ratio']:.0%} ({row[n]['ratio_low']:.0%} to {row[n]['ratio_high']:.0%})"
            for n in names[1:]
        ]
        rows.append([batch_size, f"{row[LOOP]['median_seconds'] * 1e3:.0f} ms", *shares])
    return measure.markdown(["batch", *names], rows)


def blocks_table(results: dict[str, Any]) -> str:
    """Return the loop's time with each size of block, relative to the one in use."""
    cells = [
        f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        for row in results.values()
    ]
    return measure.markdown(["samples in a block", *results], [["time", *cells]])


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the page of benchmarks by name."""
    return {
        "limit_machine": measure.described(results["machine"]),
        "limit": parts_table(results["parts"]),
        "limit_blocks": blocks_table(results["blocks"]),
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
    parts = {}
    for batch_size in BATCH_SIZES:
        print(f"batch {batch_size}", file=sys.stderr)
        times = measure.in_turn(parts_of(batch_size, samples), rounds, seconds=0.05)
        parts[str(batch_size)] = measure.compared(times, LOOP)
    in_use = str(hot_loop.samples_per_block(nps.SoftmaxRegression(784, 10).theta))
    blocks = measure.compared(measure.in_turn(loop_in_blocks(samples), rounds, seconds=0), in_use)
    results = {"machine": measure.machine(), "parts": parts, "blocks": blocks}
    measure.publish("limit", results, tables(results), picture, arguments)


if __name__ == "__main__":
    main()
