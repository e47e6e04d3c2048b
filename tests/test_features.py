"""Fixed features of images: their formulas, what they depend on, and models that carry them."""

import math

import numpy as np
import pytest

import npsoftmax
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.features import Chain, Patches, RandomFourier, digest, pack, unpack
from npsoftmax.features import patches as module
from npsoftmax.objective import FullBatch


@pytest.fixture(autouse=True)
def few_patches(monkeypatch):
    monkeypatch.setattr(module, "NUM_PATCHES", 3_000)


def images(n=60, shape=(12, 12), seed=0):
    """Return images of random rectangles on black, as columns of bytes."""
    rng = np.random.default_rng(seed)
    X = np.zeros((n, *shape), np.uint8)
    for image in X:
        top, left = rng.integers(0, 6, 2)
        height, width = rng.integers(3, 7, 2)
        image[top : top + height, left : left + width] = rng.integers(40, 256)
    X += rng.integers(0, 20, X.shape, dtype=np.uint8) * (X < 230)
    return X.reshape(n, -1).T


def small(X=None, shape=(12, 12), **settings):
    X = images(shape=shape) if X is None else X
    return Patches.fit(X, shape, **{"filters": 5, "size": 4, "cells": 3, **settings})


def by_definition(patches, image):
    """Return the features of one image, patch by patch, as the formulas say it."""
    q, cells, pad = patches.size, patches.cells, module.PADDING
    padded = np.pad(image.reshape(patches.shape) / 255, ((pad, pad), (pad, pad), (0, 0)))
    down, across = padded.shape[0] - q + 1, padded.shape[1] - q + 1
    pooled = np.zeros((cells, cells, patches.filters.shape[1]))
    weights = [
        [[max(0, 1 - abs(p - ((c + 0.5) * n / cells - 0.5)) * cells / n) for p in range(n)]
         for c in range(cells)]
        for n in (down, across)
    ]  # fmt: skip
    for r in range(down):
        for c in range(across):
            p = padded[r : r + q, c : c + q].ravel()
            u = (p - p.mean()) / math.sqrt(p.var() + module.EPSILON**2)
            response = np.maximum(0, u @ patches.filters + patches.offsets)
            for i in range(cells):
                for j in range(cells):
                    down_share = weights[0][i][r] / sum(weights[0][i])
                    pooled[i, j] += down_share * weights[1][j][c] / sum(weights[1][j]) * response
    return (np.sqrt(pooled).ravel() - patches.centre) / patches.divisor


def before_the_centre(patches, X):
    return patches(X, scale=1 / 255) * patches.divisor + patches.centre[:, None]


@pytest.mark.parametrize("shape", [(12, 12), (12, 15), (12, 12, 3)])
def test_patches_are_those_of_the_definition(shape):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (math.prod(shape), 40), dtype=np.uint8)
    patches = small(X, shape)
    for j in range(3):
        expected = by_definition(patches, X[:, j])
        np.testing.assert_allclose(patches(X, scale=1 / 255)[:, j], expected, atol=1e-5)


def test_filters_are_whitened_patches(monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 1e-3)
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((20_000, 16)) @ rng.standard_normal((16, 16))  # not white
    patches -= patches.mean(axis=1, keepdims=True)
    filters, offsets = module._whitened_filters(patches, 30, rng)
    responses = patches @ filters + offsets
    np.testing.assert_allclose(filters.sum(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(responses.std(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(responses.mean(axis=0), -module.THRESHOLD, atol=0.03)


def test_features_are_a_function_of_the_image_alone():
    X, patches = images(300), small()
    whole = patches(X, scale=1 / 255, threads=1)
    assert np.array_equal(patches(X, scale=1 / 255, threads=3), whole)
    assert np.array_equal(patches(X[:, 7:8], scale=1 / 255), whole[:, 7:8])
    # The slope of the square root is steep near 0.
    np.testing.assert_allclose(patches(X / 255), whole, atol=1e-4)
    assert np.array_equal(patches(X), whole)
    assert whole.dtype == np.float32 and whole.flags.f_contiguous


def test_float16_holds_the_rounded_features():
    X, patches = images(), small()
    found = patches(X, scale=1 / 255, dtype="float16")
    assert np.array_equal(found, patches(X, scale=1 / 255).astype(np.float16))
    y = np.arange(60) % 3
    by_half, by_single = (FullBatch(A, y, 0.1) for A in (found, found.astype(np.float32)))
    theta = np.ones((3, 46), np.float32)
    assert np.array_equal(by_half.loss_and_grad(theta).grad, by_single.loss_and_grad(theta).grad)


def test_features_are_learned_from_images_and_seed_alone():
    X = images()
    assert digest(small(X)) == digest(small(X.copy())) == digest(small(np.ascontiguousarray(X)))
    assert len({digest(small(X)), digest(small(X, seed=1)), digest(small(X[:, :-1]))}) == 3


def test_centred_features_have_a_mean_square_length_of_1():
    A = small()(images(), scale=1 / 255)
    np.testing.assert_allclose(A.mean(axis=1), 0, atol=1e-5)
    assert np.square(A).sum(axis=0).mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 3)])
def test_mirror_images_have_the_same_features(shape):
    X = np.random.default_rng(0).integers(0, 256, (math.prod(shape), 40), dtype=np.uint8)
    mirrored = X.reshape(*shape, -1)[:, ::-1].reshape(X.shape)
    patches = small(X, shape, mirror=True)
    A, B = (patches(columns, scale=1 / 255) for columns in (X, mirrored))
    np.testing.assert_allclose(A, B, atol=1e-6)
    one_sided = small(X, shape)
    both = [before_the_centre(one_sided, columns) for columns in (X, mirrored)]
    np.testing.assert_allclose(before_the_centre(patches, X), np.mean(both, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (12,)}, "height, width"),
        ({"shape": (3, 48)}, "at least 4 pixels"),
        ({"shape": (12, 13)}, "expected 156 features"),
        ({"cells": 13}, "at least 13 pixels"),
        ({"filters": 0}, "filters: expected a whole number"),
        ({"filters": 60_000}, "at least 60000 patches"),
    ],
)
def test_impossible_settings(settings, message):
    settings = {"shape": (12, 12), "size": 4, "cells": 3, "filters": 5, **settings}
    with pytest.raises((InputError, ShapeError), match=message):
        Patches.fit(images(), **settings)


@pytest.mark.parametrize("X", [np.zeros((144, 5), np.uint8), np.zeros((144, 0), np.uint8)])
def test_images_without_content(X):
    with pytest.raises(InputError, match=r"take more images|got none"):
        small(X)


# Models that carry them.


@pytest.fixture(params=["patches", "patches and cosines"])
def fitted(request):
    X, y = images(200), np.arange(200) % 3
    maps = small(X)
    if request.param != "patches":
        maps = Chain([maps, RandomFourier.fit(maps(X, scale=1 / 255), num_features=30)])
    model = npsoftmax.SoftmaxRegression(144, 3, pixel_scale=1 / 255, features=maps)
    npsoftmax.fit(model, X, y, l2=1e-3)
    model.fit_class_means(X, y)
    return model, X, y


def test_a_model_of_features_takes_images(fitted):
    model, X, y = fitted
    A = model.features(X, scale=1 / 255)
    assert (model.num_inputs, model.num_features) == (144, A.shape[0])
    np.testing.assert_array_equal(model.extract(X), A)
    plain = npsoftmax.SoftmaxRegression(A.shape[0], 3)
    plain.theta[:] = model.theta
    plain.fit_class_means(A, y)
    np.testing.assert_array_equal(model(X), plain(A))
    np.testing.assert_array_equal(model.novelty(X), plain.novelty(A))
    assert model.top_k(X, 2) == plain.top_k(A, 2)
    again = npsoftmax.fit(plain, A, y, l2=1e-3)
    np.testing.assert_allclose(plain(A), model(X), atol=1e-4)
    assert again.converged


def test_the_parts_of_many_images_fit_together(fitted, monkeypatch):
    model, X, _ = fitted
    whole, novelty = model(X), model.novelty(X)
    monkeypatch.setattr("npsoftmax.model.PART_COLUMNS", 128)
    np.testing.assert_array_equal(model(X), whole)
    np.testing.assert_array_equal(model.novelty(X), novelty)


def test_a_file_holds_the_features(fitted, tmp_path):
    model, X, y = fitted
    model.calibrate(X, y)
    model.save(tmp_path / "m.npz")
    loaded = npsoftmax.SoftmaxRegression.load(tmp_path / "m.npz")
    assert digest(loaded.features) == digest(model.features)
    np.testing.assert_array_equal(loaded(X), model(X))
    np.testing.assert_array_equal(loaded.novelty(X), model.novelty(X))
    assert repr(loaded) == repr(model)


@pytest.mark.parametrize("name", ["filters", "offsets", "centre"])
@pytest.mark.parametrize("fault", ["shape", "dtype", "nan", "missing"])
def test_arrays_that_do_not_fit_are_a_damaged_file(name, fault, tmp_path):
    from npsoftmax import storage

    model = npsoftmax.SoftmaxRegression(144, 3, pixel_scale=1 / 255, features=small())
    model.save(tmp_path / "m.npz")
    arrays, metadata = storage.read(tmp_path / "m.npz", "model")
    found = arrays.pop(f"features.0.{name}")
    faulty = {
        "shape": found[..., :-1],
        "dtype": found.astype(np.float64),
        "nan": np.full_like(found, np.nan),
    }
    if fault != "missing":
        arrays[f"features.0.{name}"] = faulty[fault]
    storage.write(tmp_path / "m.npz", "model", arrays, metadata)
    with pytest.raises(CorruptFileError, match="expected a model"):
        npsoftmax.SoftmaxRegression.load(tmp_path / "m.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Pickle"}, {"kind": 3}, {"shape": [12]}, {"shape": [12, 12, 0]}, {"shape": "12"},
        {"shape": [3, 3, 1]}, {"shape": [12, 12, 2]}, {"cells": 4}, {"cells": True},
        {"divisor": 0.0}, {"divisor": "1"}, {"divisor": math.inf}, {"mirror": 1}, {"colour": 1},
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_a_damaged_file(change, tmp_path):
    from npsoftmax import storage

    model = npsoftmax.SoftmaxRegression(144, 3, pixel_scale=1 / 255, features=small())
    model.save(tmp_path / "m.npz")
    arrays, metadata = storage.read(tmp_path / "m.npz", "model")
    metadata["features"][0] |= change
    storage.write(tmp_path / "m.npz", "model", arrays, metadata)
    with pytest.raises(CorruptFileError, match="expected a model"):
        npsoftmax.SoftmaxRegression.load(tmp_path / "m.npz")


@pytest.mark.parametrize("value", [None, 3, [], [3], {}, [{}], "Patches"])
def test_features_that_are_none_are_a_damaged_file(value, tmp_path):
    from npsoftmax import storage

    npsoftmax.SoftmaxRegression(144, 3).save(tmp_path / "m.npz")
    arrays, metadata = storage.read(tmp_path / "m.npz", "model")
    storage.write(tmp_path / "m.npz", "model", arrays, {**metadata, "features": value})
    with pytest.raises(CorruptFileError, match="expected a model"):
        npsoftmax.SoftmaxRegression.load(tmp_path / "m.npz")


def test_a_run_on_features_resumes_with_the_same_features_alone(tmp_path):
    X, y = images(200), np.arange(200) % 3
    trainers = []
    for seed in (0, 0, 1):
        maps = small(X, seed=seed)
        model = npsoftmax.SoftmaxRegression(144, 3, pixel_scale=1 / 255, features=maps)
        trainers.append(npsoftmax.FullBatchTrainer(model, FullBatch(model.extract(X), y, 1e-3)))
    first, second, other = trainers
    first.fit(3)
    first.save_checkpoint(tmp_path / "c.npz")
    second.resume(tmp_path / "c.npz")
    first.fit(100)
    second.fit(100)
    np.testing.assert_array_equal(first.model.theta, second.model.theta)
    with pytest.raises(InputError, match="features"):
        other.resume(tmp_path / "c.npz")


def test_minibatches_take_what_is_extracted(fitted):
    model, X, y = fitted
    fresh = npsoftmax.SoftmaxRegression(144, 3, pixel_scale=1 / 255, features=model.features)
    loader = npsoftmax.DataLoader(fresh.extract(X), y, batch_size=20)
    trainer = npsoftmax.Trainer(fresh, npsoftmax.Descent(0.5), loader, test=(fresh.extract(X), y))
    (record,) = trainer.run(1)
    assert record.test_acc == np.mean(fresh.predict(X) == y)
    with pytest.raises(ShapeError, match=r"got 144 pixels; pass model\.extract\(X\)"):
        npsoftmax.Trainer(fresh, npsoftmax.Descent(), npsoftmax.DataLoader(X, y, 20))
    with pytest.raises(ShapeError, match=r"got 144 pixels; pass model\.extract\(X\)"):
        npsoftmax.FullBatchTrainer(fresh, FullBatch(X, y))


def test_a_map_must_fit_the_model():
    with pytest.raises(ShapeError, match="expected a map of 100 numbers, got one of 144"):
        npsoftmax.SoftmaxRegression(100, 3, features=small())
    with pytest.raises(InputError, match="expected a map such as Patches, got ufunc"):
        npsoftmax.SoftmaxRegression(144, 3, features=np.tanh)


def test_maps_come_back_from_their_parts():
    chain = Chain([small(), RandomFourier.fit(np.eye(45, dtype=np.float32), num_features=4)])
    assert digest(unpack(*pack(chain))) == digest(chain)
