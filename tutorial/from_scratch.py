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
# # Softmax regression from scratch
#
# This notebook teaches a computer to name pieces of clothing in small pictures. Everything that
# learns is written here, in about forty lines of NumPy. You need to know Python. You do not need
# to know machine learning: each new word is in **bold** where it is explained.
#
# A well-known tutorial does the same with PyTorch. Its lines are quoted above ours, so that you
# can compare them. PyTorch is not needed. At the end, the loop of `npsoftmax` repeats our
# training, and we prove how low the loss can become with weights of the size of ours.

# %%
import matplotlib.pyplot as plt
import numpy as np

import npsoftmax as nps

# %% [markdown]
# ## The data
#
# Fashion-MNIST has 60,000 pictures of ten kinds of clothing. If it is neither on this computer
# nor can be downloaded, the next cell uses `garments`: pictures of the same kinds, drawn by a
# program.

# %%
try:
    data = nps.load("fashion-mnist")
except nps.errors.DataUnavailableError:  # no network: garments drawn by code
    data = nps.load("garments")
print(data.name)
print(data.X_train.shape, data.X_train.dtype, data.y_train.shape)

# %% [markdown]
# `X_train` is a table of numbers, an array with two axes. Each column is one picture, which is
# also called a **sample**. A picture has 28 x 28 = 784 pixels, and its column lists them row by
# row. Each number is the brightness of one pixel, from 0 (black) to 255 (white). The numbers of a
# sample are called its **features**.
#
# `y_train` holds the right answers: a number from 0 to 9 for each picture, its **label**. The
# label says which of the ten **classes** the picture shows.

# %%
print("the first labels:", data.y_train[:12])
for number, name in enumerate(data.classes):
    print(number, name)

# %%
figure, axes = plt.subplots(2, 6, figsize=(9, 3.6), layout="constrained")
for ax, column, label in zip(axes.flat, data.X_train.T, data.y_train, strict=False):
    ax.imshow(column.reshape(28, 28), cmap="gray")
    ax.set(title=data.classes[label], xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The first twelve pictures, with the names of their classes.
#
# There is a second set of pictures, `X_test` with `y_test`. We learn from the **training data**
# only. The **test data** are kept back until the end of each round, to find out how well the
# program does on pictures that it has not seen.
#
# Pixels from 0 to 255 are inconveniently large. We divide them by 255, so that each is between 0
# and 1. From here on, `X` is a table of such pixels and `y` are its labels. `[:, :5]` takes all
# rows and the first five columns, so these are the first five pictures:

# %%
X, y = data.X_train[:, :5] / 255, data.y_train[:5]
print(X.shape, y)

# %% [markdown]
# ## The model
#
# A **model** is a formula with numbers in it that are to be learned. Ours computes one score for
# each class. The score of class $i$ for a picture $x$ is a weighted sum of its pixels:
#
# $$z_i = w_{i1} x_1 + w_{i2} x_2 + \dots + w_{i,784} x_{784} + b_i .$$
#
# The factors $w_{ij}$ are the **weights**. A positive weight says: a bright pixel here speaks for
# this class. The number $b_i$ is the **bias** of the class. The scores are called **logits**.
#
# The weights of all classes are a table `W` of 10 rows and 784 columns. The product of two
# tables, `W @ X`, computes the weighted sums of all classes for all pictures at once. The weights
# begin as small random numbers around 0.
#
# In PyTorch, where samples are rows:
# ```python
# W = torch.normal(0, 0.01, size=(784, 10), requires_grad=True)
# b = torch.zeros(10, requires_grad=True)
# torch.matmul(X, W) + b
# ```
# Here, where samples are columns:

# %%
rng = np.random.default_rng(seed=0)
W_start = rng.normal(0, 0.01, size=(10, 784))
b_start = np.zeros((10, 1))


def logits(W, b, X):
    return W @ X + b


W, b = W_start, b_start
print(logits(W, b, X).round(2))

# %% [markdown]
# Ten rows, one for each class, and five columns, one for each picture. The weights are random so
# far, so these scores mean nothing yet.
#
# The shape of `b` is (10, 1). When NumPy adds it to a table of shape (10, 5), it adds it to each
# of the five columns.
#
# ## From scores to probabilities
#
# We want probabilities: ten numbers that are not negative and have the sum 1. The **softmax**
# makes them from the logits. It takes the exponential of each, which is never negative, and
# divides by the sum:
#
# $$p_i = \frac{e^{z_i}}{e^{z_1} + \dots + e^{z_{10}}} .$$
#
# In PyTorch:
# ```python
# def softmax(O):
#     O_exp = torch.exp(O)
#     return O_exp / O_exp.sum(1, keepdim=True)
# ```
# Here the classes are on axis 0, so the sum goes down each column. With `keepdims=True` the sums
# stay a table, of one row, and NumPy divides each row of `Z_exp` by it:


# %%
def softmax(Z):
    Z_exp = np.exp(Z)
    return Z_exp / Z_exp.sum(axis=0, keepdims=True)


P = softmax(logits(W, b, X))
print(P.round(2))
print("sums of the columns:", P.sum(axis=0))

# %% [markdown]
# Each probability is close to 0.1: before it has learned anything, the model guesses.
#
# What does the softmax do to larger differences? A logit that is larger by 1 makes the
# probability larger by the factor $e = 2.718...$, compared with that of another class.

# %%
Z = np.array([[1.0], [2.0], [3.0], [5.0]])
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
left.bar(range(4), Z[:, 0])
left.set(xlabel="class", ylabel="logit", xticks=range(4))
right.bar(range(4), softmax(Z)[:, 0])
right.set(xlabel="class", ylabel="probability", xticks=range(4))
plt.show()

# %% [markdown]
# Left: four logits. Right: their softmax. The largest logit gets most of the probability, and the
# others keep a little. This is why it is a *soft* maximum.
#
# ## How wrong is it?
#
# To improve the model we need one number that says how wrong it is, the **loss**. For one picture
# it is the negative logarithm of the probability that the model gave to the right class:
#
# $$\ell = -\log p_y .$$
#
# If the model is certain and right, then $p_y = 1$ and the loss is 0. The smaller $p_y$ is, the
# larger is the loss, without a limit. It is called the **cross-entropy**. The loss of many
# pictures is the mean of their losses.
#
# In PyTorch:
# ```python
# def cross_entropy(y_hat, y):
#     return -torch.log(y_hat[range(len(y_hat)), y])
# ```
# Here, `P[y, [0, 1, 2, ...]]` takes one number from each column of `P`, that of the row `y`:


# %%
def cross_entropy(P, y):
    return -np.log(P[y, np.arange(len(y))])


print(cross_entropy(P, y).round(3))
print(f"a guess among ten classes: -log(1/10) = {-np.log(1 / 10):.3f}")

# %% [markdown]
# ## Where this breaks, and what helps
#
# Numbers in a computer have a largest value. For `exp` it is reached soon: $e^{710}$ is already
# too large, and becomes infinite. Infinity divided by infinity is not a number, `nan`. One such
# logit would spoil all that is learned.

# %%
Z = np.array([[1000.0], [0.0], [0.0]])
with np.errstate(all="ignore"):  # or NumPy warns
    print("softmax: ", softmax(Z).ravel())
    print("loss of class 1:", cross_entropy(softmax(Z), np.array([1])))

# %% [markdown]
# Two steps mend this.
#
# 1. Subtract the largest logit of each column first. This multiplies the numerator and the
#    denominator of the softmax by the same number, so the result is the same. Now the largest
#    exponential is $e^0 = 1$.
# 2. A probability can still be so small that it is rounded to 0, and $\log 0$ is minus infinity.
#    So the loss is computed from the logits, without a detour through the probabilities:
#
# $$\ell = -\log \frac{e^{z_y}}{\sum_i e^{z_i}} = \log \sum_i e^{z_i} - z_y .$$


# %%
def softmax(Z):
    Z_exp = np.exp(Z - Z.max(axis=0, keepdims=True))
    return Z_exp / Z_exp.sum(axis=0, keepdims=True)


def losses(Z, y):
    Z = Z - Z.max(axis=0, keepdims=True)
    return np.log(np.exp(Z).sum(axis=0)) - Z[y, np.arange(len(y))]


print("softmax: ", softmax(Z).ravel())
print("loss of class 1:", losses(Z, np.array([1])))
print("the five pictures:", losses(logits(W, b, X), y).round(3))

# %% [markdown]
# The loss of class 1 is 1000 and not infinite, and the five pictures have the same losses as
# before.
#
# ## Which way is down?
#
# The loss depends on 7,850 numbers, the weights and biases. For each we ask: if it grows a
# little, how fast does the loss grow? The answers together are the **gradient**, a table of the
# same shape as `W` and `b`. If each number is changed a little *against* its gradient, the loss
# gets smaller.
#
# PyTorch finds the gradient when `loss.mean().backward()` is called. We can do it by hand. (This
# needs the rules for derivatives. If you do not know them, go on to the code and the check below
# it.) Start from $\ell = \log \sum_i e^{z_i} - z_y$. Its derivative with respect to one logit is
#
# $$\frac{\partial \ell}{\partial z_i}
# = \frac{e^{z_i}}{\sum_c e^{z_c}} - [i = y] = p_i - [i = y] ,$$
#
# where $[i = y]$ is 1 for the right class and 0 for the others. This is the probability minus
# what it should be. And since $z_i = w_{i1} x_1 + \dots + b_i$, the chain rule gives
#
# $$\frac{\partial \ell}{\partial w_{ij}} = (p_i - [i = y]) \, x_j , \qquad
# \frac{\partial \ell}{\partial b_i} = p_i - [i = y] .$$
#
# For many pictures, the gradient of the mean loss is the mean of these. The product `D @ X.T`
# adds them up over the pictures:


# %%
def gradients(W, b, X, y):
    D = softmax(logits(W, b, X))
    D[y, np.arange(len(y))] -= 1
    D /= len(y)
    return D @ X.T, D.sum(axis=1, keepdims=True)


# %% [markdown]
# Is this right? Change one weight a little, up and down, and see how the loss changes. This
# estimate is slow, but it needs no formula. It should agree in most of the digits.

# %%
W_grad, b_grad = gradients(W, b, X, y)
step = np.zeros_like(W)
for i, j in [(0, 406), (3, 434), (9, 462)]:
    step[i, j] = 1e-5
    rise = losses(logits(W + step, b, X), y).mean() - losses(logits(W - step, b, X), y).mean()
    step[i, j] = 0
    print(f"weight {i, j}: formula {W_grad[i, j]:+.8f}, estimate {rise / 2e-5:+.8f}")

# %% [markdown]
# ## One step
#
# **Gradient descent** changes the weights and biases against the gradient, again and again. Each
# number moves by its gradient times the **learning rate**, here 0.1. The loss of this model has
# the shape of a bowl: wherever we begin, the way down leads to the lowest point.
#
# In PyTorch:
# ```python
# for param in (W, b):
#     param -= learning_rate * param.grad
#     param.grad.zero_()
# ```
# Here there is no stored gradient that has to be set to zero. What does the length of the step
# do? We take the gradient of 256 pictures and try many learning rates.

# %%
X, y = data.X_train[:, :256] / 255, data.y_train[:256]
W_grad, b_grad = gradients(W, b, X, y)
rates = np.linspace(0, 1, 101)
after = [losses(logits(W - eta * W_grad, b - eta * b_grad, X), y).mean() for eta in rates]

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(rates, after)
ax.plot(0.1, after[10], "o", label="0.1")
ax.set(xlabel="learning rate", ylabel="loss after one step")
ax.legend()
plt.show()

# %% [markdown]
# At first the loss falls. A step that is too long goes beyond the lowest point, and the loss
# rises again. The point is our rate: not the best for this one step, but one that stays good for
# the later ones.
#
# ## The training loop
#
# All training pictures together give the exact gradient, but one step would take long. So each
# step uses only 256 of them, a **minibatch**. Its gradient is a rough estimate, and many rough
# steps are worth more than a few exact ones. When each picture has been used once, an **epoch**
# is over. Each epoch has another random order.
#
# To see how well the model does, we also count how many pictures get the right class. The
# predicted class is the one with the largest logit. The share of right ones is the **accuracy**.


# %%
def batches(X, y, order):
    for start in range(0, len(order), 256):
        chosen = order[start : start + 256]
        yield X[:, chosen] / 255, y[chosen]


def evaluate(W, b, X, y):
    total, right = 0.0, 0
    for X_batch, y_batch in batches(X, y, np.arange(len(y))):
        Z = logits(W, b, X_batch)
        total += losses(Z, y_batch).sum()
        right += (Z.argmax(axis=0) == y_batch).sum()
    return total / len(y), right / len(y)


# %% [markdown]
# In PyTorch, one epoch of the loop is:
# ```python
# for X, y in train_loader:
#     loss = cross_entropy(softmax(torch.matmul(X, W) + b), y)
#     loss.mean().backward()
#     for param in (W, b):
#         param -= learning_rate * param.grad
#         param.grad.zero_()
# ```
# Here:

# %%
W, b = W_start.copy(), b_start.copy()
train_loss, test_loss = [], []
for epoch in range(10):
    order = np.random.default_rng([0, epoch]).permutation(len(data.y_train))
    for X, y in batches(data.X_train, data.y_train, order):
        W_grad, b_grad = gradients(W, b, X, y)
        W -= 0.1 * W_grad
        b -= 0.1 * b_grad
    train_loss.append(evaluate(W, b, data.X_train, data.y_train)[0])
    loss, accuracy = evaluate(W, b, data.X_test, data.y_test)
    test_loss.append(loss)
    print(
        f"epoch {epoch + 1:2}: training loss {train_loss[-1]:.4f}, "
        f"test loss {loss:.4f}, test accuracy {accuracy:.4f}"
    )

# %% [markdown]
# On Fashion-MNIST the test accuracy is about 0.83, as in the PyTorch tutorial. A guess would have
# 0.10.

# %%
epochs = range(1, 11)
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(epochs, train_loss, "o-", label="training data")
ax.plot(epochs, test_loss, "s--", label="test data")
ax.set(xlabel="epoch", ylabel="mean loss", xticks=epochs)
ax.legend()
plt.show()

# %% [markdown]
# The loss of the random weights was about 2.4, so most is learned in the first epoch. A loss may
# rise again for an epoch, because each step sees only 256 pictures. In the end the loss on the
# test data is a little higher than that on the training data: the weights were fitted to these.
#
# ## What it says, and what it has learned

# %%
P = softmax(logits(W, b, data.X_test[:, :10] / 255))
figure, axes = plt.subplots(2, 5, figsize=(9, 4.4), layout="constrained")
for ax, column, p, label in zip(axes.flat, data.X_test.T, P.T, data.y_test, strict=False):
    guess = p.argmax()
    ax.imshow(column.reshape(28, 28), cmap="gray")
    title = f"{data.classes[guess]} {p[guess]:.2f}\ntrue: {data.classes[label]}"
    ax.set_title(title, fontsize=10, color="black" if guess == label else "red")
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The first ten test pictures. Above each stands the guess with its probability, and below it the
# true class; wrong guesses are red.
#
# Each row of `W` has a weight for each pixel, so it can be drawn as a picture too:

# %%
figure, axes = plt.subplots(2, 5, figsize=(9, 4.2), layout="constrained")
for ax, row, name in zip(axes.flat, W, data.classes, strict=True):
    drawn = ax.imshow(row.reshape(28, 28), cmap="RdBu_r", vmin=-0.6, vmax=0.6)
    ax.set(title=name, xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes, label="weight")
plt.show()

# %% [markdown]
# Red pixels speak for the class if they are bright, blue ones against it. Some rows look like the
# shape of their class; others mark where it differs from those that resemble it.
#
# ## The same with the project's own loop
#
# `nps.Trainer` is this loop, with checks, records and checkpoints. We give it our first weights
# and the same rule. With the same seed, its `DataLoader` uses our orders. It keeps weights and
# biases together in one table, and looks at the type of the pixels to know that they must be
# divided by 255.

# %%
model = nps.SoftmaxRegression(784, 10, dtype=np.float64, pixel_scale=data.pixel_scale)
model.W[:], model.b[:] = W_start, b_start
loader = nps.DataLoader(data.X_train, data.y_train, batch_size=256, shuffle=True, seed=0)
trainer = nps.Trainer(model, nps.Descent(0.1), loader, test=(data.X_test, data.y_test))
history = trainer.fit(epochs=10)
print(f"test loss: ours {test_loss[-1]:.12f}")
print(f"    Trainer's {history[-1].test_loss:.12f}")
print(f"largest difference of a weight: {abs(model.W - W).max():.0e}")

# %% [markdown]
# The two do the same. Only the last digits of some weights differ, because sums in another order
# are rounded differently.
#
# ## How good could it be?
#
# Is our training loss small? With a longer training, or with another rule, it would be smaller.
# But it cannot become as small as one likes, unless the weights become very large. So we ask:
# *how small can the loss be with weights that are no larger than ours?* We measure their size by
# $\|W\|^2$, the sum of the squares of all weights.

# %%
our_loss = train_loss[-1]
our_size = (W**2).sum()
print(f"our training loss is {our_loss:.4f}, the size of our weights {our_size:.1f}")

# %% [markdown]
# `nps.fit` minimises another sum, the loss plus a **penalty** for large weights:
#
# $$J(W, b) = \text{loss} + \frac{\lambda}{2} \|W\|^2 .$$
#
# It does not only come close to the smallest value of $J$. It also proves how far away it can be:
# no weights and biases whatever have a $J$ below `objective - suboptimality`, up to rounding.
# [The derivation](../docs/derivation.md#13-a-bound-on-the-distance-from-the-optimum) takes half a
# page. The number $\lambda$ is called `l2`. We try four.

# %%
fits = {}
for l2 in (0.01, 0.003, 0.001, 0.0001):
    fitted = nps.SoftmaxRegression(784, 10, pixel_scale=data.pixel_scale)
    optimum = nps.fit(fitted, data.X_train, data.y_train, l2=l2)
    fits[l2] = fitted, optimum.objective - optimum.suboptimality
    print(f"l2 = {l2:6g}: J = {optimum.objective:.6f}, and none is below {fits[l2][1]:.6f}")

# %% [markdown]
# Now take any weights that are no larger than ours. Their $J$ is at least $J_{\min}$, the last
# number of a line, and their penalty is at most ours. So
#
# $$\text{loss} = J - \frac{\lambda}{2} \|W\|^2 \ge
# J_{\min} - \frac{\lambda}{2} \|W_\text{ours}\|^2 .$$
#
# The right side is a floor under the loss. Each line gives a floor, all of them are true, and the
# highest says most.

# %%
floors = [smallest - l2 / 2 * our_size for l2, (_, smallest) in fits.items()]
floor = max(floors)
print("floors:", np.round(floors, 4))
print(f"Our loss is {our_loss:.4f}; the smallest possible is at least {floor:.4f}.")

# %%
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(epochs, train_loss, "o-", label="training data")
ax.axhline(floor, color="black", linestyle="--", label="floor: no loss is below")
ax.set(xlabel="epoch", ylabel="mean loss", xticks=epochs, ylim=(floor - 0.03, None))
ax.legend()
plt.show()

# %% [markdown]
# The training loss comes down to its floor and cannot cross it. (In the earlier epochs the
# weights were smaller, so it holds for them too.) What is left between the two is all that a
# better rule, a better learning rate or more epochs can still gain, with weights of this size.
#
# With larger weights there is more to gain on the training data. These are the four fits, judged
# on both sets of pictures:

# %%
print("    l2 | size of weights | training loss | test loss | test accuracy")
for l2, (fitted, _) in fits.items():
    size = (fitted.W**2).sum()
    loss, _ = evaluate(fitted.W, fitted.b, data.X_train, data.y_train)
    held_out, accuracy = evaluate(fitted.W, fitted.b, data.X_test, data.y_test)
    print(f"{l2:6g} | {size:15.1f} | {loss:13.4f} | {held_out:9.4f} | {accuracy:13.4f}")

# %% [markdown]
# The smaller the penalty, the larger are the weights, and the smaller is the loss on the training
# data. The loss on the test data does not fall as far, and the distance between the two grows:
# the weights begin to learn the training pictures by heart. This is called **overfitting**. The
# penalty limits it.
#
# ## Where to go from here
#
# - [jax_slides.py](jax_slides.py) builds the same from classes, as larger projects do.
# - [The derivation](../docs/derivation.md) has every formula of the project.
# - [What the tutorials get wrong](../docs/tutorials.md) lists the errors of four tutorials.
# - [The chapter's exercises](../docs/exercises.md) vary the learning rate and the batch size.
# - [How sure is it?](../docs/how_sure.md) asks when to believe a probability.
