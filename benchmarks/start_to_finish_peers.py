"""The tutorials' programs that ``start_to_finish.py`` runs as whole processes.

    python benchmarks/start_to_finish_peers.py FOLDER EPOCHS {as_printed,concise}

FOLDER holds the four unpacked IDX files, as torchvision leaves them. The test accuracy is computed
after every epoch. The last one is written to ``summary.json`` in the working folder, as train.py
does.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import hot_loop_peers
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

BATCH_SIZE, LEARNING_RATE = 256, 0.1


def split(folder: Path, name: str) -> tuple[Any, Any]:
    """Return the images (n, 784) and labels (n,) of ``train`` or ``t10k``, both uint8."""
    images = np.fromfile(folder / f"{name}-images-idx3-ubyte", np.uint8, offset=16)
    return images.reshape(-1, 784), np.fromfile(
        folder / f"{name}-labels-idx1-ubyte", np.uint8, offset=8
    )


def tensors(images: Any, labels: Any) -> tuple[Any, Any]:
    """Return images as float32 from 0 to 1, and labels, in memory."""
    return torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long()


def as_printed(folder: Path, epochs: int) -> float:
    """Train the first tutorial's program.

    The test images are taken in memory: image by image, as printed, they would cost it more.
    """
    images, labels = split(folder, "train")
    X_test, y_test = tensors(*split(folder, "t10k"))
    rng = np.random.default_rng(0)
    theta = rng.normal(0, 0.01, (10, 785)).astype(np.float32)
    theta[:, -1] = 0
    for _ in range(epochs):
        order = rng.permutation(labels.size)
        problem = hot_loop_peers.Problem(images.T, labels, theta, order, BATCH_SIZE, LEARNING_RATE)
        theta = hot_loop_peers.as_printed(problem)()
        gc.collect()  # its data set is a class in a cycle, which would keep each epoch's images
        W, b = hot_loop_peers.weights(problem._replace(theta=theta), grad=False)
        accuracy = ((X_test @ W + b).argmax(1) == y_test).float().mean().item()
    return accuracy


def concise(folder: Path, epochs: int) -> float:
    """Train the Colab demo's program: nn.Linear, CrossEntropyLoss, SGD and two DataLoaders."""
    torch.manual_seed(0)
    train, test = (TensorDataset(*tensors(*split(folder, name))) for name in ("train", "t10k"))
    batches = DataLoader(train, BATCH_SIZE, shuffle=True)
    model, loss = torch.nn.Linear(784, 10), torch.nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for X, y in batches:
            optimiser.zero_grad()
            loss(model(X), y).backward()
            optimiser.step()
        with torch.no_grad():
            hits = [(model(X).argmax(1) == y).sum() for X, y in DataLoader(test, BATCH_SIZE)]
        accuracy = torch.stack(hits).sum().item() / len(test)
    return accuracy


if __name__ == "__main__":
    folder, epochs, program = sys.argv[1:]
    test_acc = {"as_printed": as_printed, "concise": concise}[program](Path(folder), int(epochs))
    Path("summary.json").write_text(json.dumps({"test_acc": test_acc}))
