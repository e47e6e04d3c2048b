"""Maps of each feature by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import StandardScaler

from npsoftmax import FullBatchTrainer, SoftmaxRegression
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.features import Chain, RandomFourier, Standardise, Tfidf, digest, pack, unpack
from npsoftmax.objective import FullBatch


def test_standardised_features_are_those_of_scikit_learn(rng):
    X = rng.normal(5, [[0.1], [3], [100]], (3, 40))
    Z = Standardise.fit(X)(X)
    assert Z.dtype == np.float32 and Z.flags.f_contiguous
    np.testing.assert_allclose(Z, StandardScaler().fit_transform(X.T).T, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(
        Standardise.fit(X[::-1].T.copy().T).mean, Standardise.fit(X).mean[::-1]
    )


def test_small_differences_of_large_numbers_survive():
    X = 1e9 + np.array([[0.0, 1, 2, 3]])
    standardise = Standardise.fit(X)
    np.testing.assert_allclose(standardise(X), [[-1.3416408, -0.4472136, 0.4472136, 1.3416408]])
    model = SoftmaxRegression(1, 2, features=standardise)
    assert len(np.unique(model(X)[0])) == 4
    integers = (10**9 + np.arange(4))[None]
    np.testing.assert_array_equal(standardise(integers), standardise(X))


@given(arrays.arrays(np.float64, (2, 5), elements=st.floats(-1e6, 1e6)), st.floats(-1e9, 1e9))
def test_a_constant_feature_has_deviation_one(X, constant):
    X = np.vstack([X, np.full(5, constant)])
    standardise = Standardise.fit(X)
    assert standardise.mean[2] == constant and standardise.deviation[2] == 1
    assert (standardise(X)[2] == 0).all() and np.isfinite(standardise(X)).all()


def test_tfidf_is_that_of_scikit_learn(rng):
    dense = np.ceil(3 * rng.random((30, 12))) * (rng.random((30, 12)) < 0.2)
    counts = sparse.csr_array(dense)
    theirs = TfidfTransformer().fit(counts)
    ours = Tfidf.fit(counts.T)
    np.testing.assert_allclose(ours.idf, theirs.idf_, rtol=1e-15)
    X = ours(counts.T, dtype=np.float64)
    assert X.format == "csc"
    np.testing.assert_allclose(X.toarray().T, theirs.transform(counts).toarray(), rtol=1e-14)


def test_a_text_without_a_known_word_has_no_features():
    counts = sparse.csc_array(np.array([[1, 0], [2, 0]]))
    assert Tfidf.fit(counts)(counts).toarray()[:, 1].tolist() == [0, 0]
    explicit = sparse.csc_array((np.zeros(1), [0], [0, 0, 1]), (2, 2))
    assert Tfidf.fit(counts)(explicit).toarray().tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ShapeError, match="expected 2 features along axis 0"):
        Tfidf.fit(counts)(counts[:1])
    model = SoftmaxRegression(2, 2, features=Tfidf.fit(counts))
    assert model(counts).shape == (2, 2)
    with pytest.raises(InputError, match="expected a sparse array of counts, got ndarray; pass"):
        model(counts.toarray())


@pytest.mark.parametrize("features", [Standardise(np.ones(3), np.full(3, 2.0)), Tfidf(np.ones(3))])
def test_a_map_is_restored_from_its_arrays(features, tmp_path):
    assert digest(unpack(*pack(features))) == digest(features)
    SoftmaxRegression(3, 2, features=features).save(tmp_path / "model.npz")
    loaded = SoftmaxRegression.load(tmp_path / "model.npz")
    assert digest(loaded.features) == digest(features)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.ones(3, np.float32), "not finite float64"),
        (np.array([1, np.nan, 1]), "not finite float64"),
        (np.array([1.0, 0, 1]), "deviations above 0"),
        (np.ones(2), "a mean and a deviation for each feature"),
    ],
)
def test_damaged_arrays_are_refused(array, problem, tmp_path):
    standardise = Standardise(np.zeros(3), np.ones(3))
    object.__setattr__(standardise, "deviation", array)
    SoftmaxRegression(3, 2, features=standardise).save(tmp_path / "model.npz")
    with pytest.raises(CorruptFileError, match=problem):
        SoftmaxRegression.load(tmp_path / "model.npz")


def test_a_chain_computes_each_part_in_its_precision():
    X = 1e9 + np.arange(4.0)[None]
    standardise = Standardise.fit(X)
    chain = Chain([standardise, RandomFourier.fit(standardise(X), num_features=4)])
    np.testing.assert_array_equal(chain(X), chain.maps[1](standardise(X)))
    assert chain.is_one_by_one is False


def test_what_cannot_be_standardised_is_refused():
    with pytest.raises(ShapeError, match="at least one sample"):
        Standardise.fit(np.zeros((3, 0)))
    with pytest.raises(InputError, match="squares fit float64"):
        Standardise.fit([[1e200, -1e200, 3]])


def test_integers_are_no_standardised_features():
    X = np.arange(20).reshape(2, 10)
    model = SoftmaxRegression(2, 2, features=Standardise.fit(X))
    with pytest.raises(InputError, match=r"got int64; pass model.extract\(X\)"):
        FullBatchTrainer(model, FullBatch(X, np.arange(10) % 2, 0.1))
