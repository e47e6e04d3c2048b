"""The tutorials' recipes on the real Fashion-MNIST, and PyTorch weight for weight."""

from pathlib import Path

import numpy as np
import pytest

from npsoftmax import DataLoader, Descent, SoftmaxRegression, Trainer


def run(data, rule, seed, dtype=np.float32):
    model = SoftmaxRegression(784, 10, seed=seed, dtype=dtype, pixel_scale=data.pixel_scale)
    loader = DataLoader(data.X_train, data.y_train, 256, shuffle=True, seed=seed)
    trainer = Trainer(model, rule, loader, test=(data.X_test, data.y_test))
    trainer.fit(10)
    return trainer


@pytest.fixture(scope="module")
def pytorch_recipe(fashion_mnist):
    """Ten epochs at learning rate 0.1 for each of ten seeds."""
    return [run(fashion_mnist, Descent(0.1), seed).history for seed in range(10)]


def test_pytorch_and_colab_recipe(pytorch_recipe):
    accuracies = np.array([history[-1].test_acc for history in pytorch_recipe])
    assert 0.825 <= accuracies.mean() <= 0.836
    assert accuracies.min() >= 0.81
    assert accuracies.max() <= 0.845


def test_loss_falls_and_train_and_test_agree(pytorch_recipe):
    for history in pytorch_recipe:
        losses = [record.train_loss for record in history]
        assert losses == sorted(losses, reverse=True)
        assert 0.44 < losses[-1] < 0.455
        assert history[-1].test_loss < 0.55


def test_julia_chapter_recipe(fashion_mnist):
    """Descent(0.01): the honest mean loss is 0.622, the last batch of 16 shows about 0.40."""
    record = run(fashion_mnist, Descent(0.01), seed=0).history[-1]
    assert record.test_loss == pytest.approx(0.622, abs=0.006)
    assert record.test_acc == pytest.approx(0.795, abs=0.006)
    assert record.last_batch_test_loss == pytest.approx(0.40, abs=0.02)
    assert record.last_batch_test_acc in (13 / 16, 14 / 16, 15 / 16)


@pytest.fixture(scope="module")
def float64_run(fashion_mnist):
    return run(fashion_mnist, Descent(0.1), seed=0, dtype=np.float64)


def test_jax_slides_recipe_in_float64(float64_run, pytorch_recipe):
    """The slides train the same recipe; in float64 the same seed ends at the same place."""
    expected = pytorch_recipe[0][1].train_loss
    assert float64_run.history[1].train_loss == pytest.approx(expected, rel=1e-5)


def test_float64_equals_the_committed_torch_run(float64_run):
    path = Path(__file__).parent / "reference" / "torch_fashion_mnist.npz"
    with np.load(path) as reference:
        np.testing.assert_allclose(float64_run.model.theta, reference["theta"], rtol=0, atol=1e-10)
        assert float64_run.history[-1].train_loss == pytest.approx(
            float(reference["train_loss"]), rel=1e-12
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_torch_live(fashion_mnist, float64_run, dtype, tolerance):
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bench]'")
    from reference import make_torch_reference as tutorial

    loader = float64_run.loader
    start = SoftmaxRegression(784, 10, seed=0, dtype=dtype).theta
    orders = [loader.permutation(epoch) for epoch in range(tutorial.EPOCHS)]
    expected, _ = tutorial.train(
        start, fashion_mnist.X_train, fashion_mnist.y_train, orders, getattr(torch, dtype)
    )
    ours = (
        float64_run if dtype == "float64" else run(fashion_mnist, Descent(0.1), seed=0)
    ).model.theta
    print(f"{dtype}: largest weight difference {np.abs(ours - expected).max():.2g}")
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)
