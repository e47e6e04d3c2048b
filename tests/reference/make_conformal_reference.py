"""Write conformal.json: thresholds and sets by MAPIE 1.6.0 and crepes 0.9.1.

They are no dependencies of the tests. To run it: `pip install mapie==1.6.0 crepes==0.9.1`, then
`python tests/reference/make_conformal_reference.py`.
"""

import json
from pathlib import Path

import crepes
import numpy as np
from crepes.extras import hinge
from mapie.classification import SplitConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedShuffleSplit

CLASSES, CALIBRATION, TEST, COVERAGE, SEED = 5, 200, 40, 0.7, 7


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose samples are the probabilities that it predicts."""

    classes_ = np.arange(CLASSES)
    is_fitted_ = True

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


def draw(rng, count):
    """Return probabilities as rows, multiples of 2**-12 that add up to 1, and labels."""
    weights = rng.dirichlet(np.full(CLASSES, 0.6), count)
    P = np.floor(weights * 2**12) / 2**12
    P[:, 0] += 1 - P.sum(axis=1)
    y = [rng.choice(CLASSES, p=0.9 * row + 0.1 / CLASSES) for row in P]
    return P, np.array(y)


def mapie(method, P, y, Q, **options):
    model = SplitConformalClassifier(Given(), COVERAGE, method, random_state=SEED)
    model.conformalize(P, y)
    _, sets = model.predict_set(Q, conformity_score_params=options or None)
    score = model._mapie_classifier.conformity_score_function_
    found = {"threshold": float(score.quantiles_[0]), "sets": sets[:, :, 0].astype(int).tolist()}
    if method == "raps":
        found |= {"penalty": float(score.lambda_star), "free_ranks": int(score.k_star[0])}
        split = StratifiedShuffleSplit(1, test_size=score.size_raps, random_state=SEED)
        ((rest, some),) = split.split(P, y)
        assert np.array_equal(score.X_raps, P[some])
        found |= {"tuning": some.tolist(), "rest": rest.tolist()}
    return found


def by_crepes(P, y, Q, bins_cal=None):
    model = crepes.ConformalClassifier().fit(hinge(P, Given.classes_, y), bins=bins_cal)
    if bins_cal is None:
        return (
            model.predict_set(hinge(Q), confidence=COVERAGE, smoothing=False).astype(int).tolist()
        )
    columns = [
        model.predict_set(hinge(Q), bins=np.full(len(Q), c), confidence=COVERAGE, smoothing=False)
        for c in Given.classes_
    ]
    return np.stack([sets[:, c] for c, sets in enumerate(columns)], axis=1).astype(int).tolist()


rng = np.random.default_rng(SEED)
(P, y), (Q, _) = draw(rng, CALIBRATION), draw(rng, TEST)
reference = {
    "coverage": COVERAGE,
    "P": (P * 2**12).astype(int).tolist(),
    "y": y.tolist(),
    "Q": (Q * 2**12).astype(int).tolist(),
    "u_calibration": np.random.RandomState(SEED).uniform(size=CALIBRATION).tolist(),
    "u_test": np.random.RandomState(SEED).uniform(size=TEST).tolist(),
    "lac": mapie("lac", P, y, Q),
    "aps": mapie("aps", P, y, Q, include_last_label="randomized"),
    "raps": mapie("raps", P, y, Q, include_last_label="randomized"),
    "crepes": by_crepes(P, y, Q),
    "crepes_per_class": by_crepes(P, y, Q, bins_cal=y),
}
Path(__file__).with_name("conformal.json").write_text(json.dumps(reference) + "\n")
