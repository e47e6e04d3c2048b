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
# # A photograph of your own
#
# A well-known demo for Google Colab trains softmax regression on Fashion-MNIST, shows a grid of
# predictions, and then classifies a photograph: it prints the three most likely classes (Top-3).
# This notebook does the same. Then it shows what the demo does wrong with photographs, measures
# how much that costs, and does better.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import npsoftmax as nps
from npsoftmax.ext import photos, plots
from npsoftmax.features import Patches

# %%
try:
    data = nps.load("fashion-mnist")
except nps.errors.DataUnavailableError:  # no network: garments drawn by code
    data = nps.load("garments")
print(data.name, data.X_train.shape, data.X_test.shape)

# %% [markdown]
# ## Class names
#
# Labels are numbers from 0 to 9. Each has a name:

# %%
for label, name in enumerate(data.classes):
    print(label, name)

# %% [markdown]
# These are the first training images. Each is 28 x 28 pixels, light on black, and the item fills
# the square in its width or its height. This will be important.

# %%
plots.grid(data.X_train[:, :16], [data.classes[label] for label in data.y_train[:16]])

# %% [markdown]
# ## Training
#
# The demo makes ten passes over the training images (**epochs**), in batches of 256, with a
# learning rate of 0.1, and prints a line after each epoch. All numbers in these lines are means
# over all images.

# %%
model = nps.SoftmaxRegression(
    784, 10, classes=data.classes, pixel_scale=data.pixel_scale, framing=data.framing
)
loader = nps.DataLoader(data.X_train, data.y_train, batch_size=256, shuffle=True)
trainer = nps.Trainer(model, nps.Descent(0.1), loader, test=(data.X_test, data.y_test))
for record in trainer.run(epochs=10):
    print(record)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
plots.loss_curve(trainer.history, left)
plots.accuracy_curve(trainer.history, right)
plt.show()

# %% [markdown]
# Both curves become flat. Is the training finished? The objective is convex, so `nps.fit` can
# find its smallest value and prove how close it came. The proof needs a small penalty on the
# weights, $\frac{\lambda}{2} \|W\|^2$, which is added to the loss
# ([why](../docs/derivation.md#13-a-bound-on-the-distance-from-the-optimum)).

# %%
L2 = 1e-4
best = nps.SoftmaxRegression(784, 10, classes=data.classes, pixel_scale=data.pixel_scale)
optimum = nps.fit(best, data.X_train, data.y_train, l2=L2)
problem = nps.objective.FullBatch(data.X_train, data.y_train, L2, scale=data.pixel_scale)
print(
    f"your loss with the penalty is {problem.loss_and_grad(model.theta).loss:.4f}; "
    f"the smallest possible is at least {optimum.objective - optimum.suboptimality:.4f}."
)

# %% [markdown]
# So it is not: other weights have a smaller sum, although the curves are flat. On Fashion-MNIST
# they bring the accuracy on the test images from 0.83 to 0.85. To get further, the model must see
# more than single pixels. The end of this notebook shows how.
#
# ## Predictions
#
# The first line above each image is the prediction with its probability, the second the true
# class. Errors are red.

# %%
figure, axes = plt.subplots(3, 6, figsize=(10, 6.4), layout="constrained")
plots.prediction_grid(model, data.X_test, data.y_test, axes)
plt.show()

# %% [markdown]
# ## A photograph
#
# `PATH` is the photograph to classify. Take one of your own: a single piece of clothing, flat,
# seen from the front, on a plain background. Photographs of iPhones (HEIC) need
# `python -m pip install pillow-heif`.

# %%
# Jupyter starts in the folder of the notebook, a script in the one above.
FOLDER = Path("../docs/photos") if Path("../docs/photos").exists() else Path("docs/photos")
PATH = FOLDER / "dress.jpg"
picture = photos.read(PATH).image
picture

# %% [markdown]
# The demo prepares it in four steps: grey, inverted if the mean is bright, shrunk to 20 x 20
# pixels in the middle of a black square, and normalised with the mean and the standard deviation
# of the data set.


# %%
def as_in_the_demo(image, side=20, normalise=True):
    grey = np.asarray(image.convert("L"))
    if grey.mean() > 127:
        grey = 255 - grey
    square = np.zeros((28, 28))
    start = (28 - side) // 2
    square[start : start + side, start : start + side] = Image.fromarray(grey).resize((side, side))
    pixels = square.reshape(784, 1) / 255
    return (pixels - 0.2860) / 0.3530 if normalise else pixels


def top_3(model, pixels):
    p = model(pixels).mean(axis=1)  # over the columns, if there are several
    return [(model.classes[i], float(p[i])) for i in np.argsort(-p)[:3]]


def show_top_3(model, pixels):
    for place, (name, probability) in enumerate(top_3(model, pixels), start=1):
        print(f"{place}) {name:12}: {probability:.3f}")


show_top_3(model, as_in_the_demo(picture))

# %% [markdown]
# On Fashion-MNIST the dress becomes a sneaker, with a probability of almost 1. The project
# prepares the same photograph in another way, and the same model says:

# %%
seen = photos.read(PATH, model.framing)
show_top_3(model, seen.pixels)

# %% [markdown]
# ## What the recipe gets wrong
#
# Look at the pixels: those that the demo gives to the model, those of the project, and a training
# image of the class that the project names.

# %%
label = model(seen.pixels).mean(axis=1).argmax()
example = data.X_train[:, (data.y_train == label).argmax()]
columns = {
    "the demo's": as_in_the_demo(picture),
    "the project's": seen.pixels[:, 0] / 255,
    "a training image": example / 255,
}
figure, axes = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
axes[0].imshow(picture)
axes[0].set(title=PATH.name, xticks=[], yticks=[])
for ax, (title, column) in zip(axes[1:], columns.items(), strict=True):
    shown = ax.imshow(column.reshape(28, 28), cmap="gray", vmin=-0.9, vmax=1.9)
    ax.set(title=title, xticks=[], yticks=[])
figure.colorbar(shown, ax=axes, label="what the model sees", shrink=0.7)
for title, column in columns.items():
    print(f"{title:16} from {column.min():5.2f} to {column.max():4.2f}, mean {column.mean():5.2f}")
plt.show()

# %% [markdown]
# All three have the same grey scale. In the demo's image the item is small and brighter than any
# training pixel, and what surrounds it is darker than black. These are three mistakes:
#
# 1. **Too small.** Items in Fashion-MNIST fill 28 pixels. In the demo they fill 20 or fewer,
#    because the background of the photograph is kept as well.
# 2. **Grey on grey.** Inverting a bright photograph does not make its background black. And a
#    dark photograph is not inverted, even if the item is darker than its background.
# 3. **Normalised in one place only.** The model was trained on pixels from 0 to 1, without the
#    normalisation.
#
# What the third one does can be computed. With pixels $x$ from 0 to 1, the mean $m$, the standard
# deviation $s$ and the weights $W_i$ of pixel $i$, the logits are
#
# $$W \frac{x - m}{s} + b = \frac{1}{s} W x - \frac{m}{s} \sum_i W_i + b .$$
#
# The first term is $1/s = 2.8$ times what it was in training, so the model is too sure. The
# second term adds a constant to each class, whatever the photograph shows:

# %%
for name, constant in zip(model.classes, -0.2860 / 0.3530 * model.W.sum(axis=1), strict=True):
    print(f"{name:12} {constant:+5.1f}")

# %% [markdown]
# On Fashion-MNIST the sneaker gets most, and a difference of 9 multiplies the ratio of two
# probabilities by $e^9$, about 8,000.
#
# These are all photographs of the folder, by both recipes, each image with a grey scale of its
# own:

# %%
files = photos.find(FOLDER)
figure, axes = plt.subplots(3, len(files), figsize=(10, 8), layout="constrained")
for column, path in zip(axes.T, files, strict=True):
    photo = photos.read(path, model.framing)
    column[0].imshow(photo.image)
    column[0].set(title=Path(path).name, xticks=[], yticks=[])
    for ax, pixels in ((column[1], as_in_the_demo(photo.image)), (column[2], photo.pixels)):
        plots.image(pixels[:, 0], ax)
        name, probability = top_3(model, pixels)[0]
        ax.set_title(f"{name} {probability:.3f}")
for ax, name in zip(axes[:, 0], ("photograph", "by the demo", "by the project"), strict=True):
    ax.set_ylabel(name)
plt.show()

# %% [markdown]
# ## How much it costs
#
# Four photographs prove little. So we make 200 from test images, whose classes are known: a dark
# item on a light table, not in the middle, with some noise.

# %%
rng = np.random.default_rng(0)


def photograph(column):
    side = 140
    item = np.asarray(Image.fromarray(column.reshape(28, 28)).resize((side, side))) / 255
    table = np.full((210, 240), rng.uniform(190, 245))
    top, left = rng.integers(10, 60, 2)
    table[top : top + side, left : left + side] *= 1 - 0.9 * item
    table += rng.normal(0, 5, table.shape)
    return Image.fromarray(table.clip(0, 255).astype(np.uint8))


images, labels = data.X_test[:, :200], data.y_test[:200]
pictures = [photograph(column) for column in images.T]
figure, axes = plt.subplots(1, 6, figsize=(10, 1.7), layout="constrained")
for ax, each, label in zip(axes, pictures, labels, strict=False):
    ax.imshow(each, cmap="gray", vmin=0, vmax=255)
    ax.set(title=data.classes[label], xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The recipe of the demo, then without one mistake after the other, and the project's:

# %%
recipes = {
    "the demo's recipe": as_in_the_demo,
    "not normalised": lambda image: as_in_the_demo(image, normalise=False),
    "and 28 x 28 pixels": lambda image: as_in_the_demo(image, side=28, normalise=False),
    "the project's recipe": lambda image: photos.look(image, model.framing).pixels,
}


def measure(model, recipe):
    guesses = [top_3(model, recipe(each))[0] for each in pictures]
    right = [data.classes[label] == name for label, (name, _) in zip(labels, guesses, strict=True)]
    return np.mean(right), np.mean([probability for _, probability in guesses])


print("                       right   confidence")
for name, recipe in recipes.items():
    right, confidence = measure(model, recipe)
    print(f"{name:21}  {right:4.2f}    {confidence:4.2f}")
P = model(images)
right, confidence = (P.argmax(axis=0) == labels).mean(), P.max(axis=0).mean()
print(f"the images themselves  {right:4.2f}    {confidence:4.2f}")

# %% [markdown]
# *Right* is the share of photographs that are classified correctly; one of ten would be right by
# chance. *Confidence* is the mean probability of the predicted class. With the demo's recipe the
# model is hardly better than chance, and sure of itself. Without the normalisation it is as bad,
# but at least it is unsure. With the project's recipe, which finds the item and lets it fill the
# square on black, most photographs are classified correctly: on Fashion-MNIST about as many as of
# the images that they were made from.
#
# The steps are described in [photos.md](../docs/photos.md#the-recipe), with results for hundreds
# of real photographs.
#
# ## What helps more
#
# Real photographs are harder than these: creased, turned, striped. A model of single pixels has
# one weight for each place, so an item of a slightly different shape is multiplied by the wrong
# weights.
# `Patches` compares each place with small patches of training images, and gives the model the
# answers in place of pixels ([features.md](../docs/features.md)). The model stays the same, and
# so does the proof.
#
# Here is a small map of 32 patches, fitted to 20,000 images at most. The last 2,000 of these are
# held out for the next step. `python scripts/train.py --features patches` uses 64 patches and all
# images, and needs half a minute.

# %%
X, y = data.X_train[:, :20_000], data.y_train[:20_000]
(X, y), held_out = nps.splitobs((X, y), at=y.size - 2_000)
better = nps.SoftmaxRegression(
    784,
    10,
    classes=data.classes,
    pixel_scale=data.pixel_scale,
    framing=data.framing,
    features=Patches.fit(X, (28, 28), filters=32),
)
print(nps.fit(better, X, y, l2=0.015 / y.size, tol=1e-4))
for name, each in (("pixels", model), ("patches", better)):
    accuracy = (each.predict(data.X_test) == data.y_test).mean()
    print(f"{name:8} test accuracy {accuracy:.4f}")

# %% [markdown]
# ## When to doubt
#
# A probability compares the classes with each other. It can be near 1 for a photograph that
# resembles none of them. The **evidence** says how much speaks for the best class. Here is the
# limit above which 90 % of the held-out predictions are right
# ([how_sure.md](../docs/how_sure.md#when-to-believe-it)):

# %%
print(f"doubt begins at {better.fit_evidence_limit(*held_out):.1f}")


def doubts(model, photo):
    first, second, _ = top_3(model, photo.pixels)
    evidence = model.evidence(photo.pixels).mean()
    if evidence <= model.evidence_limit:
        yield f"no class fits well: the evidence is {evidence:.1f}"
    if second[1] > first[1] / 2:
        yield "the two best guesses are close"
    yield from photo.warnings


figure, axes = plt.subplots(
    len(files), 3, figsize=(9, 9), width_ratios=[1, 1, 2.4], layout="constrained"
)
for (left, middle, right), path in zip(axes, files, strict=True):
    photo = photos.read(path, better.framing)
    left.imshow(photo.image)
    left.set(title=Path(path).name, xticks=[], yticks=[])
    plots.image(photo.pixels[:, 0], middle)
    plots.top_k_bars(top_3(better, photo.pixels), right)
    right.set_title("\n".join(doubts(better, photo)) or "no doubt", fontsize=9)
plt.show()

# %% [markdown]
# On Fashion-MNIST the trousers, the pullover and the dress are named correctly, without a doubt.
# The shoes are not: each shoe in Fashion-MNIST is alone and seen from the side. But the model
# says that no class fits well. (A model of `garments` has never seen a photograph, and its doubts
# are worth less.)
#
# The same from the command line, with the larger map:
#
# ```
# python scripts/train.py --features patches --run-dir runs/first
# python scripts/predict.py runs/first PHOTO.jpg --show guesses.png
# python scripts/export.py runs/first --html
# ```
#
# The last command writes a page that classifies photographs in the browser, without a network. A
# model of your own photographs is better still: `python scripts/train.py --data FOLDER`, with a
# folder for each class ([photos.md](../docs/photos.md#real-photographs)).
