"""Hashes of what must keep its bits while the code is rearranged.

``python tests/bits.py`` prints them as JSON, ``python tests/bits.py --record`` adds them to
``tests/reference/bits.json`` under the kernels and the NumPy version that computed them.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# The products of one thread, by the kernels for processors with AVX2 and without AVX-512, so that
# every such machine and every newer one computes the same bits.
PINNED = {
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "NPSOFTMAX_OFFLINE": "1",
}
RECORD = Path(__file__).with_name("reference") / "bits.json"
ROOT = Path(__file__).parents[1]


def sha(*parts):
    """Return the SHA-256 of arrays and bytes, shapes and dtypes included."""
    import numpy as np

    digest = hashlib.sha256()
    for part in parts:
        if not isinstance(part, bytes):
            part = np.asarray(part)
            digest.update(f"{part.dtype}{part.shape}".encode())
            part = part.tobytes(order="F")
        digest.update(part)
    return digest.hexdigest()[:16]


def samples(d, n, k, kind, seed=0):
    """Draw samples and labels."""
    import numpy as np

    rng = np.random.default_rng(seed)
    if kind == "uint8":
        return rng.integers(0, 256, (n, d), dtype=np.uint8).T, rng.integers(0, k, n)
    return rng.standard_normal((n, d)).astype(kind).T, rng.integers(0, k, n)


def steps(dtype, kind, d, k, batch_size, rule):
    """Return the parameters after 20 steps."""
    import npsoftmax as nps

    X, y = samples(d, 20 * batch_size, k, kind)
    scale = 1 / 255 if kind == "uint8" else None
    model = nps.SoftmaxRegression(d, k, dtype=dtype, seed=1, pixel_scale=scale)
    nps.Trainer(model, rule, nps.DataLoader(X, y, batch_size, shuffle=True, seed=2), l2=1e-4).fit(1)
    return model.theta


def hashes():
    """Compute everything; return name -> hash."""
    import numpy as np
    from oracle import FAMILIES

    import npsoftmax as nps
    from npsoftmax import functional as F
    from npsoftmax import storage

    found = {}
    for dtype in ("float32", "float64"):
        for kind in ("uint8", dtype):
            for name, rule in (("descent", nps.Descent(0.1)), ("adam", nps.Adam(0.01))):
                theta = steps(dtype, kind, 200, 10, 256, rule)
                found[f"20 steps, {dtype}, {kind}, {name}"] = sha(theta)
        theta = steps(dtype, dtype, 12, 9000, 64, nps.Descent(0.1))
        found[f"20 steps, {dtype}, 9,000 classes"] = sha(theta)
        for threads in (1, 2):
            kind, scale = ("uint8", 1 / 255) if threads == 2 else (dtype, None)
            X, y = samples(200, 4000, 10, kind)
            model = nps.SoftmaxRegression(200, 10, dtype=dtype, pixel_scale=scale)
            optimum = nps.fit(model, X, y, l2=1e-3, threads=threads, tol=1e-4)
            numbers = [optimum.objective, optimum.max_gradient, optimum.suboptimality]
            found[f"fit, {dtype}, {threads} threads"] = sha(model.theta, numbers)
        X, y = samples(12, 900, 9000, dtype)
        model = nps.SoftmaxRegression(12, 9000, dtype=dtype)
        nps.fit(model, X, y, l2=1e-2, max_iterations=3, threads=1)
        found[f"fit, {dtype}, 9,000 classes"] = sha(model.theta)
        for family in FAMILIES:
            x = family(np.random.default_rng(3), 10, 64, dtype).astype(dtype)
            labels = np.arange(64) % 10
            losses = F.logitcrossentropy(x, labels, agg="none")
            loss, grad = F.logitcrossentropy_and_grad(x, labels)
            results = [F.softmax(x), F.logsoftmax(x), F.logsumexp(x, 0), losses, loss, grad]
            found[f"softmax family, {dtype}, {family.__name__}"] = sha(*results)
    X, y = samples(20, 300, 3, "float64")
    model = nps.SoftmaxRegression(20, 3, classes=["ant", "bee", "cat"], seed=5)
    trainer = nps.Trainer(model, nps.Momentum(0.1), nps.DataLoader(X, y, 32, shuffle=True), l2=0.1)
    trainer.fit(2)
    model.save("model.npz")
    trainer.save_checkpoint("checkpoint.npz")
    found["model file"] = sha(Path("model.npz").read_bytes())
    arrays, metadata = storage.read("checkpoint.npz", "checkpoint")
    del metadata["environment"]
    for record in [metadata["progress"], *metadata["history"]]:
        for name in [name for name in record if "seconds" in name]:
            del record[name]
    found["checkpoint"] = sha(*arrays.values(), json.dumps([list(arrays), metadata]).encode())
    return found


def printed(*flags):
    """Return what the training command prints, without times, folders and where data came from."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--dataset", "garments", *flags]
    done = subprocess.run(
        [*command, "--run-dir", "run"], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("          ")]
    text = re.sub(r"\d+\.\d\d s\b|\ndrawn .*", "", "\n".join(lines))
    return re.sub("python .*(scripts/evaluate.py run/model.npz).*", r"python \1", text)


def main():
    """Print the hashes, or record them."""
    if any(os.environ.get(name) != value for name, value in PINNED.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **PINNED})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = hashes()
        found["printed, minibatches"] = sha(printed("--epochs", "2").encode())
        flags = ("--solver", "lbfgs", "--l2", "1e-3", "--threads", "1", "--tol", "1e-3")
        os.rename("run", "first")
        found["printed, lbfgs"] = sha(printed(*flags).encode())
        os.chdir("/")
    import numpy as np

    if "--record" in sys.argv:
        known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        known[np.__version__] = found
        RECORD.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
