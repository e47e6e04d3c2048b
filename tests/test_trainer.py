"""The trainer against the loop it stands for, its history, divergence, checkpoints."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from npsoftmax import DataLoader, SoftmaxRegression, Trainer, storage
from npsoftmax.checkpoint import Checkpoint
from npsoftmax.errors import (
    CorruptFileError,
    DivergedError,
    InputError,
    LabelError,
    OutputError,
    ResumeWarning,
    ShapeError,
)
from npsoftmax.history import Progress
from npsoftmax.objective import loss_and_grad
from npsoftmax.optimisers import Adam, Descent, Momentum, OptimiserChain, WeightDecay

D, K, N = 4, 3, 50


def problem():
    rng = np.random.default_rng(11)
    X = rng.standard_normal((N, D)).T
    return X, rng.integers(0, K, N)


def trainer(rule=None, dtype=np.float64, pixel_scale=None, num_samples=N, **settings):
    X, y = problem()
    X, y = X[:, :num_samples], y[:num_samples]
    of_loader = {"batch_size": 8, "shuffle": True, "drop_last": False, "seed": 5}
    loader = DataLoader(X, y, **{name: settings.pop(name, of_loader[name]) for name in of_loader})
    model = SoftmaxRegression(D, K, dtype=dtype, pixel_scale=pixel_scale)
    return Trainer(model, rule or Descent(0.1), loader, test=(X[:, :11], y[:11]), **settings)


def test_fit_is_the_documented_loop():
    X, y = problem()
    model, rule = SoftmaxRegression(D, K, dtype=np.float64), Momentum(0.1)
    loader = DataLoader(X, y, 8, shuffle=True, seed=5)
    losses, hits = [], []
    for epoch in range(3):
        for X_batch, y_batch in loader.batches(epoch):
            result = loss_and_grad(model.theta, X_batch, y_batch, 0.01)
            losses.append((epoch, result.crossentropy, y_batch.size))
            hits.append((epoch, (result.predicted == y_batch).sum()))
            rule.update(model.theta, result.grad)
    subject = trainer(Momentum(0.1), l2=0.01)
    history = subject.fit(epochs=3)
    np.testing.assert_array_equal(subject.model.theta, model.theta)
    for record in history:
        mine = [(loss, size) for epoch, loss, size in losses if epoch == record.epoch - 1]
        assert record.train_loss == pytest.approx(sum(a * b for a, b in mine) / N, rel=1e-14)
        assert record.last_batch_train_loss == mine[-1][0]
        assert record.train_acc == sum(h for e, h in hits if e == record.epoch - 1) / N


def test_test_values_are_means_over_all_samples_and_of_the_last_batch():
    subject = trainer()
    (record,) = subject.fit(epochs=1)
    X, y = subject.test
    P = subject.model(X)
    losses = -np.log(P[y, np.arange(y.size)])
    hits = P.argmax(axis=0) == y
    assert record.test_loss == pytest.approx(losses.mean(), rel=1e-12)
    assert record.test_acc == hits.mean()
    # 11 test samples in batches of 8: the last batch holds 3.
    assert record.last_batch_test_loss == pytest.approx(losses[8:].mean(), rel=1e-12)
    assert record.last_batch_test_acc == hits[8:].mean()


def test_training_learns_and_continues():
    subject = trainer()
    subject.fit(epochs=2)
    assert [r.epoch for r in subject.fit(epochs=2)] == [1, 2, 3, 4]
    assert subject.history[-1].train_loss < subject.history[0].train_loss
    assert subject.fit(epochs=0) is subject.history and len(subject.history) == 4


def test_a_returned_history_does_not_grow():
    subject = trainer()
    first, second = subject.fit(epochs=1), subject.fit(epochs=1)
    assert (len(first), len(second)) == (1, 2)


def test_without_test_data():
    X, y = problem()
    subject = Trainer(SoftmaxRegression(D, K), Descent(), DataLoader(X, y, 8))
    (record,) = subject.fit(1)
    assert record.test_loss is None and "test" not in str(record)


def test_divergence_stops_before_the_update():
    # One step makes parameters of about 1e32, which are finite, and logits that are not.
    X, y = problem()
    model = SoftmaxRegression(D, K, dtype=np.float32)
    subject = Trainer(model, Descent(1e22), DataLoader(X * 1e10, y, 8), test=(X, y))
    seen = []
    subject.on_step = lambda t: seen.append(t.model.theta.copy())
    with pytest.raises(DivergedError, match=r"epoch 1, step \d+ of 7.*learning rate") as caught:
        subject.fit(1)
    assert f"step {len(seen) + 1} " in str(caught.value)
    assert np.isfinite(model.theta).all()
    assert "the loss is" in str(caught.value)
    np.testing.assert_array_equal(model.theta, seen[-1])
    assert subject.history == []


@pytest.mark.parametrize("name", ["c.npz", None])
def test_divergence_in_the_last_update_is_noticed(tmp_path, name):
    X, y = problem()
    model = SoftmaxRegression(D, K, dtype=np.float32)
    loader = DataLoader(X * 1e10, y, N)
    path = name and tmp_path / name
    with pytest.raises(DivergedError, match="step 1 of 1: a parameter is not finite"):
        Trainer(model, Descent(1e38), loader, checkpoint=path).fit(1)
    if path is not None:
        assert Checkpoint.read(path).progress == Progress()
    assert len(list(tmp_path.iterdir())) == (name is not None)


@pytest.mark.parametrize("test_values", [1e300, 1e38])
def test_divergence_seen_only_by_the_test_data_is_divergence(test_values):
    X, y = problem()
    model = SoftmaxRegression(D, K, dtype=np.float64 if test_values == 1e300 else np.float32)
    subject = Trainer(
        model, Descent(1e10), DataLoader(X, y, N), test=(np.full((D, 3), test_values), y[:3])
    )
    with pytest.raises(DivergedError, match="step 1 of 1: a test loss is not finite"):
        subject.fit(1)
    assert subject.history == []


RULES = {
    "descent": lambda: Descent(0.1),
    "momentum": lambda: Momentum(0.1),
    "adam": lambda: Adam(0.01),
    "chain": lambda: OptimiserChain(WeightDecay(0.01), Momentum(0.1)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stop_after", [1, 6, 7, 10, 14])
def test_resume_is_bit_for_bit(tmp_path, rule, dtype, stop_after):
    path = tmp_path / "checkpoint.npz"
    whole = trainer(RULES[rule](), dtype=dtype)
    whole.fit(3)

    def interrupt(trainer):
        if 7 * trainer.epoch + trainer.step == stop_after:
            raise KeyboardInterrupt

    first = trainer(RULES[rule](), dtype=dtype, checkpoint=path, on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.fit(3)
    first.save_checkpoint(path)

    second = trainer(RULES[rule](), dtype=dtype)
    second.model.theta[:] = 99
    second.resume(path)
    second.fit(3 - second.epoch)
    np.testing.assert_array_equal(second.model.theta, whole.model.theta)
    for name, value in whole.optimiser.state.items():
        np.testing.assert_array_equal(second.optimiser.state[name], value)

    def values(history):
        return [
            {n: v for n, v in dataclasses.asdict(r).items() if "seconds" not in n} for r in history
        ]

    assert values(second.history) == values(whole.history)


def test_checkpoints_are_written_at_the_start_every_few_steps_and_after_each_epoch(tmp_path):
    subject, places = trainer(checkpoint=tmp_path / "c.npz", checkpoint_every=3), []
    subject.save_checkpoint = lambda _: places.append((subject.epoch, subject.step))
    subject.fit(3)  # 7 steps an epoch, 21 in total
    assert places[:7] == [(0, 0), (0, 3), (0, 6), (1, 0), (1, 2), (1, 5), (2, 0)]
    assert places[7:] == [(2, 1), (2, 4), (3, 0)]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"rule": Descent(0.2)}, r"optimiser 'Descent\(eta=0.1\)' there, 'Descent\(eta=0.2\)'"),
        ({"batch_size": 16}, "batch_size 8 there, 16 here"),
        ({"dtype": np.float32}, "theta 'float64"),
        ({"l2": 0.5}, "l2 0.0 there, 0.5 here"),
        ({"seed": 6}, "seed 5 there, 6 here"),
        ({"shuffle": False}, "shuffle True there, False here"),
        ({"drop_last": True}, "drop_last False there, True here"),
        ({"num_samples": 40}, r"samples 'float64 \(4, 50\)' there, 'float64 \(4, 40\)'"),
        ({"identity": {"sha256": "b"}}, "sha256 'a' there, 'b' here"),
        ({"pixel_scale": 1.0}, "pixel_scale None there, 1.0 here"),
    ],
)
def test_resume_with_other_settings_is_refused(tmp_path, other, named):
    path = tmp_path / "c.npz"
    first = trainer(identity={"sha256": "a"})
    first.save_checkpoint(path)
    second = trainer(**{"identity": {"sha256": "a"}, **other})
    before = second.model.theta.copy()
    with pytest.raises(InputError, match=named):
        second.resume(path)
    np.testing.assert_array_equal(second.model.theta, before)


def test_resume_refuses_other_files(tmp_path):
    path = tmp_path / "c.npz"
    with pytest.raises(InputError, match="cannot read"):
        trainer().resume(path)
    trainer().model.save(path)
    with pytest.raises(CorruptFileError, match="expected a checkpoint, got a model"):
        trainer().resume(path)
    storage.write(path, "checkpoint", {}, {"settings": {}})
    with pytest.raises(CorruptFileError, match="expected a checkpoint"):
        trainer().resume(path)


def test_identity_is_compared_as_a_file_gives_it_back(tmp_path):
    path = tmp_path / "c.npz"
    trainer(identity={"shape": (1, 2), "names": {1: "a"}}).save_checkpoint(path)
    trainer(identity={"shape": (1, 2), "names": {1: "a"}}).resume(path)
    for identity in ({"n": np.int64(3)}, {"n": float("nan")}):
        with pytest.raises(InputError, match="identity: expected what JSON can hold"):
            trainer(identity=identity)


def test_refusals(tmp_path):
    X, y = problem()
    model, loader = SoftmaxRegression(D, K), DataLoader(X, y, 8)
    for call, error, message in [
        (lambda: Trainer(SoftmaxRegression(D + 1, K), Descent(), loader), ShapeError, "5 features"),
        (lambda: Trainer(SoftmaxRegression(D, K - 1), Descent(), loader), LabelError, "0..1"),
        (lambda: Trainer(model, Descent(), loader, test=(X.T, y)), ShapeError, "features along"),
        (lambda: Trainer(model, Descent(), (X, y)), InputError, r"got tuple; pass .*DataLoader\("),
        (lambda: Trainer(model, Descent(), X), InputError, "got ndarray"),
        (lambda: Trainer(model, Descent(), SimpleNamespace(batches=loader.batches)), InputError,
         "got SimpleNamespace"),
        (lambda: Trainer(model, Descent(), loader, test=X), InputError, r"pass test=\(X_test, y_"),
        (lambda: Trainer(model, Descent(), loader, test=loader), InputError, "got DataLoader"),
        (lambda: Trainer(model, Descent(), loader, l2=-1), InputError, "l2"),
        (lambda: Trainer(model, Descent(), loader, checkpoint_every=0), InputError, "every"),
        (lambda: Trainer(model, Descent(), DataLoader(X, y, 99, drop_last=True)), InputError,
         "at least one batch"),
        (lambda: Trainer(model, Descent(), loader).fit(-1), InputError, "epochs"),
        (lambda: Trainer(model, "adam", loader), InputError, "rule like Descent"),
        (lambda: Trainer(model, Descent, loader), InputError, "rule like Descent"),
        (lambda: Trainer(model, Descent(), loader, checkpoint=tmp_path).fit(1), OutputError,
         "cannot write"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_another_environment_is_said(tmp_path, monkeypatch):
    trainer(checkpoint=tmp_path / "c.npz").fit(1)
    monkeypatch.setattr(np, "__version__", "1.0")
    with pytest.warns(ResumeWarning, match=r"numpy .* there, 1\.0 here\); the run resumes"):
        trainer().resume(tmp_path / "c.npz")
