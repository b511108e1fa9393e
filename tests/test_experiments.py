"""Every experiment of the tutorial shows what it claims, at --quick size; the hand-worked steps are exact."""

from __future__ import annotations

import json
import math
import re
import warnings
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from matplotlib.text import Text

import xpnet
from xpnet import experiments
from xpnet.cli import main
from xpnet.errors import ConfigError, DataError, XpnetError
from xpnet.experiments import chinese
from xpnet.experiments import lab as lab_module
from xpnet.experiments.e06_forward_by_hand import B1, B2, W1, W2, network
from xpnet.experiments.e10_small_sigmoid import best_match
from xpnet.experiments.e17_universal_approximation import staircase, wiggly
from xpnet.experiments.e20_depth import width_for
from xpnet.testing import check_gradients, trace

NAMES = [f"E{i}" for i in range(1, 21)]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Run an experiment once; its figures and result lie in `result.folder`."""
    folder = tmp_path_factory.mktemp("experiments")
    texts: dict[str, set[str]] = {}
    save = lab_module.Lab.save

    def watched(lab, figure, name):
        texts.setdefault(lab.name, set()).update(t.get_text().strip() for t in figure.findobj(Text))
        save(lab, figure, name)

    @cache
    def run(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lab_module.Lab, "save", watched)
            return experiments.run(name, folder, quick=True)

    run.folder, run.texts = folder, texts
    return run


def test_all_are_there_in_order():
    known = experiments.experiments()
    assert list(known) == NAMES
    for e in known.values():
        assert e.title and e.claim.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_shows_what_it_claims(name, result):
    r = result(name)
    assert r["claims"] and r["figures"]
    missed = [sentence for sentence, holds in r["claims"].items() if not holds]
    assert not missed and r["shown"]
    folder = result.folder / name
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == r
    assert r["quick"] and r["data"] in (None, "digits")
    for figure in r["figures"]:
        assert (folder / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert ET.parse(folder / f"{figure}.svg").getroot().tag.endswith("svg")


# --- the claims, from the numbers ----------------------------------------------------------------
def test_perceptron_truth_table(result):
    n = result("E1")["numbers"]
    assert n["threshold_5"] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert n["threshold_3"] == [0, 0, 0, 1, 1, 1, 1, 1]


def test_small_changes_have_small_effects(result):
    n = result("E2")["numbers"]
    a = 1 / (1 + math.exp(-(0.6 * 0.5 - 1.1 * 1.0 + 0.4 * -2.0 + 0.2)))
    assert n["output"] == pytest.approx(a, rel=1e-5)
    assert n["slope"] == pytest.approx(a * (1 - a) * (0.5 * 0.5 - 1.0 - 2.0 + 0.25), rel=1e-5)
    assert n["order"] == pytest.approx(2, abs=0.05)


def test_saturation(result):
    ends = result("E3")["numbers"]["saturated"]
    assert None not in ends["sigmoid"] and None not in ends["tanh"]
    assert ends["tanh"][1] == pytest.approx(math.acosh(math.sqrt(20)), abs=0.06)  # 1 - tanh^2 = 5 %
    assert ends["relu"][1] is None and ends["softplus"][1] is None


def test_gradients_vanish_in_a_deep_sigmoid_net_only(result):
    ratio = result("E4")["numbers"]["first_to_last"]
    assert ratio["sigmoid"] < 0.01 < 0.1 < min(ratio["relu"], ratio["tanh"])


def test_one_neuron_two_losses(result):
    assert min(result("E5")["numbers"]["accuracy"].values()) > 0.95


def test_random_starts_spread_more_in_a_small_net(result):
    spread = result("E14")["numbers"]["spread"]
    assert spread["3"] > 3 * spread["50"]


def test_boundary_gets_smoother_with_lambda(result):
    longest, middle, shortest = result("E13")["numbers"]["boundary_length"]
    assert longest > middle > shortest


def test_capacity(result):
    loss = result("E12")["numbers"]["train_loss"]
    assert loss["3"] > loss["6"] > loss["20"]


def test_dead_units(result):
    n = result("E15")["numbers"]["dead"]
    (_, _), (after_shock, _), (in_the_end, _) = n["ReLU"]
    assert after_shock > 0.5 and in_the_end > 0.9 * after_shock
    assert n["leaky ReLU (0.1)"][2] == n["maxout (2 pieces)"][2] == [0, 0]


def test_overfitting(result):
    n = result("E19")["numbers"]
    loss = n["final_validation_loss"]
    assert loss["nothing"] > n["lowest_validation_loss"]["nothing"]
    assert all(loss[name] < loss["nothing"] for name in ("dropout 0.5", "L1", "L2", "early stopping"))


# --- by hand -------------------------------------------------------------------------------------
def test_forward_by_hand_to_the_printed_digits(result):
    n = result("E6")["numbers"]
    assert n["parameters"] == 26
    z = [0.6, -0.55, -1.0, 0.1]  # worked out on paper
    a = [1 / (1 + math.exp(-v)) for v in z]
    np.testing.assert_allclose(n["hidden"], a, rtol=1e-5)
    out = [
        0.5 * a[0] - 0.4 * a[1] + 0.3 * a[2] + 0.2 * a[3] + 0.05,
        -0.6 * a[0] + 0.1 * a[1] + 0.7 * a[2] - 0.8 * a[3] - 0.05,
    ]
    np.testing.assert_allclose(n["output"], [1 / (1 + math.exp(-v)) for v in out], rtol=1e-5)
    assert n["gap_matrix"] <= 1e-15 and n["gap_library"] <= 1e-15


def test_backward_by_hand(result):
    n = result("E7")["numbers"]
    s = n["steps"]
    a1, a2 = np.array(s["a1"]), np.array(s["a2"])
    dz2 = (a2 - [1, 0]) * a2 * (1 - a2)
    np.testing.assert_allclose(s["dJ/dz2"], dz2, rtol=1e-4)
    np.testing.assert_allclose(s["dJ/dW2"], np.outer(dz2, a1), rtol=1e-4)
    np.testing.assert_allclose(s["dJ/dz1"], (W2.T @ dz2) * a1 * (1 - a1), rtol=1e-4)
    assert n["gap"] < 1e-15 and n["complex_step"] < 1e-14 and n["central"] < 1e-9
    assert n["loss_after"] < n["loss_before"]


# --- trace ---------------------------------------------------------------------------------------
def test_trace_shows_every_array():
    x, t = np.array([[1.0, 0.5, -1.0], [0.2, 0.1, 0.3]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    net = network()
    before = net.get_weights()
    hidden, output = trace(net, x, t, loss="squared_error")
    np.testing.assert_allclose(hidden.z, x @ W1.T + B1, rtol=1e-14)
    np.testing.assert_allclose(output.z, hidden.y @ W2.T + B2, rtol=1e-14)
    np.testing.assert_allclose(output.dy, (output.y - t) / 2, rtol=1e-14)  # the mean over two samples
    np.testing.assert_allclose(output.dz, output.dy * output.y * (1 - output.y), rtol=1e-14)
    np.testing.assert_allclose(output.gradients["weight"], output.dz.T @ hidden.y, rtol=1e-14)
    np.testing.assert_allclose(hidden.dy, output.dz @ W2, rtol=1e-14)
    np.testing.assert_array_equal(hidden.dy, output.dx)
    assert hidden.dx is None
    for name, value in net.get_weights().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("activation", ["maxout", "prelu", "gelu"])
@pytest.mark.parametrize("n_models", [None, 2])
def test_trace_agrees_with_a_training_step(activation, n_models):
    g = np.random.default_rng(0)
    x, y = g.normal(size=(6, 4)), g.integers(0, 3, 6)
    net = xpnet.MLP([4, 5, 3], activation=activation, dropout=0.3, n_models=n_models, dtype="float64")
    layers = [layer for layer in trace(net, x, y) if layer.weights]
    before = net.get_weights()
    xpnet.fit(net, (x, y), optimizer=xpnet.SGD(lr=1.0), epochs=1, batch_size=6, shuffle=False)
    moved = {name: before[name] - value for name, value in net.get_weights().items()}
    traced = [g for layer in layers for g in layer.gradients.values()]
    assert len(traced) == len(moved)
    for gradient, change in zip(traced, moved.values(), strict=True):
        np.testing.assert_allclose(gradient, change, atol=1e-14)
    assert check_gradients(net, x, y) < 1e-12


# --- parts ---------------------------------------------------------------------------------------
def test_staircase_is_exact_in_the_middle_of_its_steps():
    ends = np.linspace(-2, 2, 9)
    middle = ((ends[:-1] + ends[1:]) / 2)[:, None]
    np.testing.assert_allclose(staircase(8).outputs(middle), wiggly(middle), rtol=1e-12)


def test_boundary_length_of_a_circle_and_a_line():
    assert lab_module.boundary_length(lambda p: np.hypot(*p.T) - 1.5) == pytest.approx(3 * math.pi, rel=0.02)
    assert lab_module.boundary_length(lambda p: p[:, 0] - p[:, 1]) == pytest.approx(
        6 * math.sqrt(2), rel=0.15
    )


def test_best_match_finds_a_copy_also_of_the_other_sign_and_scale():
    g = np.random.default_rng(0)
    pictures = g.normal(size=(50, 64))
    match = best_match(np.stack([3 - 2 * pictures[7], g.normal(size=64)]), pictures)
    assert match[0] == pytest.approx(1)
    assert match[1] < 0.6


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_width_for_equal_size(depth):
    net = xpnet.MLP([64, *[width_for(depth, 64, 10, 20_000)] * depth, 10])
    assert net.n_parameters == pytest.approx(20_000, rel=0.02)


def test_figures_are_equal_byte_for_byte(tmp_path):
    for part in "ab":
        experiments.run("E6", tmp_path / part, quick=True)
    for kind in ("png", "svg"):
        first, second = ((tmp_path / part / "E6" / f"forward.{kind}").read_bytes() for part in "ab")
        assert first == second


def test_the_style_of_other_figures_stays(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    experiments.run("E1", quick=True)
    assert dict(mpl.rcParams) == before


# --- the command and the data --------------------------------------------------------------------
def test_command_lists():
    done = CliRunner().invoke(main, ["experiment", "list"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[::2]] == NAMES


def test_command_runs(tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["experiment", "run", "e1", "--quick", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "[shown] with threshold 5" in done.output
    assert {p.name for p in (out / "E1").iterdir()} == {"perceptron.png", "perceptron.svg", "result.json"}
    done = CliRunner().invoke(main, ["experiment", "run", "E1", "--quick", "--out", str(out), "--json"])
    assert json.loads(done.output)["shown"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "say which"), (["run", "E21"], "did you mean 'E2'"), (["list", "E1"], "takes no names"),
    ],
)  # fmt: skip
def test_command_refuses(words, message, tmp_path):
    done = CliRunner().invoke(main, ["experiment", *words, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert message in done.output
    assert not list(tmp_path.iterdir())


def test_command_says_when_a_claim_is_not_shown(tmp_path, monkeypatch):
    def run(lab):
        lab.claim("pigs fly", False)

    fake = experiments.Experiment("E1", "Pigs", "Pigs fly.", run)
    monkeypatch.setattr(experiments, "experiments", lambda: {"E1": fake})
    done = CliRunner().invoke(main, ["experiment", "run", "all", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "[NOT SHOWN] pigs fly" in done.output and "E1 did not show" in done.output


def test_pictures_say_which(tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setenv("XPNET_DATA", str(tmp_path))
    monkeypatch.setattr(lab_module.data, "load", _without_mnist(lab_module.data.load))
    lab = experiments.Lab("E8", echo=lines.append)
    assert lab.pictures().name == lab.data == "digits"
    assert "MNIST is not here" in lines[0]
    with pytest.raises(DataError, match="not here"):
        experiments.Lab("E8", data_dir=tmp_path).pictures()


def _without_mnist(load):
    def without(name, **options):
        if name == "mnist":
            assert options["download"] is False
            raise DataError("mnist: not here")
        return load(name, **options)

    return without


def test_mnist_is_used_where_it_is(data_dir):
    lines: list[str] = []
    lab = experiments.Lab("E8", data_dir=data_dir, echo=lines.append)
    assert lab.pictures().name == lab.data == "mnist" and "MNIST" in lines[0]
    assert experiments.Lab("E8", data_dir=data_dir, quick=True).pictures().name == "digits"


def test_unknown_experiment():
    with pytest.raises(ConfigError, match="E99"):
        experiments.run("E99")


# --- figures in Chinese --------------------------------------------------------------------------
#: What reads the same in both languages: names of functions, of units and of formulas.
SAME = re.compile(
    r"[WFS]{1,3}|leaky ReLU \([\d.]+\)|step\(z\)|sigmoid(\(4?z\))?|tanh|relu|ReLU|leaky_relu|softplus|elu|gelu|silu|"
    r"softsign|dJ/dW[12]|f'?\(z\)|x|y|dropout [\d.]+|L[12]|\$\\lambda\$ = [\d.]+|\$\\mathdefault\{.*\}\$|[-+−\d.%×e ]*"
)


@pytest.mark.parametrize("name", NAMES)
def test_every_word_in_a_figure_is_translated(name, result):
    result(name)
    texts = result.texts[name]
    assert texts - {""}
    for text in texts:
        chinese_text = chinese.translate(text)
        assert re.search("[\u4e00-\u9fff]", chinese_text) or SAME.fullmatch(text), repr(text)


def test_words_at_ticks_stay_translated_when_the_figure_is_drawn():
    figure = Figure()
    axes = figure.subplots()
    axes.bar(["before", "none"], [1, 2])
    axes.set_yticks([0, 1, 2], ["error", "x", "tanh"])
    axes.set_title("error")
    chinese.translate_figure(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the font here has no Chinese characters
        figure.draw_without_rendering()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["之前", "无"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["误差", "x", "tanh"]
    assert axes.get_title() == "误差"


def test_figures_in_chinese(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="language 'fr'"):
        experiments.run("E1", language="fr")
    monkeypatch.setattr(chinese, "FONTS", ("DejaVu Sans Mono",))  # any that is there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it has no Chinese characters
        experiments.run("E1", tmp_path / "zh", language="zh")
    experiments.run("E1", tmp_path / "en")
    drawn = [next((tmp_path / language / "E1").glob("*.png")).read_bytes() for language in ("en", "zh")]
    assert drawn[0] != drawn[1]
    monkeypatch.setattr(chinese, "FONTS", ("No Such Font",))
    with pytest.raises(XpnetError, match="fonts-noto-cjk"):
        experiments.run("E1", language="zh")


# --- the tutorial --------------------------------------------------------------------------------
TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial"
CHAPTERS = sorted(p.name for p in (TUTORIAL / "en").glob("*.md"))


def _blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_python_of_the_tutorial_runs_and_is_the_same_in_both_languages(chapter, capsys):
    english, chinese = (_blocks(TUTORIAL / language / chapter) for language in ("en", "zh"))
    assert english
    namespace: dict = {}
    for block in english:
        exec(compile(block, chapter, "exec"), namespace)
    for pair in zip(english, chinese, strict=True):
        first, second = (re.sub(r" *#.*", "", block) for block in pair)  # comments are translated
        assert first == second


def test_the_tutorial_is_complete_and_its_figures_small():
    assert len(CHAPTERS) == 9
    assert sorted(p.name for p in (TUTORIAL / "zh").glob("*.md")) == CHAPTERS
    pages = "".join(p.read_text(encoding="utf-8") for p in TUTORIAL.rglob("*.md"))
    for name in NAMES:
        assert f"run {name}" in pages, name
    figures = [p for p in (TUTORIAL / "figures").rglob("*") if p.is_file()]
    assert {p.name for p in figures if p.parent.name == "zh"} == {
        p.name for p in (TUTORIAL / "figures").glob("*.png")
    }
    assert sum(p.stat().st_size for p in figures) < 2_000_000
    for figure in figures:
        assert figure.suffix == ".png" and figure.stat().st_size < 80_000
        assert figure.relative_to(TUTORIAL).as_posix() in pages


def test_numbers_of_the_hand_worked_chapter(result):
    """The table of chapter 4, in both languages, is what E7 prints."""
    steps = result("E7")["numbers"]["steps"]
    numbers = [f"{v:.6f}" for name in ("dJ/da2", "dJ/dz2", "dJ/da1", "dJ/dz1") for v in steps[name]]
    numbers += [f"{v:.6f}" for name in ("dJ/dW1", "dJ/dW2") for v in steps[name][0]]
    for language in ("en", "zh"):
        text = (TUTORIAL / language / "04-back-propagation.md").read_text(encoding="utf-8")
        for number in numbers:
            assert number in text, (language, number)
