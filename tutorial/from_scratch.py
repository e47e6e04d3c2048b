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
# A tutorial for the library PyTorch does the same. Its lines are quoted above ours, so that you can
# compare them. If you do not use PyTorch, skip these boxes.
#
# At the end, `npsoftmax` repeats our training. It is the library that this notebook belongs to, and
# the import below loads it. It also shows how much better the result could be.

# %%
import matplotlib.pyplot as plt
import numpy as np

import npsoftmax as nps

# %% [markdown]
# ## The data
#
# Fashion-MNIST has 60,000 pictures of ten kinds of clothing to learn from. `nps.load` finds them on
# this computer, or downloads them. Where neither is possible, as on a page in the browser, the next
# cell uses `garments`: fewer pictures, of the same kinds, drawn by a program. It prints the name of
# the data that it uses.

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
# only. The **test data** are never used to change the model. They only show how well the program
# does on pictures from which it has not learned.
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
# A **model** is a formula. Some of its numbers are not known at first: they are learned from the
# data. Ours computes one score for each class. The score of class $i$ for a picture $x$ is a
# weighted sum of its pixels:
#
# $$z_i = w_{i1} x_1 + w_{i2} x_2 + \dots + w_{i,784} x_{784} + b_i .$$
#
# The factors $w_{ij}$ are the **weights**. A positive weight says: a bright pixel here speaks for
# this class. The number $b_i$ is the **bias** of the class. The scores are called **logits**.
#
# The weights of all classes are a table `W` of 10 rows and 784 columns. `W @ X` computes the
# weighted sums of all classes for all pictures at once. For the number in its row $i$ and column
# $k$, `@` multiplies row $i$ of `W` with column $k$ of `X`, number by number, and adds the products
# up. The weights begin as small random numbers around 0.
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
# stay a table, of one row, and NumPy divides each row of `Z_exp` by it. In statistics, fitting a
# formula to data is called **regression**, so our model is called *softmax regression*.


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
# What does the softmax do to larger differences? Compare two classes. If the logit of the first is
# larger by 1, its probability is $e = 2.718...$ times that of the second. If it is larger by 2, the
# factor is $e^2 = 7.39$.

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
# This loss is called the **cross-entropy**. The logarithm is the natural one, `np.log`. If the
# model is certain and right, then $p_y = 1$ and the loss is 0. The loss is 0.69 for $p_y = 0.5$,
# and 4.6 for $p_y = 0.01$. It has no limit.
#
# Why a logarithm? The probability that the model gives to all the right classes together is the
# product of the $p_y$ of all pictures. The logarithm turns this product into a sum. The loss of
# many pictures is the mean of their losses.
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
# The losses of the five pictures are near that of a guess.
#
# ## Where this breaks, and what helps
#
# Numbers in a computer have a largest value. For `exp` it is reached soon: $e^{710}$ is already
# too large, and becomes infinite. Infinity divided by infinity is not a number, `nan`. Sums and
# products with `nan` are `nan` again, so one such logit would soon make all weights `nan`.
#
# Here are three classes. Class 1 is in the second row, because rows are counted from 0.

# %%
Z = np.array([[1000.0], [0.0], [0.0]])
with np.errstate(all="ignore"):  # hide NumPy's warnings
    print("softmax: ", softmax(Z).ravel())
    print("loss of class 1:", cross_entropy(softmax(Z), np.array([1])))

# %% [markdown]
# Two steps mend this.
#
# 1. Subtract the largest logit $m$ of each column first. Since $e^{z - m} = e^z e^{-m}$, this
#    multiplies the numerator and the denominator of the softmax by the same number, $e^{-m}$. So
#    the result is the same. Now the largest exponential is $e^0 = 1$.
# 2. A probability can still be so small that it is rounded to 0, and $\log 0$ is minus infinity.
#    So the loss is computed from the logits, without a detour through the probabilities:
#
# $$\ell = -\log \frac{e^{z_y}}{\sum_i e^{z_i}} = \log \sum_i e^{z_i} - z_y .$$
#
# `losses` may subtract $m$ too: both terms of the last formula become smaller by $m$, and their
# difference stays the same.


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
# little, how fast does the loss grow? The answers together are the **gradient**: two tables, one
# of the shape of `W` and one of the shape of `b`. If each number is changed a little *against* its
# gradient, the loss gets smaller.
#
# PyTorch finds the gradient when `loss.mean().backward()` is called. We can do it by hand. (This
# needs the rules for derivatives. If you do not know them, go on to "In words" above the code.)
# Start from $\ell = \log \sum_i e^{z_i} - z_y$. Its derivative with respect to one logit is
#
# $$\frac{\partial \ell}{\partial z_i}
# = \frac{e^{z_i}}{\sum_c e^{z_c}} - [i = y] = p_i - [i = y] ,$$
#
# where $[i = y]$ is 1 for the right class and 0 for the others. And since
# $z_i = w_{i1} x_1 + \dots + b_i$, the chain rule gives
#
# $$\frac{\partial \ell}{\partial w_{ij}} = (p_i - [i = y]) \, x_j , \qquad
# \frac{\partial \ell}{\partial b_i} = p_i - [i = y] .$$
#
# For many pictures, the gradient of the mean loss is the mean of these.
#
# In words: for each picture and class, `D` has the probability that the model gave, minus what it
# should be: 1 for the right class and 0 for the others. The gradient of a weight is this difference
# times the brightness of its pixel, averaged over the pictures. For $n$ pictures, `D` has the shape
# $(10, n)$, and `X.T`, which is `X` with rows and columns exchanged, has $(n, 784)$. So `D @ X.T`
# has the shape $(10, 784)$, like `W`.


# %%
def gradients(W, b, X, y):
    D = softmax(logits(W, b, X))
    D[y, np.arange(len(y))] -= 1
    D /= len(y)
    return D @ X.T, D.sum(axis=1, keepdims=True)


# %% [markdown]
# Is this right? Add 0.00001 to one weight, then subtract it instead, and divide the difference of
# the two losses by 0.00002. This estimate is slow, but it needs no formula. It should agree in most
# of the digits. We try three weights, of pixels near the middle.

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
# number moves by its gradient times the **learning rate**, here 0.1.
#
# Think of the loss as a landscape. For this model it has a single valley, so a walk downhill cannot
# get stuck in a wrong one. (We do not prove this here.) But it can take very many steps to get to
# the bottom.
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
after = [losses(logits(W - rate * W_grad, b - rate * b_grad, X), y).mean() for rate in rates]
print(f"the best of these rates for this step: {rates[np.argmin(after)]:.2f}")

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(rates, after)
ax.plot(0.1, after[10], "o", label="our rate")
ax.set(xlabel="learning rate", ylabel="loss after one step")
ax.legend()
plt.show()

# %% [markdown]
# At first the loss falls. A step that is too long goes beyond the lowest point, and the loss rises
# again. The point is our rate, 0.1. It is shorter than the best step here. A shorter step is safer,
# because each later gradient is only an estimate.
#
# ## The training loop
#
# All training pictures together give the exact gradient, but one step would take a long time. So
# each step uses only 256 of them, a **minibatch**. Its gradient is a rough estimate, and many rough
# steps are worth more than a few exact ones. When each picture has been used once, an **epoch**
# is over. Each epoch has another random order: `default_rng([0, epoch])` makes random numbers from
# the seed 0 and the number of the epoch.
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
# Here it is. It takes some seconds, and longer in the browser.

# %%
W, b = W_start.copy(), b_start.copy()
print(f"steps in an epoch: {np.ceil(len(data.y_train) / 256):.0f}")
print(f"training loss at the start: {evaluate(W, b, data.X_train, data.y_train)[0]:.4f}")
train_loss, test_loss, sizes = [], [], []
for epoch in range(10):
    order = np.random.default_rng([0, epoch]).permutation(len(data.y_train))
    for X, y in batches(data.X_train, data.y_train, order):
        W_grad, b_grad = gradients(W, b, X, y)
        W -= 0.1 * W_grad
        b -= 0.1 * b_grad
    train_loss.append(evaluate(W, b, data.X_train, data.y_train)[0])
    loss, accuracy = evaluate(W, b, data.X_test, data.y_test)
    test_loss.append(loss)
    sizes.append((W**2).sum())  # for the end of this notebook
    print(
        f"epoch {epoch + 1:2}: training loss {train_loss[-1]:.4f}, "
        f"test loss {loss:.4f}, test accuracy {accuracy:.4f}"
    )

# %% [markdown]
# On Fashion-MNIST the test accuracy is about 0.83. The PyTorch tutorial reports 0.8310. A guess
# is right in one of ten.
#
# Most is learned in the first epoch. A loss may rise again for an epoch, because each step sees
# only 256 pictures. In the end the loss on the test data is a little higher than that on the
# training data, because the weights were fitted to the training data.
#
# ## What it says, and what it has learned

# %%
P = softmax(logits(W, b, data.X_test / 255))
guesses = P.argmax(axis=0)
right, wrong = np.flatnonzero(guesses == data.y_test), np.flatnonzero(guesses != data.y_test)
figure, axes = plt.subplots(2, 5, figsize=(9, 4.6), layout="constrained")
for ax, k in zip(axes.flat, [*right[:5], *wrong[:5]], strict=True):
    ax.imshow(data.X_test[:, k].reshape(28, 28), cmap="gray")
    ax.set_title(f"{data.classes[guesses[k]]} {P[guesses[k], k]:.2f}", fontsize=10)
    ax.set(xlabel=f"true: {data.classes[data.y_test[k]]}", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Above: the first five test pictures with a right guess. Below: the first five with a wrong one.
# The title is the guess with its probability.
#
# Each row of `W` has a weight for each pixel, so it can be drawn as a picture too:

# %%
figure, axes = plt.subplots(2, 5, figsize=(9, 4.2), layout="constrained")
limit = abs(W).max()
for ax, row, name in zip(axes.flat, W, data.classes, strict=True):
    drawn = ax.imshow(row.reshape(28, 28), cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=name, xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes, label="weight")
plt.show()

# %% [markdown]
# Red pixels speak for the class if they are bright, blue ones against it. Some rows look like the
# shape of their class. Other rows mark the places where the class differs from similar classes.
#
# ## The same with npsoftmax
#
# `nps.Trainer` is this loop, with checks and records. We give it our first weights and the same
# rule. With the same seed, its `DataLoader` uses our orders. The model multiplies pixels that are
# whole numbers by `pixel_scale`, which is 1/255. `np.float64` are NumPy's usual numbers of 64 bits,
# which our loop used. This takes some seconds too.

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
# Is our training loss small? With a longer training, or with another rule, it could be smaller.
# With small weights it cannot be close to 0: the logits of two pictures then differ little, so the
# model cannot be sure of one class for the first and of another for the second. How small the loss
# can be depends on how large the weights may become. So we ask: *how small can the loss be with
# weights that are no larger than ours?* We measure their size by $\|W\|^2$, the sum of the squares
# of all weights.

# %%
our_loss, our_size = train_loss[-1], sizes[-1]
print(f"our training loss is {our_loss:.4f}, the size of our weights {our_size:.1f}")
print("size after each epoch:", np.round(sizes, 1))

# %% [markdown]
# It is hard to ask for the smallest loss under a limit on the size. It is easier to make large
# weights cost something. We add a price for size to the loss, the **penalty**, and find the
# smallest sum. From that sum we can work back to the loss.
#
# $$J(W, b) = \text{loss} + \frac{\lambda}{2} \|W\|^2$$
#
# $\lambda$ is the price; in code it is called `l2`. The 2 makes the derivative shorter: that of
# $\frac{\lambda}{2} w^2$ is $\lambda w$.
#
# `nps.fit` looks for the smallest $J$. We use two numbers of its result. `objective` is the $J$
# that it found. `suboptimality` is a limit: the smallest possible $J$ is at most this much lower.
# So no choice of weights and biases has a $J$ below `objective - suboptimality`, up to rounding. We
# call this number $J_{\min}$.
#
# The code of `nps.fit` is not shown here.
# [The derivation of this limit](../docs/derivation.md#13-a-bound-on-the-distance-from-the-optimum)
# takes half a page and needs more mathematics than this notebook. You can at least test the claim
# with our own weights: their $J$ must not be smaller.
#
# We try two prices. The fits use numbers of 32 bits, the default of npsoftmax, because this is
# faster. It is still the slowest cell. In the browser it can take minutes.

# %%
fits = {}
print("    l2 | objective | suboptimality |    J_min | J of our weights | size of the fit")
for l2 in (0.01, 0.002):
    fitted = nps.SoftmaxRegression(784, 10, pixel_scale=data.pixel_scale)
    optimum = nps.fit(fitted, data.X_train, data.y_train, l2=l2)
    J_min = optimum.objective - optimum.suboptimality
    fits[l2] = fitted, J_min
    print(
        f"{l2:6g} | {optimum.objective:9.6f} | {optimum.suboptimality:13.1e} | {J_min:.6f} "
        f"| {our_loss + l2 / 2 * our_size:16.6f} | {(fitted.W**2).sum():15.1f}"
    )

# %% [markdown]
# Now take any weights $W$ that are no larger than ours, and any biases. Their $J$ is at least
# $J_{\min}$. Their penalty is at most ours. One step for each:
#
# $$\text{loss} = J - \frac{\lambda}{2} \|W\|^2
# \;\ge\; J_{\min} - \frac{\lambda}{2} \|W\|^2
# \;\ge\; J_{\min} - \frac{\lambda}{2} \|W_\text{ours}\|^2$$
#
# The right side is a floor under their loss. Each price gives a floor. All floors are true, and the
# highest says most. A floor is highest when the fitted weights have about our size (the last column
# of the table).

# %%
floors = []
for l2, (_, J_min) in fits.items():
    floors.append(J_min - l2 / 2 * our_size)
    print(f"floor: {J_min:.4f} - {l2:g} / 2 * {our_size:.1f} = {floors[-1]:.4f}")
floor = max(floors)
print(f"Our loss is {our_loss:.4f}; the smallest possible is at least {floor:.4f}.")
print(f"The difference is {our_loss - floor:.4f}.")

# %%
epochs = range(1, 11)
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(epochs, train_loss, "o-", label="training data")
ax.plot(epochs, test_loss, "s:", label="test data")
ax.axhline(floor, color="black", linestyle="--", label="floor for weights no larger than ours")
ax.set(xlabel="epoch", ylabel="mean loss", xticks=epochs, ylim=(floor - 0.03, None))
ax.legend()
plt.show()

# %% [markdown]
# The training loss comes near its floor and cannot cross it. This holds for the earlier epochs too:
# the list of sizes shows that the weights were smaller then. With weights no larger than ours, a
# better rule, a better learning rate or more epochs can lower our loss by at most the difference.
# It may be less: the smallest possible loss can lie above our floor.
#
# These are our weights and the two fits, on both sets of pictures:

# %%
rows = [("ours", W, b)] + [(f"l2 = {l2:g}", fitted.W, fitted.b) for l2, (fitted, _) in fits.items()]
print("  weights   |  size | training loss | test loss | difference")
better = []
for name, weights, biases in rows:
    size = (weights**2).sum()
    loss, _ = evaluate(weights, biases, data.X_train, data.y_train)
    held_out, _ = evaluate(weights, biases, data.X_test, data.y_test)
    print(f"{name:11} | {size:5.1f} | {loss:13.4f} | {held_out:9.4f} | {held_out - loss:10.4f}")
    if size < our_size and loss < our_loss:
        better.append(name)
print("smaller than ours, with a smaller training loss:", *(better or ["none"]))

# %% [markdown]
# If the last line names a fit, our weights are not the best of their size. A fit with larger
# weights than ours may have a training loss below our floor, which does not hold for it. The floor
# says nothing about the test loss.
#
# The fit with the lower price has larger weights and a smaller training loss. Its test loss is
# smaller by less, so its difference is larger. This is called **overfitting**: the weights learn
# details of the training pictures that other pictures do not have. If it goes on, the test loss can
# rise again. A penalty limits it. To see more of it, add the lower price 0.0005 above.
#
# ## Where to go from here
#
# These files are in the repository of npsoftmax:
#
# - [jax_slides.py](jax_slides.py) builds the same from classes, as larger projects do.
# - [The derivation](../docs/derivation.md) has every formula of the project.
# - [What the tutorials get wrong](../docs/tutorials.md) lists the errors of four tutorials.
# - [The chapter's exercises](../docs/exercises.md) vary the learning rate and the batch size.
# - [How sure is it?](../docs/how_sure.md) asks when to believe a probability.
