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
# # The Julia chapter, line by line
#
# The [Julia edition](https://github.com/ashutosh-b-b/d2l-julia) of "Dive into Deep Learning" has
# three notebooks on softmax regression: the data set (LCN_2), softmax regression from scratch
# (LCN_3), and with Flux (LCN_4). This notebook goes through them in order. Each step quotes lines
# of Julia and runs their counterpart in NumPy.
#
# These conventions differ ([all names and conventions](../docs/julia.md)):
#
# | Julia | NumPy |
# |---|---|
# | indices count from 1 | from 0 |
# | `dims = 1` | `axis=0` |
# | a sum keeps its axis | the axis is dropped, unless `keepdims=True` |
#
# In both, a sample is a **column**: `X` has the shape (features, samples).

# %%
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import npsoftmax as nps
from npsoftmax.ext import plots

# %% [markdown]
# ## LCN_2: the data set
#
# ```julia
# data = FashionMNISTData(; resize=(32, 32))
# length(data.train.features), length(data.val.features)    # (61440000, 10240000)
# ```

# %%
try:
    data = nps.load("fashion-mnist")
except nps.errors.DataUnavailableError:  # no network: garments drawn by code
    data = nps.load("garments")
print(data.name, data.X_train.shape, data.X_test.shape)
print((data.X_train.shape[1] * 32 * 32, data.X_test.shape[1] * 32 * 32))

# %% [markdown]
# The `length` of an array in Julia is its number of entries. So the second line counts pixels
# after the resizing to 32 x 32, and not images. There are 60,000 and 10,000 images in
# Fashion-MNIST. The loader here does not resize.
#
# ```julia
# text_labels(data, indxs) = getindex.(Ref(data.labels), indxs .+ 1)
# ```


# %%
def text_labels(y):
    return np.array(data.classes)[y]


print(text_labels([0, 9, 3]))

# %% [markdown]
# ### Minibatches
#
# ```julia
# first(get_dataloader(data))[1] |> size    # (32, 32, 1, 64)
# ```
#
# Here an image is a column of 784 numbers from the start, so a minibatch is a matrix.

# %%
loader = nps.DataLoader(data.X_train, data.y_train, batch_size=64, shuffle=True)
X, y = next(iter(loader))
print(X.shape, y.shape)

# %% [markdown]
# The chapter measures the time to read all batches, and asks in its first exercise what smaller
# batches cost:

# %%
for batch_size in (256, 64, 16, 1):
    loader = nps.DataLoader(data.X_train, data.y_train, batch_size, shuffle=True)
    started = perf_counter()
    for _X, _y in loader:
        pass
    print(f"batches of {batch_size:3}: {perf_counter() - started:.3f} s")

# %% [markdown]
# ### Pictures
#
# ```julia
# visualize(first(val_dataloader(data)))
# ```
#
# The chapter draws the first eight test images with `heatmap`. The first axis of its images is
# the horizontal one, and `heatmap` draws the first axis upwards, so the clothes lie on their
# side. The upper row shows them as the chapter does, the lower row upright.

# %%
figure, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for (top, bottom), column, label in zip(axes.T, data.X_test.T, data.y_test, strict=False):
    image = column.reshape(28, 28, order="F")  # as in Julia: the first axis is horizontal
    top.imshow(image, origin="lower", cmap="inferno")
    bottom.imshow(column.reshape(28, 28), cmap="inferno")
    top.set_title(text_labels(label), fontsize=9)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## LCN_3: from scratch
#
# ### The softmax
#
# ```julia
# function softmax(o)
#     return exp.(o) ./ sum(exp.(o), dims = 1)
# end
#
# X = rand(5, 2)
# X_prob = softmax(X)
# X_prob, sum(X_prob, dims = 1)
# ```
#
# The text of the chapter normalises each *row*. Its code does it right: `dims = 1` sums each
# column, and a column is a sample.


# %%
def softmax(o):
    return np.exp(o) / np.exp(o).sum(axis=0)


X_prob = softmax(np.random.default_rng(0).random((5, 2)))
print(X_prob.round(4))
print(X_prob.sum(axis=0, keepdims=True))

# %% [markdown]
# The first exercise asks whether this works for an entry of 100, and if all entries are below
# -100. That depends on the number format. `nps.softmax` subtracts the largest entry of each
# column first, which does not change the fraction.

# %%
columns = np.array([[100.0, -110.0], [0.0, -111.0], [1.0, -112.0]])
with np.errstate(all="ignore"):
    for dtype in (np.float64, np.float32):
        for name, function in (("as above", softmax), ("nps.softmax", nps.softmax)):
            first, second = function(columns.astype(dtype)).round(4).T
            print(f"{dtype.__name__} {name:11}", first, second)

# %% [markdown]
# In float32 `exp(100)` is infinite, and infinity divided by infinity is not a number (`nan`).
# `exp(-110)` is 0, and 0 divided by 0 is not a number either. The chapter's parameters are
# float64, whose limits are near 709 and -745.
#
# ### The model
#
# ```julia
# function SoftmaxRegressionScratch(num_inputs, num_outputs, lr, sigma=0.01)
#     w = rand(Normal(0, sigma), (num_outputs, num_inputs))
#     b = zeros(num_outputs, 1)
#     ...
# forward(model, x) = softmax(model.w * x .+ model.b)
# ```
#
# The text speaks of a 784 x 10 matrix; the code makes a 10 x 784 one, as here. `lr` is stored in
# the model and never used: the learning rate is that of `Descent(0.01)` below, and the 0.1 in the
# chapter's call has no effect.

# %%
model = nps.SoftmaxRegression(
    784, 10, sigma=0.01, seed=0, dtype="float64", classes=data.classes, pixel_scale=data.pixel_scale
)
w, b = model.W.copy(), model.b.copy()
print(w.shape, b.shape)


def forward(w, b, X):
    return softmax(w @ (X / 255) + b)  # pixels from 0 to 255 become numbers from 0 to 1


# %% [markdown]
# ### The cross-entropy
#
# ```julia
# y = [1, 3]
# y_hat = [[0.1 0.3 0.6]; [0.3 0.2 0.5]]' |> Matrix
# getindex.(eachcol(y_hat), y)                    # 0.1, 0.5
#
# cross_entropy(y_pred, y) = mean(-1*log.(getindex.(eachcol(y_pred), y)))
# cross_entropy(y_hat, y)                         # 1.4978661367769954
# ```

# %%
y = np.array([0, 2])
y_hat = np.array([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]).T
print(y_hat[y, np.arange(2)])


def cross_entropy(y_pred, y):
    return -np.log(y_pred[y, np.arange(y.size)]).mean()


print(cross_entropy(y_hat, y))

# %% [markdown]
# All digits agree. The labels in the chapter's text, 0 and 2, are those of Python; its code has 1
# and 3.
#
# ### Training
#
# This is the chapter's loop, shortened:
#
# ```julia
# function fit_epoch(model, opt; train_dataloader, val_dataloader)
#     losses = (train_losses = [], val_losses = [], val_acc = [])
#     state = Flux.setup(opt, model)
#     for batch in train_dataloader
#         gs = gradient(m -> training_step(m, batch), model)
#         Flux.update!(state, model, gs[1])
#         push!(losses.train_losses, training_step(trainer.model, batch))
#     end
#     for batch in val_dataloader
#         loss, acc = validation_step(trainer.model, batch)
#         push!(losses.val_losses, loss)
#         push!(losses.val_acc, acc)
#     end
#     return losses
# end
# ```
#
# Julia finds the gradient by itself (`gradient`). By hand it takes one line: with respect to
# $Z = wX + b$ the gradient of the cross-entropy is $(\hat Y - Y)/n$, where $Y$ has a 1 at each
# label ([derivation](../docs/derivation.md#6-cross-entropy-on-logits)).


# %%
def fit_epoch(w, b, train, test, eta):
    train_losses, val_losses, val_acc = [], [], []
    for X, y in train:
        dZ = forward(w, b, X)
        dZ[y, np.arange(y.size)] -= 1
        dZ /= y.size
        w -= eta * dZ @ (X / 255).T
        b -= eta * dZ.sum(axis=1, keepdims=True)
        train_losses.append(cross_entropy(forward(w, b, X), y))  # after the step, as in the chapter
    for X, y in test:
        y_pred = forward(w, b, X)
        val_losses.append(cross_entropy(y_pred, y))
        val_acc.append((y_pred.argmax(axis=0) == y).mean())
    return train_losses, val_losses, val_acc


# %% [markdown]
# The chapter trains for ten epochs with `Descent(0.01)` and batches of 256, and prints
#
# ```
# [ Info: Train Loss: 0.9744505899322733, Val Loss: 0.9459513653103493, Val Acc: 0.75
# [ Info: Train Loss: 0.857556675666966, Val Loss: 0.701497704394115, Val Acc: 0.8125
# ...
# [ Info: Train Loss: 0.6575735590717978, Val Loss: 0.39428948561702787, Val Acc: 0.875
# ```
#
# The code that prints them takes the last entry of each list:
#
# ```julia
# @info "Train Loss: $(losses.train_losses[end]), Val Loss: $(losses.val_losses[end]), ..."
# ```
#
# The same loop in NumPy:

# %%
train = nps.DataLoader(data.X_train, data.y_train, batch_size=256, shuffle=True, seed=0)
test = nps.DataLoader(data.X_test, data.y_test, batch_size=256)
thetas = []
with threadpool_limits(1, user_api="blas"):  # for such small matrices, two threads are slower
    for _epoch in range(10):
        train_losses, val_losses, val_acc = fit_epoch(w, b, train, test, eta=0.01)
        losses = f"Train Loss: {train_losses[-1]}, Val Loss: {val_losses[-1]}"
        print(f"[ Info: {losses}, Val Acc: {val_acc[-1]}")
        thetas.append(np.hstack([w, b]))

# %% [markdown]
# On Fashion-MNIST, the last validation loss differs from the chapter's by 0.01, and the accuracy
# is the same. The digits cannot agree: the chapter has no seed, so each of its runs has other
# random numbers.
#
# ### The same with the project's loop
#
# `nps.Trainer` takes the same steps. Its history holds means over all samples, and also the
# values of the last batch, from which the chapter's lines can be printed. The training loss is
# the one before the step.

# %%
trainer = nps.Trainer(
    model,
    nps.Descent(0.01),
    nps.DataLoader(data.X_train, data.y_train, batch_size=256, shuffle=True, seed=0),
    test=(data.X_test, data.y_test),
)
for record in trainer.run(epochs=10):
    print(
        f"[ Info: Train Loss: {record.last_batch_train_loss:.4f}, "
        f"Val Loss: {record.last_batch_test_loss:.4f}, Val Acc: {record.last_batch_test_acc}"
    )
print("largest difference of two weights:", np.abs(model.theta - thetas[-1]).max())

# %% [markdown]
# ## What the last batch hides
#
# 10,000 images in batches of 256 leave 16 for the last batch. So each printed validation loss is
# a mean over 16 images, and each accuracy is a multiple of 1/16 = 0.0625. The images are the same
# in each epoch, because the test images are not shuffled. (`garments` has fewer test images, and
# so another last batch.)

# %%
y_last = data.y_test[(data.y_test.size - 1) // 256 * 256 :]
print(y_last.size, "images in the last batch")
print("        last batch       all test images")
print("epoch   loss    accuracy loss    accuracy")
for r in trainer.history:
    last = f"{r.last_batch_test_loss:.4f}  {r.last_batch_test_acc:.4f}"
    print(f"{r.epoch:5}   {last}   {r.test_loss:.4f}  {r.test_acc:.4f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
epochs = [r.epoch for r in trainer.history]
for ax, name, label in ((left, "loss", "mean cross-entropy"), (right, "acc", "accuracy")):
    last = [getattr(r, f"last_batch_test_{name}") for r in trainer.history]
    ax.plot(epochs, last, "x--", label=f"last batch, {y_last.size} images")
    ax.plot(epochs, [getattr(r, f"test_{name}") for r in trainer.history], ".-", label="all")
    ax.set(xlabel="epoch", ylabel=f"{label} of test images")
    ax.legend()
plt.show()

# %% [markdown]
# On Fashion-MNIST the last batch is much better than the whole: its sixteen images happen to be
# easy ones. The loss of all images is 0.62 where 0.40 is printed, and their accuracy 0.80 where
# 0.875 is printed. The accuracy of all images rises in each epoch, while that of the last batch
# hardly changes from the third epoch on.
#
# These are the last sixteen test images. Above each are its true class and the prediction:

# %%
titles = text_labels(data.y_test[-16:]), text_labels(model.predict(data.X_test[:, -16:]))
plots.grid(data.X_test[:, -16:], ["\n".join(pair) for pair in zip(*titles, strict=True)])

# %% [markdown]
# How much do sixteen images say? The next figure cuts the test images into batches of 16, and
# shows the accuracies of all these batches.

# %%
hits = model.predict(data.X_test) == data.y_test
batches = hits[: hits.size // 16 * 16].reshape(-1, 16).mean(axis=1)
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.hist(batches, bins=(np.arange(18) - 0.5) / 16, rwidth=0.9)
ax.axvline(hits.mean(), color="tab:orange", label=f"all images: {hits.mean():.3f}")
ax.set(xlabel="accuracy on 16 images", ylabel="number of batches")
ax.legend()
plt.show()
expected = np.sqrt(hits.mean() * (1 - hits.mean()) / 16)
print(f"lowest {batches.min():.4f}, highest {batches.max():.4f}")
print(f"standard deviation {batches.std():.3f}, expected {expected:.3f}")

# %% [markdown]
# With other images at the end, the same model would have printed another accuracy, anywhere in
# this range. Expected is the standard deviation of the accuracy of $n = 16$ independent images,
# each of which is right with probability $p$: $\sqrt{p (1 - p) / n}$.
#
# The chapter's *plot* shows neither the last batch nor all images. It draws the mean over the
# batches, in which a small last batch counts as much as the others. Weighted by the sizes of the
# batches, the mean is that over all images:

# %%
sizes = [y.size for _X, y in test]
print(f"last batch            {val_losses[-1]:.4f}")
print(f"mean over the batches {np.mean(val_losses):.4f}")
print(f"mean over the images  {np.average(val_losses, weights=sizes):.4f}")
print(f"the project's         {trainer.history[-1].test_loss:.4f}")

# %% [markdown]
# ### Other things in the loop
#
# - The training loss is measured after the step, on the batch that has just been fitted. So it is
#   too good. The project measures it before the step.
# - `Flux.setup` is called in each epoch, so `Momentum` and `Adam` lose their state. `Descent` has
#   none to lose. The project keeps it.
# - `fit_epoch` uses the global `trainer`. A second trainer would evaluate the model of the first.
# - `d2lai.loss(model::AbstractClassifier, ...)` replaces the loss of all classifiers, not only of
#   this one.
# - The test set is used for validation. If you choose a learning rate with it, the final accuracy
#   looks better than it is. The project chooses with [held-out training
#   images](../docs/exercises.md#1-the-learning-rate).
# - `clip_gradients!` ignores its threshold, and always scales to length 1:
#
# ```julia
# d = d .* (1. / norm)
# ```


# %%
def chapter_clip(gradient):
    return gradient * (1 / np.sqrt((gradient**2).sum()))


clip = nps.optimisers.ClipNorm(1.0)
for gradient in (np.array([[30.0, 40.0]]), np.array([[0.03, 0.04]])):
    clipped = clip.apply(gradient, gradient.copy())
    print(f"{gradient}: in the chapter {chapter_clip(gradient)}, by ClipNorm(1.0) {clipped}")

# %% [markdown]
# Long gradients become shorter in both. The chapter also makes short gradients longer, so
# training does not settle, and a gradient of 0 becomes `nan`.
#
# ## LCN_4: with a library
#
# ```julia
# net = Chain(Dense(28*28, 10), Flux.softmax)
# loss(model, y_pred, y) = Flux.crossentropy(y_pred, Flux.onehotbatch(y, 0:9))
# ```
#
# The text recommends to pass **logits** to the loss, $wX + b$, so that softmax and logarithm are
# computed together. The code does not: softmax is a layer, and `crossentropy` takes the logarithm
# of probabilities. It adds $\varepsilon = 1.2 \cdot 10^{-7}$ to them, since the logarithm of 0 is
# infinite. Here is the loss of a sample whose label has a logit of 0, while another class has one
# of 50:

# %%
logits = np.array([[50.0], [0.0]], dtype=np.float32)
print("from probabilities:", nps.functional.crossentropy(nps.softmax(logits), [[0], [1]]))
print("from logits:       ", nps.logitcrossentropy(logits, [1]))

# %% [markdown]
# From probabilities no loss exceeds 15.95. Near this limit the gradient goes to 0, so the worst
# errors teach the model nothing.
#
# `nps.SoftmaxRegression` computes the loss from logits, and in float32 by default, as Flux does.
# Flux draws the first weights from another distribution than LCN_3, which changes little. The
# chapter's last line is `Train Loss: 0.6027562, Val Loss: 0.41241825, Val Acc: 0.875`. Here:

# %%
concise = nps.SoftmaxRegression(784, 10, classes=data.classes, pixel_scale=data.pixel_scale)
loader = nps.DataLoader(data.X_train, data.y_train, batch_size=256, shuffle=True)
trainer = nps.Trainer(concise, nps.Descent(0.01), loader, test=(data.X_test, data.y_test))
record = trainer.fit(epochs=10)[-1]
print(
    f"[ Info: Train Loss: {record.last_batch_train_loss:.7f}, "
    f"Val Loss: {record.last_batch_test_loss:.7f}, Val Acc: {record.last_batch_test_acc}"
)
print("means over all images:", record)

# %% [markdown]
# ## How far is it from the best?
#
# Training minimises the mean cross-entropy of the training images. To say how far the weights are
# from the best ones, we add a small penalty, $\frac{\lambda}{2} \|w\|^2$ with
# $\lambda = 10^{-4}$: without one there may be no best weights. `nps.fit` minimises the sum
# without a learning rate, and proves a bound on how far it is from the smallest value
# ([derivation](../docs/derivation.md#13-a-bound-on-the-distance-from-the-optimum)).

# %%
L2 = 1e-4
best = nps.SoftmaxRegression(784, 10, classes=data.classes, pixel_scale=data.pixel_scale)
optimum = nps.fit(best, data.X_train, data.y_train, l2=L2)
floor = optimum.objective - optimum.suboptimality
print(optimum)

# %% [markdown]
# Now the chapter's weights, judged by the same objective after each epoch:

# %%
problem = nps.objective.FullBatch(data.X_train, data.y_train, L2, scale=data.pixel_scale)
objectives = [problem.loss_and_grad(theta).loss for theta in thetas]
print(f"your loss with the penalty is {objectives[-1]:.4f}; ", end="")
print(f"the smallest possible is at least {floor:.4f}.")
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.plot(epochs, objectives, ".-", label="the chapter's loop")
ax.axhline(floor, linestyle="--", color="tab:red", label="proved: nothing is below")
ax.set(xlabel="epoch", ylabel="objective on the training images", ylim=(0, None))
ax.legend()
plt.show()

# %% [markdown]
# The curve does not reach the line: ten epochs with a learning rate of 0.01 are too few. On
# Fashion-MNIST it is nearly flat at the end, so a flat curve does not mean that training is
# finished. On the test images, the better weights give:

# %%
for name, each in (("the chapter's", model), ("the optimum's", best)):
    accuracy = (each.predict(data.X_test) == data.y_test).mean()
    loss = nps.logitcrossentropy(each.logits(data.X_test), data.y_test)
    print(f"{name} weights: test loss {loss:.4f}, accuracy {accuracy:.4f}")

# %% [markdown]
# ## All exercises
#
# The answers in short; the linked sections show them with code and figures.
#
# **LCN_2**
#
# 1. *Does a batch size of 1 affect reading?* Yes. Each batch costs some calls, however small it
#    is (measured above, and for training in [section 2](../docs/exercises.md#2-the-batch-size)).
# 2. *Is the data iterator fast enough?* The one here takes a small part of a training step. It
#    copies about a megabyte of random samples at a time, and hands out parts of this copy
#    ([performance](../docs/performance.md#a-step)).
# 3. *Which other data sets are available?* MLDatasets.jl has many. `nps.load` has
#    `"fashion-mnist"`, `"mnist"` and `"garments"`, and there are readers for [data of your
#    own](../docs/own_data.md).
#
# **LCN_3**
#
# 1. *Does softmax work at 100, and below -100? What is the fix?* In float64 it does, in float32
#    it does not. Subtract the largest entry ([section
#    3](../docs/exercises.md#3-softmax-far-from-zero)).
# 2. *Cross-entropy by its definition.* [Section
#    4](../docs/exercises.md#4-cross-entropy-by-its-definition) has all four answers.
#    - *Try it out.* At a learning rate of 0.1 it learns the same, at 100 it yields `nan`.
#    - *Why is it slower?* It takes the logarithm of each probability, and multiplies all but one
#      by 0.
#    - *Should you use it?* Only for targets that are not one-hot, and then from logits.
#    - *What about the logarithm?* At 0 it is infinite, and 0 times infinity is `nan`. Near 1 it
#      loses digits.
# 3. *Is it always good to return the most likely label?* No. If errors have different costs, take
#    the action with the smallest expected cost, or ask an expert ([section
#    6](../docs/exercises.md#6-when-not-to-return-the-most-likely-label)).
# 4. *What problems has a large vocabulary?* Time and memory grow with it, and most words are rare
#    ([section 5](../docs/exercises.md#5-a-large-vocabulary)).
# 5. *How does the validation loss change with the hyperparameters?* For ten epochs it is lowest
#    at a learning rate near 0.1 ([section 1](../docs/exercises.md#1-the-learning-rate)). At this
#    rate, batches of 1,024 and more take too few steps, and those of 64 and fewer are too noisy
#    ([section 2](../docs/exercises.md#2-the-batch-size)).
#
# **LCN_4**
#
# 1. *For which arguments does exp neither overflow nor underflow?* FP64: -708 to 709. FP32, TF32
#    and BFLOAT16: -87 to 88. FP16: -9.7 to 11. Integers from 1 to 255: 0 to 5.5 ([section
#    3](../docs/exercises.md#3-softmax-far-from-zero)).
# 2. *How can the range of INT8 be extended?* Store logarithms: see the next cell.
# 3. *Why may the validation accuracy decrease with more epochs?* The weights grow, and the model
#    becomes too sure of what it has seen. A penalty, early stopping or more data help ([section
#    7](../docs/exercises.md#7-more-epochs)).
# 4. *What happens as the learning rate increases?* The loss curves get steeper until the steps
#    overshoot ([section 1](../docs/exercises.md#1-the-learning-rate)).
#
# Let the code $c$ from 1 to 255 stand for the number $2^{(c - 128)/8}$. These numbers go from
# about $2^{-16}$ to $2^{16}$, and rounding to the nearest changes a number by at most 5 %. The
# product of two numbers is now a sum of codes. Their sum is not: it needs `logaddexp`, which is
# also what the cross-entropy from logits is made of.


# %%
def encode(number):
    return round(128 + 8 * np.log2(number))


def decode(code):
    return 2 ** ((code - 128) / 8)


p, q = encode(300), encode(20)
total = round(128 + 8 * np.logaddexp2((p - 128) / 8, (q - 128) / 8))
print(f"300 and 20 have the codes {p} and {q}, which stand for {decode(p):.1f} and {decode(q):.2f}")
print(f"300 * 20 is about {decode(p + q - 128):.0f}")
print(f"300 + 20 is about {decode(total):.0f}")
