"""Figures: what their axes, texts and files say."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from xpnet import plots
from xpnet.errors import ConfigError, DataError, FileWriteError, XpnetError
from xpnet.training.history import History

PNG = b"\x89PNG\r\n\x1a\n"


def record(epoch, train=0.5, valid=0.6, accuracy=0.9, **more):
    return {
        "epoch": epoch, "train_loss": train, "train_accuracy": accuracy, "valid_loss": valid,
        "valid_accuracy": accuracy, "lr": 0.1, **more,
    }  # fmt: skip


def line(axes, start):
    (found,) = [x for x in axes.get_lines() if x.get_label().startswith(start)]
    return found


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def assert_all_text_inside(figure):
    """Everything that is drawn lies within the figure, to a pixel."""
    figure.canvas.draw()
    drawn = figure.get_tightbbox(figure.canvas.get_renderer())  # inches
    width, height = figure.get_size_inches()
    assert drawn.x0 > -0.01 and drawn.y0 > -0.01, drawn
    assert drawn.x1 < width + 0.01 and drawn.y1 < height + 0.01, drawn


# --- curves -----------------------------------------------------------------------------------------
def test_curves_have_labels_with_units_a_legend_and_the_best_epoch():
    history = [
        record(e, 1 / e, 1.1 / e, a) for e, a in zip(range(1, 6), [0.5, 0.7, 0.9, 0.8, 0.9], strict=True)
    ]
    figure = plots.curves(history, loss="softmax_cross_entropy")
    loss, accuracy = figure.axes
    assert [a.get_xlabel() for a in figure.axes] == ["epoch", "epoch"]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nats)", "accuracy (%)")
    # epochs 3 and 5 are equally accurate; the lower loss decides
    assert legend(figure) == ["training", "validation", "best epoch 5: loss 0.22, accuracy 90.00 %"]
    assert line(accuracy, "best").get_xdata() == [5]
    np.testing.assert_allclose(line(accuracy, "validation").get_ydata(), [50, 70, 90, 80, 90])
    np.testing.assert_allclose(line(loss, "training").get_ydata(), [1 / e for e in range(1, 6)])
    assert loss.get_yscale() == "linear"
    assert_all_text_inside(figure)


@pytest.mark.parametrize(
    ("loss", "label"),
    [(None, "loss"), ("mse", "loss"), ("bce", "loss (nats)"), ("cross-entropy", "loss (nats)")],
)
def test_only_cross_entropies_are_in_nats(loss, label):
    assert plots.curves([record(1)], loss=loss).axes[0].get_ylabel() == label


@pytest.mark.parametrize(("last", "scale"), [(0.011, "linear"), (0.009, "log"), (-1.0, "linear")])
def test_loss_is_logarithmic_beyond_two_decades(last, scale):
    figure = plots.curves([record(1, 1.0, 1.0), record(2, last, last)])
    assert figure.axes[0].get_yscale() == scale


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 57, 1000])
def test_epoch_ticks_are_whole_numbers_within_training(epochs):
    figure = plots.curves([record(e) for e in range(1, epochs + 1)])
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [t for t in axes.get_xticks() if low <= t <= high]
        assert ticks and all(t == int(t) and t >= 1 for t in ticks)
        assert len(ticks) <= 10


def test_one_epoch_shows_points():
    figure = plots.curves([record(7, 0.3, 0.4, 0.95)])
    for axes in figure.axes:
        for name in ("training", "validation"):
            assert line(axes, name).get_marker() == "o"
            assert line(axes, name).get_xdata().tolist() == [7]
        low, high = axes.get_xlim()
        assert low < 7 < high


def test_accuracy_axis_ends_just_above_100():
    figure = plots.curves([record(1, accuracy=0.5), record(2, accuracy=1.0)])
    low, high = figure.axes[1].get_ylim()
    assert low < 50 and 100 < high <= 102
    low, high = plots.curves([record(1, accuracy=0.0)]).axes[1].get_ylim()
    assert low < 0 < high


@pytest.mark.parametrize("absent", ["missing", "None"])
def test_what_was_not_measured_is_left_out(absent):
    full = [record(1), record(2)]
    keys = ("train_accuracy", "valid_accuracy", "valid_loss")
    history = [{k: v for k, v in r.items() if k not in keys} for r in full]
    if absent == "None":
        history = [r | dict.fromkeys(keys) for r in history]
    figure = plots.curves(history)
    assert len(figure.axes) == 1
    assert legend(figure) == ["training"]

    figure = plots.curves([r | {"valid_loss": None, "valid_accuracy": None} for r in full])
    assert [a.get_ylabel() for a in figure.axes] == ["loss", "accuracy (%)"]
    assert legend(figure) == ["training"]


def test_validation_every_second_epoch_is_one_connected_line():
    history = [
        record(e) | ({} if e % 2 else {"valid_loss": None, "valid_accuracy": None}) for e in range(1, 8)
    ]
    drawn = line(plots.curves(history).axes[0], "validation")
    assert drawn.get_xdata().tolist() == [1, 3, 5, 7]
    assert np.isfinite(drawn.get_ydata()).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_are_gaps_that_the_title_counts(value):
    history = [record(1, 0.9, 0.9, 0.5), record(2, 0.8, 0.8, 0.6), record(3, value, value, 0.99)]
    figure = plots.curves(history)
    assert figure.axes[0].get_title() == "loss not finite in 1 of 3 epochs"
    assert np.isnan(line(figure.axes[0], "training").get_ydata()).tolist() == [False, False, True]
    assert legend(figure)[-1] == "best epoch 2: loss 0.8, accuracy 60.00 %"
    assert_all_text_inside(figure)


def test_all_losses_nan():
    figure = plots.curves([record(1, np.nan, np.nan, np.nan)])
    assert figure.axes[0].get_title() == "loss not finite in 1 of 1 epoch"
    assert legend(figure) == ["training", "validation"]
    assert_all_text_inside(figure)


def test_population_has_thin_members_and_their_mean():
    history = [record(1, [1.0, 3.0], [2.0, 4.0], [0.1, 0.3]), record(2, [1.0, 2.0], [2.0, 3.0], [0.5, 0.7])]
    figure = plots.curves(history)
    loss = figure.axes[0]
    mean = line(loss, "training: mean and 2 members")
    np.testing.assert_allclose(mean.get_ydata(), [2.0, 1.5])
    members = [x for x in loss.get_lines() if x.get_label() == "_members"]
    assert len(members) == 2 and all(x.get_linewidth() < mean.get_linewidth() for x in members)
    np.testing.assert_array_equal(members[0].get_ydata(), [1.0, 1.0, np.nan, 3.0, 2.0, np.nan])
    assert legend(figure)[-1] == "best epoch 2: loss 2.5, accuracy 60.00 %"
    assert_all_text_inside(figure)


def test_population_with_a_diverged_member():
    history = [record(e, [1.0, 3.0], [1.0, 3.0 if e == 1 else np.nan], [0.5, 0.5]) for e in (1, 2)]
    figure = plots.curves(history)
    assert figure.axes[0].get_title() == "loss not finite for 1 of 2 members"
    np.testing.assert_allclose(line(figure.axes[0], "validation").get_ydata(), [2.0, 1.0])


def test_population_of_one_epoch_shows_its_members():
    axes = plots.curves([record(1, [1.0, 2.0], [1.0, 2.0], [0.5, 0.6])]).axes[0]
    assert all(x.get_marker() == "." for x in axes.get_lines() if x.get_label() == "_members")


def test_best_epoch_is_that_of_the_history_or_the_caller():
    history = History([record(1, accuracy=0.9), record(2, accuracy=0.8)])
    assert legend(plots.curves(history))[-1].startswith("best epoch 1:")
    history.best_epoch = 2
    assert legend(plots.curves(history))[-1].startswith("best epoch 2:")
    assert legend(plots.curves(history, best_epoch=1))[-1].startswith("best epoch 1:")


def test_curves_of_no_use_are_errors():
    with pytest.raises(DataError, match="history is empty"):
        plots.curves([])
    with pytest.raises(DataError, match="no epoch"):
        plots.curves([{"train_loss": 1.0}])
    with pytest.raises(DataError, match="no loss and no accuracy"):
        plots.curves([{"epoch": 1, "lr": 0.1}])
    with pytest.raises(DataError, match="2 and 3 members"):
        plots.curves([record(1, [1.0, 2.0]), record(2, [1.0, 2.0, 3.0])])
    with pytest.raises(DataError, match="mixes populations of 1 and 2"):
        plots.curves([record(1, [1.0, 2.0])])
    with pytest.raises(ConfigError, match="unknown loss"):
        plots.curves([record(1)], loss="crossentropie")


# --- confusion --------------------------------------------------------------------------------------
def cells(figure):
    return {tuple(map(int, t.get_position()[::-1])): t.get_text() for t in figure.axes[0].texts}


def test_confusion_of_two_classes():
    figure = plots.confusion([[90, 10], [0, 100]], ["no", "yes"])
    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [t.get_text() for t in axes.get_yticklabels()] == ["no", "yes"]
    assert axes.get_title() == "accuracy 95.00 % (190 of 200)"
    assert cells(figure) == {(0, 0): "90", (0, 1): "10", (1, 1): "100"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1], [0.0, 1.0]])
    assert axes.images[0].get_clim() == (0, 1)
    assert bar.get_ylabel() == "share of the true class (%)"
    assert_all_text_inside(figure)


@pytest.mark.parametrize(
    ("classes", "numbers"), [(10, True), (30, True), (31, False), (50, False), (200, False)]
)
def test_confusion_has_numbers_where_they_can_be_read(classes, numbers):
    figure = plots.confusion(np.eye(classes) * 123 + 1, [f"class {i}" for i in range(classes)])
    assert len(figure.axes[0].texts) == (classes**2 if numbers else 0)
    assert all(t.get_fontsize() >= 4 for t in figure.axes[0].texts)
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) <= 40 and all(label.get_fontsize() >= 5.5 for label in labels)
    assert_all_text_inside(figure)
    boxes = [label.get_window_extent() for label in sorted(labels, key=lambda x: -x.get_position()[1])]
    assert all(a.y1 <= b.y0 + 2 for a, b in itertools.pairwise(boxes))


def test_numbers_fit_their_cells():
    figure = plots.confusion(np.full((30, 30), 1234), [str(i) for i in range(30)])
    figure.canvas.draw()
    cell = figure.axes[0].bbox.width / 30
    assert figure.axes[0].texts and all(t.get_window_extent().width <= cell for t in figure.axes[0].texts)
    assert not plots.confusion(np.full((30, 30), 10**9), [str(i) for i in range(30)]).axes[0].texts


def test_long_names_are_shortened_and_dollar_signs_start_no_formula():
    names = ["a rather long name of a class", "price $5 to $10^{", "two\nlines"]
    figure = plots.confusion(np.eye(3), names)
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels == ["a rather … class", "price $5 … $10^{", "two lines"]
    assert all(len(label) <= 16 for label in labels)
    assert_all_text_inside(figure)


def test_confusion_without_samples_and_with_weights():
    assert plots.confusion(np.zeros((2, 2)), "ab").axes[0].get_title() == "no samples"
    figure = plots.confusion([[1.5, 0.25], [0, 2]], "ab")
    assert cells(figure)[0, 0] == "1.5"
    assert figure.axes[0].get_title() == "accuracy 93.33 % (3.5 of 3.75)"


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 2]], r"shape \(1, 2\), expected \(C, C\)"),
        (np.eye(3), "2 class names for a confusion matrix of 3"),
        ([[1, -1], [0, 1]], "negative"),
        ([[1, np.nan], [0, 1]], "not finite"),
        ([["a", "b"], ["c", "d"]], "array of numbers"),
    ],
)
def test_a_matrix_that_is_none(matrix, message):
    with pytest.raises(DataError, match=message):
        plots.confusion(matrix, ["no", "yes"])


# --- first layer ------------------------------------------------------------------------------------
def test_first_layer_draws_the_largest_units_on_one_symmetric_scale():
    w = np.outer([1.0, -3.0, 2.0], np.ones(6))
    figure = plots.first_layer(w, (2, 3), max_units=2)
    axes, bar = figure.axes
    images = axes.images
    assert [image.get_array().shape for image in images] == [(2, 3), (2, 3)]
    assert [float(image.get_array()[0, 0]) for image in images] == [-3.0, 2.0]
    assert {image.get_clim() for image in images} == {(-3.0, 3.0)}
    assert axes.get_title() == "first layer: the 2 of 3 units with the largest norm"
    assert bar.get_ylabel() == "weight"
    assert plots.first_layer(w, (2, 3)).axes[0].get_title() == "first layer: 3 units, the largest norm first"
    assert plots.first_layer(w[:1], (2, 3)).axes[0].get_title() == "first layer: 1 unit"


def test_tiles_do_not_overlap_and_lie_within_the_axes():
    axes = plots.first_layer(np.random.default_rng(0).normal(size=(130, 12)), (3, 4)).axes[0]
    assert len(axes.images) == 100
    extents = [image.get_extent() for image in axes.images]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert all(left < a and b < right and top < d and c < bottom for a, b, c, d in extents)
    for i, (a, b, c, d) in enumerate(extents):
        assert not any(a < f and e < b and d < g and h < c for e, f, g, h in extents[i + 1 :])


def test_a_few_huge_weights_do_not_fade_the_rest():
    w = np.random.default_rng(0).uniform(-1, 1, (100, 64))
    w[0, 0] = 1000.0
    image = plots.first_layer(w, (8, 8)).axes[0].images[-1]  # the one with the colour bar
    assert image.get_clim()[1] < 1.01 and image.colorbar.extend == "both"


def test_weights_of_zero_and_axes_of_length_one():
    image = plots.first_layer(np.zeros((2, 4)), (1, 2, 2)).axes[0].images[0]
    assert image.get_array().shape == (2, 2) and image.get_clim() == (-1.0, 1.0)
    assert plots.first_layer(np.zeros((2, 5)), (1, 5)).axes[0].images[0].get_array().shape == (1, 5)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (1, 100), (100, 1), (28, 28)])
@pytest.mark.parametrize("units", [1, 5, 200])
def test_first_layer_of_any_aspect_stays_readable(shape, units):
    figure = plots.first_layer(np.ones((units, shape[0] * shape[1])), shape)
    width, height = figure.get_size_inches()
    assert width == pytest.approx(800 / 120) and 2.0 <= height <= 10.0
    assert_all_text_inside(figure)


@pytest.mark.parametrize(
    ("w", "shape", "message"),
    [
        (np.ones((2, 8)), (8,), r"images.*here it is \(8,\): each is a list of features"),
        (np.ones((2, 12)), (2, 2, 3), "each has 3 dimensions"),
        (np.ones((2, 8)), (3, 3), r"shape \(2, 8\), expected \(O, 9\)"),
        (np.ones((5, 2, 9)), (3, 3), "population; draw one member"),
        (np.full((2, 4), np.nan), (2, 2), "not finite"),
    ],
)
def test_weights_that_are_no_images(w, shape, message):
    with pytest.raises(DataError, match=message):
        plots.first_layer(w, shape)


# --- mistakes ---------------------------------------------------------------------------------------
def captions(figure):
    return [axes.get_title().replace("\n", " ") for axes in figure.axes if axes.get_title()]


def test_mistakes_are_sorted_by_confidence():
    x = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    figure = plots.mistakes(
        x, [0, 4, 2, 3, 5], [1, 9, 2, 7, 6], [0.5, 0.998, 1.0, 0.7, 1.0], "0123456789", (2, 2)
    )
    assert captions(figure) == [
        "true 5, said 6 (100.0 %)", "true 4, said 9 (99.8 %)", "true 3, said 7 (70.0 %)",
        "true 0, said 1 (50.0 %)",
    ]  # fmt: skip
    assert figure.get_suptitle() == "all 4 mistakes, the most confident first, among 5 samples"
    np.testing.assert_allclose(figure.axes[1].images[0].get_array() * 19, x[1])
    assert_all_text_inside(figure)


def test_only_the_n_most_confident():
    q = np.linspace(0.3, 0.9, 40)
    figure = plots.mistakes(np.zeros((40, 64)), [0] * 40, [1] * 40, q, "ab", (8, 8), n=7)
    assert captions(figure)[0] == "true a, said b (90.0 %)" and len(captions(figure)) == 7
    assert figure.get_suptitle() == "the 7 most confident of 40 mistakes among 40 samples"
    assert len([axes for axes in figure.axes if axes.axison]) == 7


def test_probabilities_of_all_classes():
    q = [[0.1, 0.9], [0.99996, 0.00004]]
    figure = plots.mistakes(np.zeros((2, 4)), [0, 1], [1, 0], q, ["no", "yes"], (2, 2))
    assert captions(figure) == ["true yes, said no (> 99.9 %)", "true no, said yes (90.0 %)"]


def test_no_mistakes_and_no_samples():
    figure = plots.mistakes(np.zeros((3, 4)), [0, 1, 1], [0, 1, 1], [1, 1, 1], "ab", (2, 2))
    assert [t.get_text() for t in figure.texts] == ["no mistakes among 3 samples"]
    figure = plots.mistakes(np.zeros((0, 4)), [], [], [], "ab", (2, 2))
    assert "no samples" in figure.texts[0].get_text()


@pytest.mark.parametrize("count", [1, 3, 5, 6, 25])
def test_captions_with_long_names_fit(count):
    names = ["an Ankle Boot, worn in $winter$", "T-shirt or top, but WWWWWWW"]
    figure = plots.mistakes(np.zeros((count, 784)), [0] * count, [1] * count, [0.5] * count, names, (28, 28))
    assert_all_text_inside(figure)
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    for a, b in itertools.pairwise(boxes[:5]):
        assert a.x1 <= b.x0


def test_colour_and_tall_pictures():
    rng = np.random.default_rng(0)
    figure = plots.mistakes(rng.random((2, 4, 5, 3)), [0, 0], [1, 1], [0.5, 0.6], "ab", (4, 5, 3))
    assert figure.axes[0].images[0].get_array().shape == (4, 5, 3)
    figure = plots.mistakes(rng.random((25, 640)), [0] * 25, [1] * 25, [0.5] * 25, "ab", (64, 10))
    assert figure.get_size_inches()[1] < 13
    assert_all_text_inside(figure)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.zeros((3, 4))}, "3 samples, 2 true and 2 predicted"),
        ({"samples": np.zeros((2, 5))}, r"shape \(2, 5\), which does not fit"),
        ({"samples": np.full((2, 4), np.nan)}, "samples holds numbers that are not finite"),
        ({"truth": [0, 2]}, "labels from 0 to 2, but there are 2 class names"),
        ({"predicted": [0.0, 1.0]}, "expected .* class indices"),
        ({"probability": [0.5, 1.5]}, "expected 0 to 1"),
        ({"probability": [0.5]}, r"expected \(2,\) or \(2, 2\)"),
        ({"sample_shape": (4,)}, "list of features"),
    ],
)
def test_mistakes_of_the_caller(change, message):
    good = {
        "samples": np.zeros((2, 4)), "truth": [0, 1], "predicted": [1, 0], "probability": [0.5, 0.5],
        "classes": "ab", "sample_shape": (2, 2),
    }  # fmt: skip
    assert plots.mistakes(**good)
    with pytest.raises(DataError, match=message):
        plots.mistakes(**(good | change))


# --- files and imports ------------------------------------------------------------------------------
DRAW = {
    "curves": lambda path=None: plots.curves([record(1), record(2)], path),
    "confusion": lambda path=None: plots.confusion(np.eye(3), "abc", path),
    "first_layer": lambda path=None: plots.first_layer(np.eye(4), (2, 2), path),
    "mistakes": lambda path=None: plots.mistakes(np.eye(4), [0] * 4, [1] * 4, [1] * 4, "ab", (2, 2), path),
}
every_plot = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)


@every_plot
def test_the_file_is_a_png_and_equal_input_gives_equal_bytes(draw, tmp_path):
    figure = draw(tmp_path / "a.png")
    draw(str(tmp_path / "b.PNG"))
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(PNG) and data == (tmp_path / "b.PNG").read_bytes()
    assert int.from_bytes(data[16:20], "big") == 800
    assert b"tEXt" not in data and b"tIME" not in data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.PNG"]
    assert figure.get_dpi() == 120


@every_plot
def test_a_path_that_cannot_be(draw, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a name ending in \.png"):
        draw(tmp_path / "a.pdf")
    with pytest.raises(FileWriteError):
        draw(tmp_path / "nowhere" / "a.png")


@every_plot
def test_without_matplotlib_it_says_what_to_install(draw, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(XpnetError, match=r'pip install "xpnet\[plots\]"'):
        draw()


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "3"])
def test_how_many_is_a_whole_number(bad):
    with pytest.raises(ConfigError, match="max_units must be a whole number >= 1"):
        plots.first_layer(np.eye(4), (2, 2), max_units=bad)
    with pytest.raises(ConfigError, match="n must be a whole number >= 1"):
        plots.mistakes(np.eye(4), [0] * 4, [1] * 4, [1] * 4, "ab", (2, 2), n=bad)


def test_pyplot_is_never_imported_and_matplotlib_only_when_drawing(tmp_path):
    code = f"""
import sys
import numpy as np
from xpnet import plots
assert "matplotlib" not in sys.modules
path = {str(tmp_path / "x.png")!r}
plots.curves([{{"epoch": 1, "train_loss": [1.0, 2.0]}}], path)
plots.confusion(np.eye(3), "abc", path)
plots.first_layer(np.eye(4), (2, 2), path)
plots.mistakes(np.eye(4), [0] * 4, [1] * 4, [1] * 4, "ab", (2, 2), path)
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
