"""Documented numbers of the Julia packages, and ours.

``OURS`` computes our value of a case; a key that ends in a dot applies to all cases that begin with
it. ``DEVIATES`` tests the deviations of docs/julia.md; ``OUT_OF_SCOPE`` lists the cases without a
counterpart.
"""

import inspect
import re
from functools import partial, reduce
from pathlib import Path
from types import SimpleNamespace

import julia_reference as ours
import numpy as np
import pytest
from julia_reference import BULK, CASES, refused

import npsoftmax
from npsoftmax import DataLoader, SoftmaxRegression, Trainer, metrics
from npsoftmax.data.datasets import find
from npsoftmax.errors import InputError
from npsoftmax.functional import (
    crossentropy,
    crossentropy_grad,
    label_smoothing,
    logitcrossentropy,
    logitcrossentropy_grad,
    logsoftmax,
    logsoftmax_grad,
    logsumexp,
    logsumexp_grad,
    onecold,
    onehotbatch,
    softmax,
    softmax_grad,
)
from npsoftmax.objective import sample_losses
from npsoftmax.optimisers import (
    Adam,
    AdamW,
    ClipGrad,
    ClipNorm,
    Descent,
    Momentum,
    OptimiserChain,
    WeightDecay,
)

DOCUMENT = (Path(__file__).parents[1] / "docs" / "julia.md").read_text(encoding="utf-8")


def axis(dims):
    return None if dims == ":" else dims - 1


def sequence(make_rule, p0, grads):
    return {"p_after_each_step": np.array(ours.steps(make_rule(), p0, grads))}


OURS = {
    "seed.pick_probabilities": lambda y_hat, y_one_based: y_hat.T[
        onehotbatch(y_one_based, [1, 2, 3]).T
    ],
    "seed.cross_entropy": lambda y_hat, y_one_based: crossentropy(y_hat, y_one_based - 1, eps=0),
    "seed.loss_zero_based": lambda y_hat, y_zero_based: crossentropy(y_hat, y_zero_based, eps=0),
    "seed.flux_crossentropy_of_same": lambda y_hat, y: crossentropy(y_hat, y),
    "seed.accuracy": lambda y_hat, y_zero_based: metrics.accuracy(y_hat, y_zero_based),
    "seed.final_val_metrics": lambda see, run: {
        "n_entries": len(run.losses),
        "val_loss_first10": run.losses[:10],
        "val_loss_last10": run.losses[-10:],
        "val_acc_first10": run.accuracies[:10],
        "val_acc_last10": run.accuracies[-10:],
    },
    "softmax.": lambda x, dims=1: softmax(x, axis(dims)),
    "softmax.number_argument": lambda x: refused(softmax, x),
    "logsoftmax.": lambda x, dims=1: logsoftmax(x, axis(dims)),
    "logsumexp.": lambda x, dims=":": logsumexp(x, axis(dims), keepdims=dims != ":"),
    "grad_softmax.": lambda dy, y_is_softmax_of: softmax_grad(dy, softmax(y_is_softmax_of)),
    "grad_logsoftmax.": lambda dy, xs, dims: logsoftmax_grad(dy, logsoftmax(xs), axis(dims)),
    "grad_logsumexp.": logsumexp_grad,
    # x log x is minus the cross-entropy of x with itself; 0 log 0 is 0.
    "xlogx": lambda x: -crossentropy(x[None, :], x[None, :], agg="none", eps=0),
    "crossentropy.": crossentropy,
    "crossentropy.gradient": crossentropy_grad,
    "crossentropy.weighted_agg": lambda yhat, y, w_per_observation: np.mean(
        w_per_observation * crossentropy(yhat, y, agg="none")
    ),
    "logitcrossentropy.": logitcrossentropy,
    "logitcrossentropy.basic_gradient": logitcrossentropy_grad,
    "logitcrossentropy.smooth_single": lambda logits, y, alpha: logitcrossentropy(
        logits, label_smoothing(y, alpha)
    ),
    "logitcrossentropy.masked_logit_bool_label": lambda logits, y_bool: logitcrossentropy(
        logits, y_bool
    ),
    "label_smoothing.effect": ours.smoothing_effect,
    "onehotbatch.": onehotbatch,
    "onehotbatch.errors": ours.refused_labels,
    "onehot.matmul": lambda A, hot_index_one_based: (
        A @ onehotbatch(hot_index_one_based, [1, 2, 3, 4, 5])
    ),
    "onehot.readme": ours.one_hot_form,
    "onecold.vector": lambda y, labels: {
        "index_one_based": onecold(y) + 1,
        "label": onecold(y, labels),
    },
    "momentum.": ours.momentum,
    "momentum.doc_thirtieth": lambda **inputs: ours.momentum(**inputs)["p"],
    "momentum.adjust": ours.adjusted_momentum,
    "nesterov.doc_velocity": ours.nesterov,
    "clipgrad_descent.doc": lambda p, grads: ours.steps(
        OptimiserChain(ClipGrad(1.0), Descent(0.1)), p, grads
    )[-1],
    "chain.clip_then_decay": lambda p, grads: ours.steps(
        OptimiserChain(ClipGrad(2.0), WeightDecay(0.1)), p, grads
    )[-1],
    "chain.descent": lambda p, grads: {
        "descent": ours.steps(OptimiserChain(Descent(0.1)), p, grads)[-1],
        "empty": ours.steps(OptimiserChain(), p, grads)[-1],
    },
    "clipnorm.l2": lambda grads, omega, p: ClipNorm(omega).apply(grads[0], grads[0].astype(float)),
    "sequence.momentum(0.1,0.9)": partial(sequence, lambda: Momentum(0.1, 0.9)),
    "sequence.adam(0.1)": partial(sequence, lambda: Adam(0.1)),
    "sequence.adamw(0.1, lambda=0.01, couple=true)": partial(
        sequence, lambda: AdamW(0.1, lambda_=0.01)
    ),
    "sequence.chain(weightdecay(0.01), adam(0.1))": partial(
        sequence, lambda: OptimiserChain(WeightDecay(0.01), Adam(0.1))
    ),
    "sequence.chain(weightdecay(0.01), descent(0.1))": partial(
        sequence, lambda: OptimiserChain(WeightDecay(0.01), Descent(0.1))
    ),
    "dataloader.": ours.batches,
    "dataloader.vector_drop": ours.vector_batches,
    "dataloader.eachobs_15_2": ours.batch_lengths,
    "dataloader.shuffle_semantics": ours.shuffling,
    "splitobs.": ours.pieces,
    "mldatasets.scaling": lambda **inputs: ours.scaled(inputs["bytes"]),
    "mlj.multinomial_loss": lambda **inputs: ours.sums(**inputs)["loss"],
    "mlj.multinomial_loss_intercept": lambda **inputs: ours.sums(**inputs)["loss"],
    "mlj.multinomial_gradient_intercept": ours.sums,
    "mlj.multinomial_hessian_vector_intercept": ours.hessian_sums,
    "mlj.fit.": ours.binary_fit,
    "mlj.fit.all_bias_unpenalised": ours.unpenalised_fit,
}

OUT_OF_SCOPE = {
    "kldivergence": "cross-entropy less the targets' entropy, a constant: the same gradient",
    "focal_loss.1": "another loss than this model's",
    "focal_loss.2": "another loss than this model's",
}


def naive_softmax(case, X):
    """We subtract the largest entry first: no overflow, no 0 / 0."""
    with np.errstate(all="ignore"):
        case.check(np.exp(X) / np.exp(X).sum(axis=0))
    np.testing.assert_allclose(softmax(X), [[1, 1, 0.5], [0, np.exp(-100), 0.5]], case.rtol)


def printed_log(case, run, **_):
    """Our epoch values are means over all samples; the last batch of 16 has fields of its own.

    The source has no seed. Its values are within 0.04 of ours, 0.2 below the mean.
    """
    printed = case.expected
    last_losses = [record.last_batch_test_loss for record in run.history]
    last_accuracies = np.array([record.last_batch_test_acc for record in run.history])
    np.testing.assert_allclose(last_losses, printed["val_loss_last_batch"], rtol=0, atol=0.04)
    for accuracies in (last_accuracies, printed["val_acc_last_batch"]):
        np.testing.assert_array_equal(accuracies * 16 % 1, 0)
    assert run.history[-1].test_loss == pytest.approx(run.all_losses.mean())
    assert run.history[-1].test_loss > printed["val_loss_last_batch"][-1] + 0.2


def class_names(case, indices_zero_based):
    """Class 0 has the name given by the authors of the data set."""
    names = np.array(find("fashion-mnist").classes)[indices_zero_based].tolist()
    assert (names[0], case.expected[0]) == ("T-shirt/top", "T-Shirt")
    assert names[1:] == case.expected[1:]


def clipping(case, grads, gradient_clip_val):
    """A gradient shorter than the threshold is not changed."""
    flat = np.concatenate([grads["w"], grads["b"]])
    assert ClipNorm(gradient_clip_val).apply(flat, flat.copy()).tolist() == flat.tolist() == [3, 4]
    w, b = ClipNorm(1.0).apply(flat, flat.copy())
    case.check({"w": [w], "b": [b]})


def default_learning_rate(case, p, grads):
    """0.1 in the parameters' precision, not Float32's 0.1."""
    assert ours.steps(Descent(), p, grads)[-1] == 0.9
    case.check(ours.steps(Descent(float(np.float32(0.1))), p, grads)[-1])


def default_batch_size(case, n, features):
    """256, the tutorials' batch size, not 1."""
    X, y = np.zeros((features, n)), np.zeros(n, int)
    assert DataLoader(X, y).batch_size == 256
    shapes = [X.shape for X, _ in DataLoader(X, y, batch_size=1)]
    case.check({"batches": len(shapes), "each_shape": np.array(shapes[0])})
    assert len(set(shapes)) == 1


def negative_batch_size(case, features, n, batchsize):
    """A batch is always a matrix; iterate over the rows of X.T for single samples."""
    X = np.zeros((features, n))
    assert refused(DataLoader, X, np.zeros(n, int), batchsize)
    case.check({"items": len(X.T), "each_shape": np.array(X.T[0].shape)})


def penalised_intercept(case, data_key, **inputs):
    """No bias is penalised, where the source penalises all but the last class's."""
    quirk = ours.multinomial_fit(data_key, **inputs, penalised_biases=3)
    W = BULK[data_key]["theta_no_intercept"].reshape(4, 5)
    value, _ = quirk.value_and_grad(ours.with_bias(W))
    # The source does not penalise the last entry even if it is a weight.
    value -= quirk.lambda_ / 2 * W[-1, -1] ** 2
    case.check({"J_of_no_intercept_theta": value, "J_min": quirk.minimise()[0]})
    minimum, _ = ours.multinomial_fit(data_key, **inputs).minimise()
    assert minimum == pytest.approx(366.0009496526, rel=1e-9)


DEVIATES = {
    "seed.naive_softmax_overflow": naive_softmax,
    "seed.log_lines": printed_log,
    "d2lai.text_labels": class_names,
    "d2lai.clip_gradients_ignores_value": clipping,
    "descent.default_eta": default_learning_rate,
    "dataloader.default_batchsize": default_batch_size,
    "dataloader.negative_batchsize": negative_batch_size,
    "mlj.fit.intercept_last_unpenalised": penalised_intercept,
}

NEEDS_THE_CHAPTERS_RUN = {"seed.log_lines", "seed.final_val_metrics"}


@pytest.fixture(scope="module")
def chapter_run(fashion_mnist):
    """Train as the chapter does, in float64.

    The chapter has no seed, so a case has wide tolerances. The losses of seeds 0 to 5 are within
    them; so are the accuracies, of 256 images each, of seeds 1 to 3.
    """
    data = fashion_mnist
    model = SoftmaxRegression(784, 10, seed=3, dtype=np.float64, pixel_scale=1 / 255)
    loader = DataLoader(data.X_train, data.y_train, 256, shuffle=True, seed=3)
    history = Trainer(model, Descent(0.01), loader, test=(data.X_test, data.y_test)).fit(10)
    losses, predicted = sample_losses(model.theta, data.X_test, data.y_test, model.pixel_scale)
    cuts = range(256, losses.size, 256)
    return SimpleNamespace(
        history=history,
        all_losses=losses,
        losses=np.array([part.mean() for part in np.split(losses, cuts)]),
        accuracies=np.array([part.mean() for part in np.split(predicted == data.y_test, cuts)]),
    )


def key_of(name):
    """Return the key of OURS for a case: its own name, else the longest prefix."""
    keys = [key for key in OURS if name == key or (key.endswith(".") and name.startswith(key))]
    return max(keys, key=len, default=None)


@pytest.mark.parametrize("name", CASES)
def test_case(name, request):
    case = CASES[name]
    if name in OUT_OF_SCOPE:
        pytest.skip(OUT_OF_SCOPE[name])
    inputs = dict(case.inputs)
    if name in NEEDS_THE_CHAPTERS_RUN:
        inputs["run"] = request.getfixturevalue("chapter_run")
    try:
        if name in DEVIATES:
            DEVIATES[name](case, **inputs)
        else:
            case.check(OURS[key_of(name)](**inputs))
    except Exception as error:
        raise AssertionError(f"{name}, stated in {case.source}: {error}") from error


def test_every_case_is_run_or_listed_and_no_entry_is_stale():
    listed = [*OUT_OF_SCOPE, *DEVIATES]
    assert len(CASES) == 101 and len(set(listed)) == len(listed)
    assert set(listed) | NEEDS_THE_CHAPTERS_RUN <= set(CASES)
    used = {name: key_of(name) for name in CASES if name not in listed}
    assert [name for name, key in used.items() if key is None] == []
    assert set(used.values()) == set(OURS)


def test_deviations_that_no_case_shows():
    X, y = np.zeros((1, 3)), np.zeros(3, int)
    assert len(DataLoader(X, y, 5, drop_last=True)) == 0  # MLUtils.jl: one batch of 3
    assert logitcrossentropy([0.0, -np.inf], [1.0, 0.0]) == 0.0  # Flux.jl: NaN
    assert logsumexp([-np.inf, -np.inf]) == -np.inf  # NNlib.jl: NaN
    assert np.isnan(softmax([np.inf, np.nan, 1.0])).all()  # NNlib.jl: undefined
    with pytest.raises(InputError, match="NaN"):  # OneHotArrays.jl: only for a vector
        onecold([[0.0, np.nan], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("name", "arguments"), sorted(set(re.findall(r"`(npsoftmax[\w.]+)\(([^`]*)\)`", DOCUMENT)))
)
def test_signatures_in_the_document_are_right(name, arguments):
    def parameters(function):
        every = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in every if p.name != "self"]

    documented = eval(f"lambda {arguments}: None")
    assert parameters(documented) == parameters(reduce(getattr, name.split(".")[1:], npsoftmax))


def test_the_document_lists_every_deviation_and_only_known_cases():
    quoted = set(re.findall(r"`([^`\n]+)`", DOCUMENT))
    assert set(DEVIATES) | set(OUT_OF_SCOPE) <= quoted
    families = tuple({name.split(".")[0] + "." for name in CASES if "." in name})
    assert {text for text in quoted if text.startswith(families)} <= set(CASES)
