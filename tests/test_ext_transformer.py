"""The scikit-learn transformer of images."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from npsoftmax.errors import ShapeError
from npsoftmax.ext.estimator import SoftmaxClassifier
from npsoftmax.ext.transformer import ImageFeatures
from npsoftmax.features import Chain, Patches, RandomFourier

SMALL = {"filters": 5, "size": 3, "cells": 3}


@pytest.fixture
def rows():
    return np.random.default_rng(0).integers(0, 256, (60, 100), dtype=np.uint8)


def test_it_computes_the_features_of_rows(rows):
    patches = Patches.fit(rows.T, (10, 10), **SMALL)
    transformer = ImageFeatures(**SMALL)
    found = transformer.fit_transform(rows)
    np.testing.assert_array_equal(found, patches(rows.T, scale=1 / 255).T)
    assert found.flags.c_contiguous and found.dtype == np.float32
    fourier = RandomFourier.fit(found.T, 20)
    cosines = ImageFeatures(**SMALL, cosines=20).fit(rows)
    expected = Chain([patches, fourier])(rows.T, scale=1 / 255).T
    np.testing.assert_allclose(cosines.transform(rows), expected, atol=1e-6)


def test_it_has_the_habits_of_a_transformer(rows):
    transformer = ImageFeatures(**SMALL, shape=(20, 5), random_state=3)
    with pytest.raises(NotFittedError):
        transformer.transform(rows)
    transformer.fit(rows)
    again = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(again.transform(rows), transformer.transform(rows))
    assert clone(transformer).get_params() == transformer.get_params()
    assert transformer.get_feature_names_out()[-1] == "imagefeatures44"
    with pytest.raises(ValueError, match="100 features"):
        transformer.transform(rows[:, :99])


def test_it_is_searched_in_a_pipeline(rows):
    y = np.arange(60) % 2
    rows[y == 1, ::7] = 255
    pipeline = make_pipeline(ImageFeatures(**SMALL), SoftmaxClassifier(alpha=1e-3))
    search = GridSearchCV(pipeline, {"imagefeatures__filters": [2, 8]}, cv=3).fit(rows, y)
    assert search.best_score_ > 0.75


def test_images_of_unknown_shape():
    with pytest.raises(ShapeError, match="give shape"):
        ImageFeatures().fit(np.zeros((5, 99)))
