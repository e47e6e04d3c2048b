"""How to multiply samples by parameters: in one product, or in several small ones.

For processors with AVX-512, OpenBLAS computes small products without copying its operands to
packed buffers, in about half of the time per sample (``interface/gemm.c`` and
``kernel/x86_64/*_small_kernel_permit_skylakex.c``). ``np.matmul`` computes a stack of them in one
call, and the interpreter's lock is released for all of it. What is returned here depends on the
processor and on shapes alone, so that a run can be repeated bit for bit.
"""

from typing import Literal

from npsoftmax._threads import numpys_blas

__all__ = ["has_small_products", "memory_order", "piece_columns"]

SMALL_PRODUCTS = {"SkylakeX", "Cooperlake", "SapphireRapids"}
# A product is small up to this many multiplications and, if the matrix with the samples is to be
# transposed, as in W X, numbers in the result.
MAX_WORK, MAX_LOGITS = 1_000_000, 1200
# With fewer columns, adding the gradients of the pieces takes as long as the pieces save.
MIN_COLUMNS = 32


def has_small_products() -> bool:
    """Whether NumPy's BLAS is faster at several small products than at a large one."""
    return numpys_blas().get("architecture") in SMALL_PRODUCTS


def piece_columns(k: int, rows: int, samples: int) -> int | None:
    """Return the columns of equal pieces in which to multiply samples, or None for one product.

    Pieces of ``(rows, columns)`` multiplied by ``(k, rows)``, and by ``(columns, k)``, are small.
    """
    fitting = min(MAX_WORK // max(1, k * rows), MAX_LOGITS // k)
    if fitting < MIN_COLUMNS or not has_small_products():
        return None
    if samples <= fitting:
        return samples
    sizes = range(fitting, MIN_COLUMNS - 1, -1)
    return next((q for q in sizes if samples % q == 0), None)


def memory_order() -> Literal["C", "F"]:
    """Return the memory order of parameters and gradients for which products are fastest."""
    return "C" if has_small_products() else "F"
