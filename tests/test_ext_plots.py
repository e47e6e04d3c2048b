"""Pictures show the data they are given: images upright, names literally, on the given Axes."""

import io
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from npsoftmax import DataLoader, Descent, SoftmaxRegression, Trainer, metrics, softmax
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.history import IterationRecord

pytest.importorskip("matplotlib")
import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from npsoftmax.ext import plots


def axes(rows=1, columns=1, **size):
    return Figure(**size).subplots(rows, columns)


def pixels(figure):
    """Return what the figure looks like, as rows of grey pixels from 0 to 255."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=2)


def drawn_texts(figure):
    """Return the visible texts of the rendered figure with their places in pixels."""
    pixels(figure)
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    return [(text.get_text(), text.get_window_extent()) for text in texts]


def texts_of(artists):
    return [artist.get_text() for artist in artists]


def trained(test=True, epochs=3):
    X, y = [[-1.0, 1.0, -2.0, 2.0]], [0, 1, 0, 1]
    model, loader = SoftmaxRegression(1, 2), DataLoader(X, y, 2)
    trainer = Trainer(model, Descent(), loader, test=(X, y) if test else None)
    trainer.fit(epochs)
    return trainer


def two_classes():
    """Return a model of 2x2 images that calls the top row 'up' and the bottom row 'down'."""
    model = SoftmaxRegression(4, 2, classes=["up", "down"], dtype=np.float64)
    model.theta[:] = [[2, 1, 0, 0, 0], [0, 0, 1, 2, 0]]
    return model


class TestCurves:
    @pytest.mark.parametrize(
        ("draw", "fields"),
        [
            (plots.loss_curve, ("train_loss", "test_loss")),
            (plots.accuracy_curve, ("train_acc", "test_acc")),
        ],
    )
    @pytest.mark.parametrize("test", [True, False])
    def test_show_the_history(self, draw, fields, test):
        records = trained(test).history
        ax = axes()
        assert draw(records, ax) is ax
        lines = ax.get_lines()
        assert len(lines) == (2 if test else 1)
        for line, field in zip(lines, fields, strict=False):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [getattr(record, field) for record in records]
        assert texts_of(ax.get_legend().get_texts()) == ["training", "test"][: len(lines)]

    def test_count_iterations_too_and_mark_few_points_only(self):
        record = IterationRecord(0, 1.0, 1.0, 1.0, 1, 0.5, 0.9, None, None, 0.1, 0.0)
        few, many = axes(1, 2)
        plots.loss_curve([record] * 30, few)
        plots.loss_curve([record] * 31, many)
        assert few.get_xlabel() == "iteration"
        assert [ax.get_lines()[0].get_marker() for ax in (few, many)] == [".", ""]

    def test_validation_curve_marks_the_best_and_diverged_runs(self):
        ax = axes()
        train, validation = [0.3, 0.6, 0.4, np.nan, 1], [0.7, 0.65, 0.5, 0.1, np.inf]
        assert plots.validation_curve([1, 0.01, 0.1, 3, 10], train, validation, ax, "rate") is ax
        training, held_out, best, diverged = ax.get_lines()
        assert training.get_xydata().tolist() == [[0.01, 0.6], [0.1, 0.4], [1.0, 0.3]]
        assert held_out.get_xydata().tolist() == [[0.01, 0.65], [0.1, 0.5], [1.0, 0.7]]
        assert best.get_xydata().tolist() == [[0.1, 0.5]]
        assert diverged.get_xdata().tolist() == [3, 10] and diverged.get_label() == "diverged"
        assert ax.get_xscale() == "log" and ax.get_xlabel() == "rate"


class TestImage:
    def test_is_upright(self):
        figure = Figure(figsize=(0.9, 0.9), dpi=100)
        ax = figure.add_axes((0, 0, 1, 1), frameon=False)
        column = np.array([255, 128, 0, 0, 0, 0, 0, 0, 0], np.uint8)
        assert plots.image(column[:, None], ax) is ax
        assert ax.get_xticks().tolist() == ax.get_yticks().tolist() == []
        seen = pixels(figure)[15::30, 15::30]  # the middle of each pixel of the image
        assert seen.tolist() == [[255, 128, 0], [0, 0, 0], [0, 0, 0]]

    @pytest.mark.parametrize(
        ("column", "limits"),
        [
            (np.array([10, 20, 30, 40], np.uint8), (0, 255)),
            (np.array([0.1, 0.2, 0.3, 0.4], np.float32), (0, 1)),
            (np.array([-0.5, 0.0, 1.0, 2.5]), (-0.5, 2.5)),
            (np.array([0, 1, 1, 0], bool), (0, 1)),
            (np.array([0, 7, 7, 0]), (0, 7)),
        ],
    )
    def test_black_and_white_follow_the_dtype(self, column, limits):
        ax = plots.image(column, axes())
        assert ax.images[0].get_clim() == limits
        pixels(ax.figure)


class TestGrid:
    def test_draws_each_sample_below_its_title(self):
        X = np.arange(36, dtype=np.uint8).reshape(4, 9)
        figure = plots.grid(X, ["a $x_1$\ntrue: b", *range(8)])
        *shown, spare = figure.axes[:10]
        assert [ax.get_title() for ax in shown] == ["a $x_1$\ntrue: b", *map(str, range(8))]
        assert [ax.images[0].get_array().ravel().tolist() for ax in shown] == X.T.tolist()
        assert not spare.axison and len(figure.axes) == 16
        assert "a $x_1$\ntrue: b" in [text for text, _ in drawn_texts(figure)]

    def test_titles_do_not_touch(self):
        figure = plots.grid(np.zeros((4, 16)), ["A TITLE IN CAPITALS, AND LONG\nsecond line"] * 16)
        places = [place for text, place in drawn_texts(figure)]
        assert all(left.x1 < right.x0 for left, right in pairwise(places[:8]))
        assert all(place.y1 < figure.axes[0].bbox.y0 for place in places[8:])

    def test_needs_no_titles(self):
        assert [ax.get_title() for ax in plots.grid(np.zeros((4, 2))).axes] == ["", ""]


class TestSettings:
    """The settings of a user, as in a ``matplotlibrc``, make no picture wrong."""

    @pytest.fixture(params=["lower", "dark"])
    def user(self, request, strange_matplotlib):
        if request.param == "lower":
            with strange_matplotlib():
                yield
        else:
            with matplotlib.style.context("dark_background"):
                yield

    def test_images_are_upright_with_square_pixels(self, user):
        counts = [[1, 2], [0, 3]]
        confusion = plots.confusion(counts, ["$x_1$", "b"], axes())
        weights, _ = plots.weights(two_classes(), axes(1, 2))
        for ax in (plots.image(np.arange(4), axes()), confusion, weights):
            (shown,) = ax.images
            assert (shown.origin, shown.get_interpolation()) == ("upper", "nearest")
            assert ax.get_aspect() == 1 and ax.get_ylim() == (1.5, -0.5)
        assert not any(line.get_visible() for line in confusion.get_xgridlines())

    def test_curves_can_be_seen(self, user):
        record = IterationRecord(0, 1.0, 1.0, 1.0, 1, 0.5, 0.9, None, None, 0.1, 0.0)
        for line in plots.loss_curve([record] * 31, axes()).get_lines():
            assert line.get_linewidth() > 1

    def test_texts_can_be_seen(self, user):
        bars = plots.top_k_bars([("a", 0.9), ("b", 0.1)], axes())
        right, wrong = plots.prediction_grid(two_classes(), IMAGES[:, :2], [0, 0], axes(1, 2))
        back = grey(bars.get_facecolor())
        for text in (bars.texts[1], right.title, wrong.title):
            assert abs(grey(text.get_color()) - back) > 0.25
        assert wrong.title.get_color() != right.title.get_color()

    def test_class_names_are_never_formulas(self, strange_matplotlib):
        names = ["$x_1$", "50 %"]
        model = SoftmaxRegression(4, 2, classes=names, sigma=0)
        with strange_matplotlib():  # text.usetex
            grid = plots.prediction_grid(model, np.zeros((4, 1)), [0], axes())
            confusion = plots.confusion(np.eye(2, dtype=int), names, axes())
            bars = plots.top_k_bars([("$x_1$", 1)], axes())
            texts = [grid.title, *confusion.get_yticklabels(), *bars.get_yticklabels()]
        assert len(texts) == 4 and not any(text.get_usetex() for text in texts)

    def test_figures_made_here_look_the_same(self, strange_matplotlib):
        def drawn():
            figure, file = plots.grid(IMAGES, "abcd"), io.BytesIO()
            with plots.defaults():
                figure.savefig(file, format="png")
            return plots._as_png(history), file.getvalue()

        history = trained().history
        expected = drawn()
        with strange_matplotlib():
            assert drawn() == expected

    def test_the_settings_come_back_and_the_fonts_stay(self, strange_matplotlib):
        with strange_matplotlib():
            matplotlib.rcParams["font.family"] = ["serif"]
            with plots.defaults():
                assert matplotlib.rcParams["font.family"] == ["serif"]
                assert matplotlib.rcParams["image.origin"] == "upper"
            assert matplotlib.rcParams["image.origin"] == "lower"


def grey(color):
    return np.mean(matplotlib.colors.to_rgb(color))


class TestWeights:
    def test_are_upright_with_one_symmetric_scale_red_for_the_class(self):
        model, grid = two_classes(), axes(1, 3)
        assert plots.weights(model, grid) is grid
        up, down, spare = grid
        assert up.images[0].get_array().tolist() == [[2, 1], [0, 0]]
        assert down.images[0].get_array().tolist() == [[0, 0], [1, 2]]
        low, high = up.images[0].get_clim()
        assert low == -high < 0 and down.images[0].get_clim() == (low, high)
        assert [ax.get_title() for ax in grid] == ["up", "down", ""] and not spare.axison
        assert len(up.figure.axes) == 4  # one colour bar
        red, blue = up.images[0].cmap(up.images[0].norm(np.array([2, -2])))
        assert red[0] > red[2] and blue[2] > blue[0]

    def test_of_zero_are_drawn_too(self):
        ax, _ = plots.weights(SoftmaxRegression(4, 2, sigma=0), axes(1, 2))
        assert ax.images[0].get_clim() == (-1, 1)
        pixels(ax.figure)

    @pytest.mark.parametrize("layout", ["tight", "constrained", "none"])
    def test_colour_bar_is_beside_the_images(self, layout):
        figure = Figure(figsize=(9, 4), layout=layout)
        images = plots.weights(two_classes(), figure.subfigures(1, 1).subplots(1, 2))
        pixels(figure)
        assert figure.axes[-1].bbox.x0 > max(ax.bbox.x1 for ax in images)


class TestTopFeatures:
    def test_are_bars_from_the_strongest_on_one_scale(self):
        model = SoftmaxRegression(
            3, 2, classes=["cat", "$d_g$"], feature_names=["meow", "$t_l$", "bark"]
        )
        model.W[:] = [[2, 5, 0], [0, 5, 4]]
        figure = Figure(figsize=(9, 3), layout="constrained")
        grid = figure.subplots(1, 3)
        assert plots.top_features(model, grid, k=3) is grid
        cat, dog, spare = grid
        assert texts_of(cat.get_yticklabels()) == ["meow", "$t_l$", "bark"]
        assert texts_of(dog.get_yticklabels()) == ["bark", "$t_l$", "meow"]
        assert [bar.get_width() for bar in dog.patches] == [2, 0, -1]
        assert cat.get_xlim() == dog.get_xlim() and cat.get_ylim() == (2.5, -0.5)
        assert [ax.get_title() for ax in grid] == ["cat", "$d_g$", ""] and not spare.axison
        places = dict(drawn_texts(figure))  # names as they are, beside the bars of their class
        assert places["$t_l$"].x0 > cat.bbox.x1 and places["bark"].y0 > places["meow"].y1

    def test_of_zero_are_drawn_too(self):
        ax, _ = plots.top_features(SoftmaxRegression(1, 2, sigma=0), axes(1, 2), k=1)
        assert ax.get_xlim() == (0, 1)
        pixels(ax.figure)


IMAGES = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 3, 0], [0, 0, 2, 0]], float).T


class TestPredictions:
    def test_bars_begin_at_the_top_and_show_their_probabilities(self):
        ax = axes()
        assert plots.top_k_bars([("Ankle boot", 0.958), ("Bag", 0.04), ("Coat", 0)], ax) is ax
        assert [bar.get_width() for bar in ax.patches] == [0.958, 0.04, 0]
        assert texts_of(ax.get_yticklabels()) == ["Ankle boot", "Bag", "Coat"]
        assert texts_of(ax.texts) == ["0.958", "0.040", "0.000"]
        assert ax.get_xlim() == (0, 1) and ax.get_ylim() == (2.5, -0.5)
        places = dict(drawn_texts(ax.figure))
        assert places["Ankle boot"].y0 > places["Bag"].y1 > places["Coat"].y1
        assert places["0.958"].x1 < ax.bbox.x1

    def test_grid_shows_predicted_class_probability_and_true_class(self):
        model, grid = two_classes(), axes(2, 2)
        assert plots.prediction_grid(model, IMAGES[:, :3], [0, 1, 0], grid) is grid
        p = model.probabilities(IMAGES).max(axis=0)
        assert [ax.get_title() for ax in grid.flat] == [
            f"up {p[0]:.3f}\ntrue: up",
            f"down {p[1]:.3f}\ntrue: down",
            f"down {p[2]:.3f}\ntrue: up",
            "",
        ]
        right, _, wrong, spare = grid.flat
        assert right.title.get_color() != wrong.title.get_color()
        assert wrong.images[0].get_array().tolist() == [[0, 0], [3, 0]]
        assert not spare.axison and not spare.images

    def test_grid_draws_one_sample_for_each_of_the_axes(self):
        ax = axes()
        assert plots.prediction_grid(two_classes(), IMAGES, [0, 1, 0, 0], ax) is ax
        assert ax.images[0].get_array().tolist() == [[1, 0], [0, 0]]

    @pytest.mark.parametrize("dtype", [np.uint8, np.int64])
    def test_grid_draws_pixels_of_every_integer_dtype_alike(self, dtype):
        model, ax = two_classes(), axes()
        model.pixel_scale = 1 / 255
        plots.prediction_grid(model, np.array([[100], [9], [0], [0]], dtype), [0], ax)
        assert ax.images[0].get_clim() == (0, 255)

    def test_misclassified_begins_with_the_most_confident_error(self):
        model, grid = two_classes(), list(axes(1, 3))
        assert plots.misclassified(model, IMAGES, [1, 0, 0, 0], grid) is grid
        # By their logits: 3 for the third image, 2 for the others.
        images = [ax.images[0].get_array().ravel().tolist() for ax in grid]
        assert images == IMAGES.T[[2, 0, 1]].tolist()
        names = [ax.get_title().splitlines()[1] for ax in grid]
        assert names == ["true: up", "true: down", "true: up"]

    def test_misclassified_leaves_axes_empty_without_errors(self):
        first, second = plots.misclassified(two_classes(), IMAGES, [0, 1, 1, 1], axes(1, 2))
        assert not first.axison and not second.axison and not first.images


class TestConfusion:
    def test_shows_counts_and_colours_them_by_their_share_of_the_row(self):
        ax = axes()
        assert plots.confusion([[6, 2, 0], [0, 0, 0], [1, 0, 9]], ["a", "b", "c"], ax) is ax
        shares = ax.images[0].get_array()
        assert shares.tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0.1, 0, 0.9]]
        assert ax.images[0].get_clim() == (0, 1) and ax.images[0].origin == "upper"
        cells = {t.get_position(): t.get_text() for t in ax.texts}
        assert cells == {(0, 0): "6", (1, 0): "2", (0, 2): "1", (2, 2): "9"}
        for axis in (ax.xaxis, ax.yaxis):
            assert texts_of(axis.get_ticklabels()) == ["a", "b", "c"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")

    @pytest.mark.parametrize(("k", "is_readable"), [(2, True), (10, True), (100, False)])
    def test_writes_counts_and_names_where_they_are_readable(self, k, is_readable):
        ax = axes(figsize=(7, 6.2))
        plots.confusion(np.full((k, k), 1234), [f"class {i}" for i in range(k)], ax)
        assert len(ax.texts) == (k * k if is_readable else 0)
        assert ("class 1" in texts_of(ax.get_yticklabels())) == is_readable
        counts = [place for text, place in drawn_texts(ax.figure) if text == "1234"]
        assert all(place.width < ax.bbox.height / k for place in counts)

    @pytest.mark.parametrize("k", [2, 26])
    def test_names_do_not_overlap(self, k):
        ax = axes(figsize=(7, 6.2))
        plots.confusion(np.eye(k, dtype=int), [f"a long name, number {i:02}" for i in range(k)], ax)
        pixels(ax.figure)
        labels = ax.get_yticklabels()
        places = [label.get_window_extent() for label in labels]
        assert len(set(texts_of(labels))) == k
        assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(places))


def sample_counts(ax):
    """Return the texts above a reliability diagram."""
    return texts_of(ax.child_axes[0].get_xticklabels())


class TestReliability:
    def test_bars_gaps_and_sizes(self):
        # Bin 2 of 4 holds 0.5, its end, right; bin 3 0.6 and 0.7, one right; bin 4 0.8, right.
        p = np.array([[0.5, 0.6, 0.3, 0.8], [0.5, 0.4, 0.7, 0.2]])
        ax = axes()
        assert plots.reliability(p, [0, 0, 0, 0], ax, num_bins=4) is ax
        accuracy, gap = ax.containers
        assert [bar.get_height() for bar in accuracy] == [1, 0.5, 1]
        assert [bar.get_height() for bar in gap] == pytest.approx([-0.5, 0.15, -0.2])
        assert [bar.get_y() for bar in gap] == [1, 0.5, 1]
        middles = [bar.get_x() + bar.get_width() / 2 for bar in accuracy]
        assert middles == pytest.approx([0.375, 0.625, 0.875])
        assert sample_counts(ax) == ["1", "2", "1"]
        assert ax.get_title() == "expected calibration error 0.2500"

    @pytest.mark.parametrize("num_bins", [1, 2, 15, 29])
    def test_the_gaps_are_those_of_the_calibration_error(self, rng, num_bins):
        p, y = softmax(rng.normal(size=(5, 300))), rng.integers(0, 5, 300)
        p[:, :3] = np.eye(5)[:, :3]  # confidences of exactly 1
        ax = plots.reliability(p, y, axes(figsize=(12, 6)), num_bins)
        sizes = [int(text) for text in sample_counts(ax)]
        gaps = [abs(bar.get_height()) for bar in ax.containers[1]]
        error = metrics.expected_calibration_error(p, y, num_bins)
        assert np.dot(sizes, gaps) / 300 == pytest.approx(error) and sum(sizes) == 300

    @pytest.mark.parametrize("num_bins", [5, 15, 30])
    def test_the_numbers_of_samples_do_not_overlap(self, rng, num_bins):
        p = rng.uniform(0.5, 1, 200_000)
        ax = plots.reliability([p, 1 - p], np.zeros(p.size, int), axes(), num_bins)
        places = [place for text, place in drawn_texts(ax.figure) if text.endswith("k")]
        assert len(places) >= num_bins // 2
        assert all(left.x1 <= right.x0 for left, right in pairwise(places))
        assert all(place.y1 < ax.title.get_window_extent().y0 for place in places)

    def test_no_numbers_of_samples_above_many_bins(self):
        assert plots.reliability([[0.5], [0.5]], [0], axes(), num_bins=31).child_axes == []


class TestNames:
    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("$x^2$ a_1", "$x^2$ a_1"),
            (r"a\$b", r"a\$b"),
            ("tab\t, \x1b[31m", r"tab\t, \x1b[31m"),
            ("\ud800", r"\ud800"),
            ("Юла", "Юла"),
            ("", ""),
        ],
    )
    def test_are_drawn_literally_and_on_one_line(self, name, shown):
        figure = Figure(figsize=(12, 9))
        model = SoftmaxRegression(4, 2, classes=[name, "other"], sigma=0)
        top, bottom = figure.subfigures(2, 1)
        plots.weights(model, top.subplots(1, 2))
        left, middle, right = bottom.subplots(1, 3)
        plots.confusion(np.eye(2, dtype=int), model.classes, left)
        plots.prediction_grid(model, np.zeros((4, 1)), [0], middle)
        plots.top_k_bars([(name, 0.1)], right)
        texts = [text for text, _ in drawn_texts(figure)]
        assert texts.count(shown) == (4 if shown else 0)  # rows, columns, bars, weights
        assert f"{shown} 0.500\ntrue: {shown}" in texts
        literal = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert not any(text.get_parse_math() for text in literal)

    def test_lose_their_middle_if_they_are_long(self):
        names = ["W" * 1000 + "1", "W" * 1000 + "2"]
        bars = plots.top_k_bars([(name, 0.5) for name in names], axes())
        assert texts_of(bars.get_yticklabels()) == ["W" * 10 + "…" + "W" * 8 + end for end in "12"]

    def test_in_a_grid_do_not_touch(self):
        names = ["a name of forty letters, as one may find", "NAMES IN CAPITALS ARE WIDER"]
        model = SoftmaxRegression(4, 2, sigma=0, classes=names)
        row = axes(1, 6, figsize=(9, 2))
        plots.prediction_grid(model, np.zeros((4, 6)), [0, 1, 0, 1, 0, 1], row)
        pixels(row[0].figure)
        places = [ax.title.get_window_extent() for ax in row]
        assert all(left.x1 < right.x0 for left, right in pairwise(places))
        assert row[1].get_title().endswith("true: NAME…DER")


def with_nan():
    model = two_classes()
    model.theta[0, 0] = np.nan
    return model


def predictions(X=IMAGES, y=(0, 1, 0, 0), grid=None):
    return X, list(y), axes() if grid is None else grid


SETTINGS = "values, (train and )?validation"
REFUSED = [
    *((plots.loss_curve, (history, axes()), "one record") for history in ([], None, iter([1]))),
    (plots.validation_curve, ([0, 1], [1, 1], [1, 1], axes(), ""), SETTINGS),
    (plots.validation_curve, ([1, np.inf], [1, 1], [1, 1], axes(), ""), SETTINGS),
    (plots.validation_curve, ([1, 2], [1, 1], [np.nan, np.inf], axes(), ""), SETTINGS),
    (plots.validation_curve, ([1, 2], [1], [1], axes(), ""), SETTINGS),
    (plots.validation_curve, ([[1, 2]], [[1, 2]], [[1, 2]], axes(), ""), SETTINGS),
    (plots.validation_curve, (["a", "b"], [1, 2], [1, 2], axes(), ""), "values: expected real"),
    *((plots.image, (np.zeros(shape), axes()), "square") for shape in (3, 0, (2, 2), (1, 4), ())),
    *((plots.image, ([x] * 4, axes()), "finite numbers") for x in (np.nan, "a", 1j)),
    (plots.weights, (two_classes(), axes()), "at least 2 matplotlib Axes, got 1"),
    (plots.weights, (two_classes(), [axes(), axes()]), "of one figure"),
    (plots.weights, (SoftmaxRegression(3, 2), axes(1, 2)), "square"),
    (plots.weights, (with_nan(), axes(1, 2)), "finite"),
    *(
        (plots.top_k_bars, (guesses, axes()), "guesses")
        for guesses in ([], [("a", 1.5)], [("a", np.nan)], ["ab", "c"], None, [("a", "b")])
    ),
    *(
        (draw, (two_classes(), *arguments), message)
        for draw in (plots.prediction_grid, plots.misclassified)
        for arguments, message in (
            (predictions(X=IMAGES[:3]), "expected 4 features"),
            (predictions(y=[0, 1, 0]), "as many labels as samples"),
            (predictions(y=[0, 1, 0, 2]), "expected labels 0..1"),
            *((predictions(grid=grid), "axes: ") for grid in ([], [axes(), "ax"], "ax")),
        )
    ),
    (plots.confusion, ([[1, 2]], ["a"], axes()), "square matrix of counts"),
    (plots.confusion, ([[0.5, 0.5], [0, 1]], ["a", "b"], axes()), "square matrix of counts"),
    (plots.confusion, ([[1, 0], [0, 1]], ["a"], axes()), "each of the 2 classes, got 1"),
    (plots.reliability, ([[3.0], [1.0]], [0], axes()), "softmax"),
    (plots.reliability, ([[0.5], [0.5]], [0], axes(), 0), "num_bins"),
    *((plots.grid, (np.zeros(s),), "1 to 100 samples") for s in (4, (4, 0), (4, 101), (2, 2, 2))),
    (plots.grid, (np.zeros((3, 2)),), "expected a square image"),
    (plots.grid, (np.zeros((4, 2)), ["a"]), "titles: expected one for each of the 2 samples"),
    *(
        (draw, arguments, "ax: expected one matplotlib Axes")
        for ax in (None, np.array([1]), Figure())
        for draw, arguments in (
            (plots.loss_curve, (trained().history, ax)),
            (plots.validation_curve, ([1], [1], [1], ax, "rate")),
            (plots.image, (np.zeros(4), ax)),
            (plots.top_k_bars, ([("a", 1)], ax)),
            (plots.confusion, ([[1]], ["a"], ax)),
            (plots.reliability, ([[1.0]], [0], ax)),
        )
    ),
]


@pytest.mark.parametrize(("draw", "arguments", "message"), REFUSED)
def test_bad_arguments_are_refused(draw, arguments, message):
    with pytest.raises((InputError, LabelError, ShapeError), match=message):
        draw(*arguments)


def test_pyplot_is_not_imported():
    code = (
        "import sys, numpy as np; from matplotlib.figure import Figure;"
        "from npsoftmax import SoftmaxRegression; from npsoftmax.ext import plots;"
        "plots.weights(SoftmaxRegression(4, 2), Figure().subplots(1, 2));"
        "print('matplotlib.pyplot' in sys.modules, 'IPython' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture
def shell(monkeypatch):
    """Return a real IPython shell that keeps the outputs."""
    interactive = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell
    publisher = pytest.importorskip("IPython.core.displaypub").CapturingDisplayPublisher
    shell = interactive(user_ns={"plots": plots, "trained": trained, "Figure": Figure})
    monkeypatch.setattr(shell, "display_pub", publisher(shell=shell))
    monkeypatch.setattr(interactive, "_instance", shell)
    yield shell
    shell.history_manager.end_session()


class TestNotebook:
    def test_shows_a_figure_without_pyplot(self, shell):
        figure = plots.grid(np.eye(4))
        assert "image/png" not in shell.display_formatter.format(figure)[0]
        plots._show_figures()  # as the import of plots does
        png = shell.display_formatter.format(figure)[0]["image/png"]
        assert png.startswith("iVBORw0KGgo")

    def test_keeps_the_format_that_was_chosen(self, shell):
        formatters = shell.display_formatter.formatters
        formatters["image/svg+xml"].for_type(Figure, lambda figure: "<svg/>")
        plots._show_figures()
        shown, _ = shell.display_formatter.format(plots.grid(np.eye(4)))
        assert shown["image/svg+xml"] == "<svg/>" and "image/png" not in shown


class TestLive:
    def test_passes_the_records_on_outside_a_notebook(self):
        trainer = trained(epochs=1)
        assert list(plots.live(trainer.run(3))) == trainer.history[1:]

    @pytest.fixture
    def drawn(self, monkeypatch):
        """Return the list of the last epochs drawn."""
        epochs, as_png = [], plots._as_png

        def draw(history):
            epochs.append(history[-1].epoch)
            return as_png(history)

        monkeypatch.setattr(plots, "_as_png", draw)
        return epochs

    def test_replaces_one_figure_in_place(self, shell, drawn, monkeypatch):
        monkeypatch.setattr(plots, "PAUSE", 0)
        shell.run_cell("for record in plots.live(trained(epochs=1).run(3)): pass").raise_error()
        outputs = shell.display_pub.outputs
        assert [output["update"] for output in outputs] == [False, True, True]
        assert len({output["transient"]["display_id"] for output in outputs}) == 1
        assert drawn == [2, 3, 4]
        assert all(output["data"]["image/png"].startswith("iVBORw0KGgo") for output in outputs)
        assert outputs[0]["metadata"]["image/png"] == {"width": 675, "height": 255}

    def test_gives_each_run_its_own_figure(self, shell):
        shell.run_cell("list(plots.live(trained(epochs=1).run(1)))\n" * 2).raise_error()
        outputs = shell.display_pub.outputs
        assert [output["update"] for output in outputs] == [False, False]
        first, second = (output["transient"]["display_id"] for output in outputs)
        assert first != second

    def test_draws_seldom_and_at_the_end(self, shell, drawn):
        shell.run_cell("for record in plots.live(trained().run(50)): pass").raise_error()
        assert len(drawn) < 10 and drawn[-1] == 53

    @pytest.mark.parametrize("end", ["break", "raise ValueError"])
    def test_draws_the_last_record_however_the_loop_ends(self, shell, drawn, end):
        code = f"for each in plots.live(trained(epochs=1).run(9)):\n    if each.epoch == 5: {end}"
        assert shell.run_cell(code).success == (end == "break")
        shell.run_cell("del each")
        assert drawn[-1] == 5

    def test_draws_nothing_without_records_or_in_a_terminal(self, shell):
        shell.run_cell("list(plots.live([]))").raise_error()
        shell.display_formatter.active_types = ["text/plain"]
        shell.run_cell("for record in plots.live(trained().run(2)): pass").raise_error()
        assert shell.display_pub.outputs == []
