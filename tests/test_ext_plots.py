"""The curves show the history that they are given."""

import pytest

from npsoftmax import DataLoader, Descent, SoftmaxRegression, Trainer

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from npsoftmax.ext import plots


def history(test):
    X, y = [[-1.0, 1.0, -2.0, 2.0]], [0, 1, 0, 1]
    model, loader = SoftmaxRegression(1, 2), DataLoader(X, y, 2)
    return Trainer(model, Descent(), loader, test=(X, y) if test else None).fit(3)


@pytest.mark.parametrize(
    ("draw", "fields"),
    [
        (plots.loss_curve, ("train_loss", "test_loss")),
        (plots.accuracy_curve, ("train_acc", "test_acc")),
    ],
)
@pytest.mark.parametrize("test", [True, False])
def test_curves(draw, fields, test):
    records = history(test)
    ax = Figure().subplots()
    assert draw(records, ax) is ax
    lines = ax.get_lines()
    assert len(lines) == (2 if test else 1)
    for line, field in zip(lines, fields, strict=False):
        assert list(line.get_xdata()) == [1, 2, 3]
        assert list(line.get_ydata()) == [getattr(record, field) for record in records]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "test"][
        : len(lines)
    ]
