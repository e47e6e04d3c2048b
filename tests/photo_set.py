"""Simulated photos of the items of a data set, and the accuracy of two recipes on them.

`python tests/photo_set.py MODEL` prints the table of `docs/photos.md`.
"""

import argparse
import sys
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

import npsoftmax
from npsoftmax import metrics
from npsoftmax.ext import photos


@dataclass(frozen=True)
class Conditions:
    """How photos are taken; for each photo, a value is drawn from the range that a pair gives.

    ``item`` is ``"print"`` (dark on a white square), ``"dark"`` (it darkens the table) or
    ``"light"`` (it lightens the table).
    """

    item: str = "print"
    table: tuple[float, float] = (190, 245)
    enlarged: int = 10
    resample: Image.Resampling = Image.Resampling.NEAREST
    # On each side, relative to the side of the item's square.
    margins: tuple[float, float] = (0.05, 0.6)
    noise: tuple[float, float] = (2, 12)  # standard deviation in grey levels
    quality: tuple[int, int] = (60, 96)  # of the JPEG; the end is excluded
    gradient: float = 0.0  # relative change of the light across the photo
    cast: float = 0.0  # relative change of the colours


CONDITIONS = {
    "print on a light table": Conditions(),
    "print, enlarged smoothly": Conditions(resample=Image.Resampling.BILINEAR),
    "dark item on a light table": Conditions("dark"),
    "dark item, enlarged smoothly": Conditions("dark", resample=Image.Resampling.BILINEAR),
    "noise of 12 levels, JPEG 60": Conditions("dark", noise=(12, 12), quality=(60, 61)),
    "light falls off by 15 %": Conditions("dark", gradient=0.15),
    "tinted light": Conditions("dark", cast=0.08),
    "margins of 0 to 5 %": Conditions("dark", margins=(0, 0.05)),
    "margins of 50 to 100 %": Conditions("dark", margins=(0.5, 1)),
    "3 times enlarged": Conditions("dark", enlarged=3),
    "25 times enlarged": Conditions("dark", enlarged=25),
    "dark item on a grey table": Conditions("dark", table=(120, 160)),
    "light item on a grey table": Conditions("light", table=(90, 130)),
    "light item on a dark table": Conditions("light", table=(30, 70)),
    "light item on black": Conditions("light", table=(0, 0)),
}


def photo(column, seed, conditions=Conditions()):
    """Return a photo of one item as the bytes of a JPEG file."""
    c, rng = conditions, np.random.default_rng(seed)
    side = 28 * c.enlarged
    square = Image.fromarray(column.reshape(28, 28)).resize((side, side), c.resample)
    item = np.asarray(square) / 255
    top, bottom, left, right = (int(side * m) for m in rng.uniform(*c.margins, 4))
    scene = np.full(
        (top + side + bottom, left + side + right), rng.uniform(*c.table), dtype=np.float32
    )
    place = scene[top : top + side, left : left + side]
    place[:] = {
        "print": 255 * (1 - item),
        "dark": place * (1 - item),
        "light": place + (255 - place) * item,
    }[c.item]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-0.5, 0.5, size, dtype=np.float32) for size in scene.shape)
    scene *= 1 + c.gradient * (np.cos(angle) * x + np.sin(angle) * y[:, None])
    scene += rng.standard_normal(scene.shape, dtype=np.float32) * rng.uniform(*c.noise)
    tints = 1 + c.cast * rng.uniform(-1, 1, 3)
    bands = [np.rint(scene * tint).clip(0, 255).astype(np.uint8) for tint in tints]
    file = BytesIO()
    image = Image.merge("RGB", [Image.fromarray(band) for band in bands])
    image.save(file, "JPEG", quality=int(rng.integers(*c.quality)))
    return file.getvalue()


def colab_column(image):
    """Return the pixels that the Colab demo computes; its model was trained on pixels / 255 too."""
    grey = np.asarray(image.convert("L"))
    grey = 255 - grey if grey.mean() > 127 else grey
    canvas = np.zeros((28, 28), np.uint8)
    canvas[4:24, 4:24] = Image.fromarray(grey).resize((20, 20))
    return (canvas.reshape(784, 1) / 255 - 0.2860) / 0.3530


def take_photos(X, conditions):
    """Return a photo of every item as bytes; 2,000 decoded ones would take gigabytes."""
    return [photo(X[:, j], j, conditions) for j in range(X.shape[1])]


def measure(model, files, y):
    """Return Top-1, Top-3, and the share of photos with a warning."""
    seen = [photos.look(Image.open(BytesIO(file))) for file in files]
    P = probabilities(model, seen)
    novelty = np.array([model.novelty(each.pixels).min() for each in seen])
    warned = (novelty > 1) | [bool(each.warnings) for each in seen]
    return metrics.accuracy(P, y), metrics.top_k_accuracy(P, y, 3), warned.mean()


def probabilities(model, seen):
    """Return the mean of the model's probabilities over the framings of each photo."""
    ends = np.cumsum([each.pixels.shape[1] for each in seen])[:-1]
    P = np.split(model(np.hstack([each.pixels for each in seen])), ends, axis=1)
    return np.stack([columns.mean(axis=1) for columns in P], axis=1)


def measure_colab(model, files, y):
    """Return Top-1 with the recipe of the Colab demo, and the mean of the highest probability."""
    logits = model.logits(np.hstack([colab_column(Image.open(BytesIO(file))) for file in files]))
    return metrics.accuracy(logits, y), npsoftmax.softmax(logits).max(axis=0).mean()


def measure_digits(framing, num_photos):
    """Return Top-1 and confidence of a model of digits by centre of mass on photos of others."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    sheets = [Image.fromarray((255 - 15.9 * x).reshape(8, 8).astype(np.uint8)) for x in X]
    sheets = [sheet.resize((56, 56), Image.Resampling.BICUBIC) for sheet in sheets]
    model = npsoftmax.SoftmaxRegression(784, 10, pixel_scale=1 / 255, framing="centre-of-mass")
    columns = [photos.look(sheet, model.framing).pixels for sheet in sheets[:900]]
    npsoftmax.fit(model, np.hstack(columns), y[:900], l2=1e-2)
    inks = [255 - np.asarray(sheet.resize((28, 28))) for sheet in sheets[900 : 900 + num_photos]]
    files = [photo(ink.ravel(), seed, Conditions("dark")) for seed, ink in enumerate(inks)]
    P = probabilities(model, [photos.look(Image.open(BytesIO(file)), framing) for file in files])
    return (P.argmax(axis=0) == y[900 : 900 + num_photos]).mean(), P.max(axis=0).mean()


def print_digits():
    """Print how a model of digits fares with either framing."""
    for framing in ("bounding-box", "centre-of-mass"):
        top_1, confidence = measure_digits(framing, 897)
        print(f"{framing}: Top-1 {top_1:.3f}, confidence {confidence:.3f}")


def main():
    """Print one row for each of the conditions."""
    parser = argparse.ArgumentParser(description="Measure a model on photos of test items.")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--data-dir", metavar="DIR")
    parser.add_argument("--photos", type=int, default=2000, help="for each row")
    args = parser.parse_args()
    model = npsoftmax.SoftmaxRegression.load(args.model)
    data = npsoftmax.load("fashion-mnist", args.data_dir)
    X, y = data.X_test[:, : args.photos], data.y_test[: args.photos]
    raw = model.logits(X)
    print(f"the items themselves: Top-1 {metrics.accuracy(raw, y):.3f}, ", end="")
    print(f"Top-3 {metrics.top_k_accuracy(raw, y, 3):.3f}\n")
    print("| photos | Top-1 | Top-3 | with warnings | Colab's recipe, Top-1 | its confidence |")
    print("|---|---|---|---|---|---|")
    for name, conditions in CONDITIONS.items():
        files = take_photos(X, conditions)
        numbers = [*measure(model, files, y), *measure_colab(model, files, y)]
        print(f"| {name} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
