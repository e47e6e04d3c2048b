# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From functions to objects: the JAX slides in NumPy
#
# The d2l slides on softmax regression, in their edition for JAX, go from sums along an axis to a
# classifier that is trained by three objects: the data, the model and the trainer. This notebook
# goes the same way in NumPy, writes the three objects in 40 lines, and then replaces them by
# those of `npsoftmax`.
#
# In the slides each sample is a row, here it is a column. So what is axis 1 there is axis 0 here,
# and the other way round. If a word is new to you, [from_scratch.py](from_scratch.py) explains
# it.

# %%
import numpy as np
from matplotlib.figure import Figure

import npsoftmax as nps
from npsoftmax.ext import plots

# %%
try:
    data = nps.load("fashion-mnist")
except nps.errors.DataUnavailableError:  # no network: garments drawn by code
    data = nps.load("garments")
print(f"{data.name}: {data.X_train.shape[1]} training and {data.X_test.shape[1]} test images")

# %% [markdown]
# `plots.grid` shows images with titles. The slides call this `visualize`, and the names of the
# classes `text_labels`.

# %%
plots.grid(data.X_train[:, :16], [data.classes[label] for label in data.y_train[:16]])

# %% [markdown]
# The first sixteen training images with their labels.
#
# ## Sums along an axis
#
# A sum along axis 0 goes down the columns, one along axis 1 along the rows. With `keepdims=True`
# the axis stays, with the length 1, so that the sums can be divided into what was summed.

# %%
X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
print(X.sum(axis=0, keepdims=True))
print(X.sum(axis=1, keepdims=True))

# %% [markdown]
# Divided by its sum, each column becomes a set of shares:

# %%
X / X.sum(axis=0, keepdims=True)

# %% [markdown]
# ## Softmax
#
# The softmax does this with the exponentials of the numbers, which are never negative. The slides
# write it in three lines:


# %%
def softmax(Z):
    Z_exp = np.exp(Z)
    return Z_exp / Z_exp.sum(axis=0, keepdims=True)


Z = np.random.default_rng(0).random((5, 2))
P = softmax(Z)
print(P.round(3))
print("sums:", P.sum(axis=0))

# %% [markdown]
# The slides warn that this is not robust, and leave it to the framework to do better.
# `nps.softmax` subtracts the largest number of each column first. The result is the same, and no
# exponential overflows:

# %%
z = np.array([1000.0, 0.0, 0.0])
with np.errstate(all="ignore"):  # or NumPy warns
    print("three lines:", softmax(z))
print("nps.softmax:", nps.softmax(z))

# %% [markdown]
# ## Cross-entropy by indexing
#
# Two samples and three classes. The probabilities of a sample are a column, and its label says
# which of them counts. Indexing with two lists takes one number for each pair:

# %%
y = np.array([0, 2])
P = np.array([[0.1, 0.3], [0.3, 0.2], [0.6, 0.5]])
P[y, [0, 1]]


# %%
def cross_entropy(P, y):
    P = np.maximum(P, 1e-12)  # so that the logarithm is finite
    return -np.log(P[y, np.arange(len(y))]).mean()


print(f"{cross_entropy(P, y):.4f}")

# %% [markdown]
# The clip at 1e-12 is in the slides. It prevents an infinite loss, and hides the worst errors:
# below the limit, a smaller probability costs no more. To see it, let two classes have the logits
# 0 and $m$, and let the label be the first one. The true loss is $\log(1 + e^m)$, close to $m$.

# %%
m = np.linspace(0, 60, 121)
Z = np.vstack([np.zeros_like(m), m])
wrong = np.zeros(1, dtype=int)
clipped = [cross_entropy(nps.softmax(Z[:, [j]]), wrong) for j in range(m.size)]
exact = [nps.logitcrossentropy(Z[:, [j]], wrong) for j in range(m.size)]

figure = Figure(figsize=(6, 3.2), layout="constrained")
ax = figure.subplots()
ax.plot(m, clipped, label="from clipped probabilities")
ax.plot(m, exact, "--", label="from logits")
ax.set(xlabel="logit of the wrong class, m", ylabel="loss")
ax.legend()
figure

# %% [markdown]
# Beyond 27.6 the clipped loss is flat. Its gradient is 0 there, and the model learns nothing from
# the samples that it gets most wrong. `nps.logitcrossentropy` computes the loss from the logits,
# and needs no clip.
#
# ## Three objects
#
# The slides divide the program into parts that can be exchanged:
#
# | object | knows | in the slides |
# |---|---|---|
# | data | the batches of an epoch, and the test images | `DataModule` |
# | classifier | the parameters, the loss and its gradient | `Module`, `Classifier` |
# | trainer | the loop, and what it has recorded | `Trainer` |
#
# JAX derives the gradient by itself. We write it by hand in three lines. With respect to the
# logits it is the probabilities, minus 1 at the label ([the
# derivation](../docs/derivation.md#6-cross-entropy-on-logits)).


# %%
class Batches:
    def __init__(self, data, batch_size=256):
        self.data, self.batch_size = data, batch_size

    def train(self, epoch):
        order = np.random.default_rng([0, epoch]).permutation(self.data.y_train.size)
        for start in range(0, order.size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield self.data.X_train[:, chosen] / 255, self.data.y_train[chosen]

    def test(self):
        return self.data.X_test / 255, self.data.y_test


class Classifier:
    def __init__(self, num_inputs, num_outputs, sigma=0.01):
        self.W = sigma * np.random.default_rng(0).standard_normal((num_inputs, num_outputs)).T
        self.b = np.zeros((num_outputs, 1))

    def logits(self, X):
        return self.W @ X + self.b

    def gradient(self, X, y):
        D = nps.softmax(self.logits(X))
        D[y, np.arange(y.size)] -= 1
        return D @ X.T / y.size, D.mean(axis=1, keepdims=True)


class Trainer:
    def __init__(self, max_epochs, lr):
        self.max_epochs, self.lr, self.history = max_epochs, lr, []

    def fit(self, model, batches):
        for epoch in range(self.max_epochs):
            for X, y in batches.train(epoch):
                W_grad, b_grad = model.gradient(X, y)
                model.W -= self.lr * W_grad
                model.b -= self.lr * b_grad
            X, y = batches.test()
            Z = model.logits(X)
            record = nps.logitcrossentropy(Z, y), (Z.argmax(axis=0) == y).mean()
            self.history.append(record)


# %% [markdown]
# The random keys of JAX make a run repeatable, and so do our seeds. `jit` compiles functions, and
# NumPy's operations on whole arrays are compiled already.
#
# Three lines train the model, as in the slides:

# %%
ours = Classifier(784, 10)
trainer = Trainer(max_epochs=10, lr=0.1)
trainer.fit(ours, Batches(data))
for epoch, (loss, accuracy) in enumerate(trainer.history, start=1):
    print(f"epoch {epoch:2}: test loss {loss:.4f}, test accuracy {accuracy:.4f}")

# %% [markdown]
# The slides call the test images their validation set and reach 0.83 on Fashion-MNIST, as this
# does. The name matters as soon as something is chosen by this number, a learning rate for
# example: then other images must be held out for the choice ([what the tutorials get
# wrong](../docs/tutorials.md)).
#
# ## The same with the objects of the project
#
# | ours | the project's | what it adds |
# |---|---|---|
# | `Batches` | `nps.DataLoader` | each epoch can be repeated, from any of its batches |
# | `Classifier` | `nps.SoftmaxRegression` | class names, files, calibration, decisions |
# | `lr` | `nps.Descent(0.1)` | other rules: `Momentum`, `Nesterov`, `Adam`, `AdamW` |
# | `Trainer` | `nps.Trainer` | training loss, checkpoints, a stop if the loss is not finite |
#
# The slides draw the curves while the model trains. `plots.live` does so for the records that
# `Trainer.run` yields.

# %%
model = nps.SoftmaxRegression(784, 10, classes=data.classes, pixel_scale=data.pixel_scale)
loader = nps.DataLoader(data.X_train, data.y_train, batch_size=256, shuffle=True)
trainer = nps.Trainer(model, nps.Descent(0.1), loader, test=(data.X_test, data.y_test))
history = list(plots.live(trainer.run(epochs=10)))
print(f"test loss {history[-1].test_loss:.4f}, test accuracy {history[-1].test_acc:.4f}")

# %% [markdown]
# Left the mean loss, right the accuracy. The training loss of an epoch is the mean over its
# batches, with the weights as they were at each batch. So in the first epoch it is above the test
# loss, which is measured afterwards.
#
# The seed of the first weights and of the batches is 0 here too, so the test losses are those of
# our 40 lines. Only the last digits of the weights differ, since the project computes in float32
# unless it is told otherwise:

# %%
print(f"largest difference of a weight: {abs(model.W - ours.W).max():.1e}")

# %% [markdown]
# ## Predictions
#
# The first 256 test images. The predicted class is the row of the largest logit:

# %%
X, y = data.X_test[:, :256], data.y_test[:256]
predicted = model.predict(X)
print(predicted.shape, f"{(predicted == y).mean():.3f} of them are right")

# %% [markdown]
# And those that are wrong, the true class above the predicted one:

# %%
wrong = np.flatnonzero(predicted != y)[:16]
titles = [f"{data.classes[y[j]]}\n{data.classes[predicted[j]]}" for j in wrong]
plots.grid(X[:, wrong], titles)

# %% [markdown]
# Many of these are hard for people too. Which classes are mistaken for which? Each cell of the
# next figure counts the test images of the true class of its row that were predicted as the class
# of its column.

# %%
counts = nps.metrics.confusion_matrix(model.predict(data.X_test), data.y_test, 10)
figure = Figure(figsize=(7, 5.6), layout="constrained")
plots.confusion(counts, data.classes, figure.subplots())
figure

# %% [markdown]
# The right answers are on the diagonal. Most errors are between garments for the upper part of
# the body.
#
# ## How good could it be?
#
# How much smaller could the training loss be? [from_scratch.py](from_scratch.py) derives this
# floor for all weights that are no larger than ours, from a fit whose distance to the optimum is
# proved:

# %%
best = nps.SoftmaxRegression(784, 10, pixel_scale=data.pixel_scale)
optimum = nps.fit(best, data.X_train, data.y_train, l2=0.005)
floor = optimum.objective - optimum.suboptimality - 0.005 / 2 * (model.W**2).sum()
loss = nps.logitcrossentropy(model.logits(data.X_train), data.y_train)
print(f"The loss is {loss:.4f}; the smallest possible is at least {floor:.4f}.")

# %% [markdown]
# ## The exercises
#
# The slides end with questions: the softmax at 100, the cross-entropy by its definition, a large
# vocabulary of labels, and when not to return the most likely label. [They are answered here with
# the program that shows each answer](../docs/exercises.md).
