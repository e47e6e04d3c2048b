"""The first tutorial's program in PyTorch, from given weights and in a given order of batches.

    NPSOFTMAX_DATA=... python tests/reference/make_torch_reference.py

writes ``torch_fashion_mnist.npz``: the parameters after ten epochs in float64, and the last
epoch's mean training loss. The tests compare with this file where PyTorch is absent, and run
``train`` itself where it is present. Made with torch 2.13.0 (CPU), NumPy 2.4.
"""

from pathlib import Path

import numpy as np
import torch

import npsoftmax

REFERENCE = Path(__file__).with_name("torch_fashion_mnist.npz")
EPOCHS, BATCH_SIZE, LEARNING_RATE = 10, 256, 0.1


def softmax(O):  # noqa: E741
    O_exp = torch.exp(O)
    return O_exp / O_exp.sum(1, keepdim=True)


def cross_entropy(y_hat, y):
    return -torch.log(y_hat[range(len(y_hat)), y])


def train(theta, X, y, permutations, dtype):
    """Return ``theta`` (k, d+1) after one epoch per permutation, and the last epoch's loss."""
    W = torch.tensor(theta[:, :-1].T.copy(), dtype=dtype, requires_grad=True)
    b = torch.tensor(theta[:, -1].copy(), dtype=dtype, requires_grad=True)
    features = torch.tensor(np.ascontiguousarray(X.T)).to(dtype) / 255
    labels = torch.tensor(y)
    for order in permutations:
        total = 0.0
        for chosen in torch.tensor(order).split(BATCH_SIZE):
            y_hat = softmax(torch.matmul(features[chosen], W) + b)
            losses = cross_entropy(y_hat, labels[chosen])
            losses.mean().backward()
            with torch.no_grad():
                for parameter in (W, b):
                    parameter -= LEARNING_RATE * parameter.grad
                    parameter.grad.zero_()
            total += losses.sum().item()
    trained = torch.cat([W.T, b[:, None]], dim=1).detach().numpy()
    return trained, total / len(y)


if __name__ == "__main__":
    data = npsoftmax.load("fashion-mnist")
    loader = npsoftmax.DataLoader(data.X_train, data.y_train, BATCH_SIZE, shuffle=True, seed=0)
    theta = npsoftmax.SoftmaxRegression(784, 10, dtype=np.float64).theta
    orders = [loader.permutation(epoch) for epoch in range(EPOCHS)]
    trained, loss = train(theta, data.X_train, data.y_train, orders, torch.float64)
    np.savez_compressed(REFERENCE, theta=trained, train_loss=loss)
    print(f"{REFERENCE}: train_loss {loss:.6f}")
