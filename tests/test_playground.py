"""The playground without a browser: points, settings, sessions, the reader of digits, and every address."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet import data
from xpnet.errors import ConfigError, DataError, XpnetError
from xpnet.playground import DigitReader, Session, Sessions, Settings
from xpnet.playground import session as session_module
from xpnet.playground.centring import centred
from xpnet.playground.pictures import GRID, UNIT_GRID, picture, plane
from xpnet.playground.points import MAX_CSV_BYTES, PRESETS, Points
from xpnet.playground.settings import ACTIVATIONS, MAX_POINTS, OPTIMIZERS, PLANE


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# --- points ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("name", PRESETS)
def test_presets(name, classes):
    points = Points.preset(name, n=121, noise=0.1, classes=classes, seed=3)
    again = Points.preset(name, n=121, noise=0.1, classes=classes, seed=3)
    other = Points.preset(name, n=121, noise=0.1, classes=classes, seed=4)
    assert len(points) == 121 and np.abs(points.xy).max() <= PLANE
    np.testing.assert_array_equal(points.xy, again.xy)
    assert not np.array_equal(points.xy, other.xy)
    counts = np.bincount(points.label)
    assert len(counts) == (2 if name in ("moons", "xor") else classes) and np.ptp(counts) <= 1
    assert Points.preset(**points.recipe).xy.tolist() == points.xy.tolist()


def test_xor_without_noise_is_xor():
    points = Points.preset("xor", n=200, noise=0.0, classes=2, seed=0)
    np.testing.assert_array_equal(points.label, (points.xy[:, 0] > 0) != (points.xy[:, 1] > 0))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8])
def test_held_out_points_stay_so_and_are_shared_among_classes(share):
    points = Points.preset("blobs", n=90, noise=0.1, classes=3, seed=0)
    mask = points.held_out(share)
    for c in range(3):
        of = mask[points.label == c]
        assert abs(of.mean() - share) <= 1 / len(of) and not of[0]
    more = points.and_more(Points.checked([[0.0, 0.0, 1]] * 20))
    np.testing.assert_array_equal(more.held_out(share)[:90], mask)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "must be a list"),
        ([[0, 0]], r"point 1 must be \[x, y, class\]"),
        ([[0, 0, 0], ["a", 0, 0]], "point 2: x must be a number from -3 to 3, found 'a'"),
        ([[0, 9.5, 0]], "point 1: y must be a number from -3 to 3, found 9.5"),
        ([[0, float("nan"), 0]], "point 1: y"),
        ([[0, 0, 4]], "point 1: the class must be a whole number from 0 to 3, found 4"),
        ([[0, 0, True]], "the class must be"),
        ([[0, 0, 0]] * (MAX_POINTS + 1), "at most 2000"),
    ],
)
def test_points_that_cannot_be_used(rows, message):
    with pytest.raises(DataError, match=message):
        Points.checked(rows)
    with pytest.raises(DataError, match="Clear"):
        Points.preset("blobs", n=1000, noise=0, classes=2, seed=0).and_more(
            Points.checked([[0, 0, 0]] * 1001)
        )


def test_csv_files():
    points = Points.from_csv(b"x,y,colour\n1,2,red\n-1,0.5,blue\n0,0,red\n")
    assert (points.names, points.label.tolist(), points.note) == (("blue", "red"), [1, 0, 1], "")
    assert points.xy.tolist() == [[1, 2], [-1, 0.5], [0, 0]]
    large = Points.from_csv(b"x,y,c\n100,5,1\n200,5,0\n150,5,1\n")
    assert large.xy.tolist() == [[-2.7, 0], [2.7, 0], [0, 0]] and "100 to 200" in large.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty"),
        (b"x,y,c\n1,2,a\n1,oops,b\n", "line 3.*oops.*expected a number"),
        (b"x,y,c\n1,2,a\n1,2\n", "line 3 has 2 values"),
        (b"x,y,c\n1,2,a\n1,inf,b\n", "line 3|finite"),
        (b"x,y,z,c\n1,2,3,a\n1,2,3,b\n", "4 columns, expected three"),
        (b"x,y,c\n" + b"".join(b"1,2,%d\n" % i for i in range(5)), "5 different values"),
        (b"x,y,c\n1,2,a\n1,2,a\n", "1 different|two classes|one class"),
        (b"x,y,c\n" + b"1,2,a\n1,2,b\n" * 1001, "2002 points"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"x" * (MAX_CSV_BYTES + 1), "at most 262,144"),
    ],
)
def test_csv_files_that_cannot_be_used(text, message):
    with pytest.raises(DataError, match=message) as found:
        Points.from_csv(text)
    assert "tmp" not in str(found.value)  # where it was looked at is nobody's business


# --- settings ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": "8"}, {"hidden": [0]}, {"hidden": [17]}, {"hidden": [4] * 6}, {"hidden": [2.5]},
        {"activation": "rellu"}, {"activation": 3}, {"optimizer": "adma"}, {"speed": None}, {"lr": "x"}, {"lr": 0},
        {"lr": float("nan")}, {"lr": True}, {"l1": -1}, {"l2": 1e9}, {"batch_size": 0}, {"batch_size": 1.5},
        {"held_out": 0.9}, {"seed": -1}, {"seed": 2**40}, {"colour": 1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_settings(changes):
    with pytest.raises(ConfigError, match=next(iter(changes)).replace("hidden", "hidden|width")):
        Settings().changed(changes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_optimizer_learns_and_can_be_drawn(activation):
    i = ACTIVATIONS.index(activation)
    chosen = Settings(activation=activation, optimizer=OPTIMIZERS[i % len(OPTIMIZERS)], hidden=(5, 3))
    session = Session(chosen, Points.preset("blobs", n=60, noise=0.1, classes=3, seed=0))
    before = session.state()["frame"]["curves"]["train_loss"][0]
    frame = session.step(20)["frame"]
    assert frame["curves"]["train_loss"][-1] < before
    assert [layer["units"] for layer in frame["units"]["layers"]] == [5, 3]
    assert [np.shape(w) for w in frame["weights"]] == [(5, 2), (3, 5), (3, 3)]


# --- sessions ----------------------------------------------------------------------------------------
def test_a_page_trains_exactly_as_fit_does():
    points = Points.preset("moons", n=100, noise=0.2, classes=2, seed=1)
    session = Session(Settings(hidden=(8,), lr=0.02, seed=5, l2=1e-3), points)
    for epochs in (1, 4, 15):
        state = session.step(epochs)
    held = points.held_out(0.3)
    model = xpnet.MLP([2, 8, 2], activation="tanh", seed=5)
    history = xpnet.fit(
        model, (points.xy[~held], points.label[~held]), validation=(points.xy[held], points.label[held]),
        optimizer=xpnet.Adam(lr=0.02), l2=1e-3, batch_size=16, epochs=20, restore_best=False,
    )  # fmt: skip
    np.testing.assert_array_equal(session.model.weights, model.weights)
    curves = state["frame"]["curves"]
    assert curves["epoch"] == list(range(21))
    for name in ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy"):
        np.testing.assert_allclose(curves[name][1:], history.column(name), rtol=1e-4)


def test_playing_pausing_and_changes_on_the_way():
    session = Session(Settings(speed="fast"))
    assert session.play(True)["frame"]["playing"] and session.play(True)["frame"]["playing"]
    wait_until(lambda: session.epoch > 20)
    state = session.change({"lr": 0.002})  # goes on
    assert state["frame"]["playing"] and state["frame"]["epoch"] > 20
    state = session.add_points(Points.checked([[0.0, 1.0, 0], [0.5, -1.0, 1]]))
    assert state["frame"]["epoch"] > 20 and len(state["points"]["rows"]) == 202
    state = session.change({"hidden": [3]})  # begins anew, and plays on
    assert state["frame"]["playing"] and state["architecture"] == [2, 3, 2]
    wait_until(lambda: session.epoch > 3)
    version = session.version
    assert not session.play(False)["frame"]["playing"]
    epoch, threads = session.epoch, [t.name for t in threading.enumerate()]
    assert session.version > version
    wait_until(lambda: "xpnet-page" not in [t.name for t in threading.enumerate()], 10)
    assert session.epoch == epoch, threads
    assert session.reset()["frame"]["epoch"] == 0
    assert session.change({"activation": "relu", "seed": 3})["frame"]["message"]["kind"] == "ready"


def test_more_classes_need_a_new_network():
    session = Session()
    session.step(3)
    state = session.add_points(Points.checked([[1, 1, 3]]))
    assert (state["architecture"][-1], state["frame"]["epoch"]) == (4, 0)


def test_points_of_one_class_are_waited_for():
    session = Session()
    state = session.set_points(Points.checked([[0, 0, 0], [1, 1, 0]]))
    assert state["frame"]["message"] == {
        "kind": "waiting",
        "text": "Draw points of at least two classes first.",
    }
    for act in (session.step, lambda: session.play(True)):
        with pytest.raises(DataError, match="two classes"):
            act()
    assert session.set_points(Points.empty())["points"]["rows"] == []
    state = session.add_points(Points.checked([[0, 0, 0], [1, 1, 1]]))
    assert state["frame"]["message"]["kind"] == "ready"
    assert session.step(5)["frame"]["epoch"] == 5


@pytest.mark.parametrize("playing", [False, True])
def test_divergence_is_said_and_survived(playing):
    session = Session(Settings(activation="identity", optimizer="sgd", lr=10.0, speed="fast"))
    if playing:
        session.play(True)
        wait_until(lambda: not session.playing)
    else:
        session.step(500)
    frame = session.frame()
    assert frame["message"]["kind"] == "diverged" and not frame["playing"]
    assert re.match(r"Diverged in epoch \d+: .*smaller learning rate", frame["message"]["text"])
    assert np.isfinite(session.model.weights).all()
    json.dumps(frame, allow_nan=False)
    session.change({"lr": 1e-3, "optimizer": "adam"})
    assert session.step(3)["frame"]["message"]["kind"] == "paused"


def test_a_page_that_nobody_watches_pauses(monkeypatch):
    monkeypatch.setattr(session_module, "UNWATCHED", 0.05)
    session = Session()
    session.touch()
    session.play(True)
    wait_until(lambda: not session.playing)
    assert "nobody" in session.frame()["message"]["text"]


def test_there_is_an_end_of_epochs(monkeypatch):
    monkeypatch.setattr(session_module, "MAX_EPOCHS", 5)
    session = Session()
    frame = session.step(9)["frame"]
    assert (frame["epoch"], frame["message"]["kind"]) == (5, "done")
    with pytest.raises(DataError, match="Reset"):
        session.play(True)
    session.reset()
    assert session.step()["frame"]["epoch"] == 1


def test_a_defect_in_training_is_shown_on_the_page(monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    session = Session()
    monkeypatch.setattr(session, "_advance", lambda *a, **k: 1 / 0)
    session.play(True)
    wait_until(lambda: seen)
    assert session.frame()["message"]["kind"] == "failed" and not session.playing
    assert seen[0].exc_type is ZeroDivisionError


def test_the_oldest_idle_page_makes_room():
    pages = Sessions(limit=3)
    first, second, third = pages.new(), pages.new(), pages.new()
    second.play(True)
    third.touch()
    time.sleep(0.002)
    assert pages.get(first.id) is first  # now it was the last to be watched
    fourth = pages.new(like=second.id)
    assert len(pages) == 3 and pages.get(third.id) is None
    assert pages.get(second.id) is second and second.playing
    assert fourth.id != second.id and fourth.settings == second.settings and not fourth.playing
    pages.close()
    assert not second.playing


def test_pictures_show_what_the_network_says():
    model = xpnet.MLP([2, 3, 3], activation="tanh", seed=2)
    found = picture(model)
    import base64

    grid = np.frombuffer(base64.b64decode(found["grid"]["bytes"]), np.uint8).reshape(3, GRID, GRID)
    assert np.abs(grid.astype(int).sum(axis=0) - 255).max() <= 2
    h = model.outputs(plane(GRID))
    p = np.exp(h) / np.exp(h).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(grid.reshape(3, -1).T / 255, p, atol=0.003)
    corner = plane(GRID)[0]
    assert corner[0] < -2.9 and corner[1] > 2.9  # the first byte is the top left
    (layer,) = found["units"]["layers"]
    units = np.frombuffer(base64.b64decode(layer["bytes"]), np.uint8).reshape(3, -1).astype(float)
    hidden = model.activations(plane(UNIT_GRID))[0].T
    np.testing.assert_allclose((units - 128) / 127 * np.array(layer["scales"])[:, None], hidden, atol=0.01)


# --- drawn digits ------------------------------------------------------------------------------------
def canvas_of(picture, size=140, zoom=4, at=(10, 20)):
    """Put a data set's picture somewhere on a drawing pad, larger, as bytes of ink."""
    big = np.kron(picture / picture.max(), np.ones((zoom, zoom)))
    pad = np.zeros((size, size))
    pad[at[0] : at[0] + big.shape[0], at[1] : at[1] + big.shape[1]] = big
    return (255 * pad).round().astype(np.uint8)


@pytest.mark.parametrize(("shape", "box"), [((28, 28), 20), ((8, 8), 8), ((14, 14), 10)])
def test_drawings_are_cut_out_scaled_and_centred(shape, box):
    pad = np.zeros((120, 120))
    pad[70:110, 5:15] = 1.0  # a bar, low and left
    sample = centred(pad, shape)
    assert sample.shape == shape and sample.min() >= 0.0 and sample.max() == pytest.approx(1.0)
    rows, columns = np.flatnonzero(sample.max(axis=1) > 0.01), np.flatnonzero(sample.max(axis=0) > 0.01)
    assert len(rows) in (box, box + 1)
    middle = np.arange(shape[1]) + 0.5
    assert (sample.sum(axis=0) @ middle) / sample.sum() == pytest.approx(shape[1] / 2, abs=1.01)
    assert len(columns) <= box / 4 + 1
    np.testing.assert_allclose(centred(np.roll(pad, 60, axis=1), shape), sample)  # wherever it is drawn
    np.testing.assert_allclose(
        centred(np.kron(pad, np.ones((2, 2))), shape), sample, atol=1e-9
    )  # and how large


def test_nothing_drawn_is_said():
    with pytest.raises(DataError, match="nothing is drawn"):
        centred(np.full((50, 50), 0.02), (28, 28))


@pytest.fixture(scope="module")
def reader():
    reader = DigitReader(data_set="digits")
    assert reader.status()["state"] == "untrained"
    with pytest.raises(DataError, match="not trained yet"):
        reader.read(np.full((20, 20), 255, np.uint8))
    reader.start()
    assert reader.start()["state"] in ("training", "ready")  # once is enough
    wait_until(lambda: reader.status()["state"] != "training")
    return reader


def test_digits_drawn_anywhere_are_read(reader):
    status = reader.status()
    assert status["state"] == "ready" and status["accuracy"] > 0.94 and status["sizes"] == [64, 64, 32, 10]
    digits = data.load("digits")
    right = 0
    for x, label in zip(digits.x_test[:60], digits.y_test[:60], strict=True):
        found = reader.read(canvas_of(x, zoom=9, at=(10, 40)))
        right += int(np.argmax(found["probabilities"])) == label
        assert sum(found["probabilities"]) == pytest.approx(1.0, abs=0.01)
    assert right >= 54
    assert found["input"]["shape"] == [8, 8] and len(found["input"]["ink"]) == 64
    assert [len(layer["values"]) for layer in found["layers"]] == [64, 32]
    assert found["classes"] == list("0123456789")


def test_mnist_is_learnt_where_it_is_and_drawings_read(data_dir, tmp_path):
    digits = data.load("mnist", data_dir=data_dir)
    model = xpnet.MLP([784, 32, 10], seed=0)
    model.preprocessing, model.classes = digits.preprocessing, digits.classes
    xpnet.fit(model, (digits.x_train[:20000], digits.y_train[:20000]), epochs=2)
    model.save(tmp_path / "reader.safetensors")
    reader = DigitReader(tmp_path / "reader.safetensors")
    assert reader.status()["state"] == "ready" and reader.start()["state"] == "ready"
    ours = np.array([centred(canvas_of(x) / 255.0, (28, 28)) for x in digits.x_test[:200]])
    same = [np.abs(a * 255 - b).max() < 30 for a, b in zip(ours, digits.x_test[:200], strict=True)]
    assert np.mean(same) > 0.8  # as MNIST's makers centred them
    answers = [reader.read(canvas_of(x))["probabilities"] for x in digits.x_test[:200]]
    drawn = np.mean(np.argmax(answers, axis=1) == digits.y_test[:200])
    plain = np.mean(model.predict(digits.x_test[:200]) == digits.y_test[:200])
    assert plain > 0.9 and drawn > plain - 0.03
    assert DigitReader(data_dir=data_dir)._pictures().name == "mnist"


def test_models_that_read_no_pictures_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XPNET_DATA", str(tmp_path))
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
    model = xpnet.MLP([4, 3, 2])
    xpnet.fit(model, (x, y), epochs=1)
    path = tmp_path / "m.safetensors"
    model.save(path)
    with pytest.raises(ConfigError, match=r"samples of shape \(4,\)"):
        DigitReader(path)
    many = xpnet.MLP([4, 3, 2], n_models=2)
    many.preprocessing = data.Preprocessing((2, 2))
    xpnet.fit(many, (x, y), epochs=1)
    many.save(path)
    with pytest.raises(ConfigError, match="population of 2"):
        DigitReader(path)
    scores = xpnet.MLP([4, 3, 2])
    scores.preprocessing = data.Preprocessing((2, 2))
    xpnet.fit(scores, (x, y), epochs=1, loss="hinge")
    scores.save(path)
    with pytest.raises(ConfigError, match="scores, not probabilities"):
        DigitReader(path)
    numbers = xpnet.MLP([4, 3, 1])
    numbers.preprocessing = data.Preprocessing((2, 2))
    xpnet.fit(numbers, (x, y + 0.5), epochs=1)
    numbers.save(path)
    with pytest.raises(ConfigError, match="regression"):
        DigitReader(path)
    with pytest.raises(DataError, match="mnist"):
        DigitReader(data_dir=tmp_path)


def test_training_of_the_reader_that_fails_is_said_and_can_be_repeated(monkeypatch):
    reader = DigitReader(data_set="digits")

    def refuse():
        raise DataError("no digits today")

    monkeypatch.setattr(reader, "_pictures", refuse)
    reader.start()
    wait_until(lambda: reader.status()["state"] == "failed")
    assert reader.status()["text"] == "no digits today"
    monkeypatch.undo()
    reader.start()
    wait_until(lambda: reader.status()["epoch"] > 0)
    reader.close()
    wait_until(lambda: not any(t.name == "xpnet-digits" for t in threading.enumerate()))
    assert reader.status()["epoch"] < 60


# --- addresses ---------------------------------------------------------------------------------------
class Client:
    """Asks the server, as the page does unless told otherwise."""

    def __init__(self, port):
        self.port = port

    def __call__(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        self.headers = dict(answer.getheaders())
        return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text

    def new(self):
        status, state = self("POST", "/api/sessions", {})
        assert status == 200
        return f"/api/sessions/{state['id']}", state


@pytest.fixture(scope="module")
def ask(reader):
    uvicorn = pytest.importorskip("uvicorn")
    from xpnet.playground.server import application

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application(Sessions(), reader), log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield Client(listener.getsockname()[1])
    server.should_exit = True
    thread.join(20)
    listener.close()
    assert not thread.is_alive()


def test_the_page_and_its_parts_are_served(ask):
    status, page = ask("GET", "/")
    assert status == 200 and b"<title>xpnet playground" in page
    assert "default-src 'none'" in ask.headers["content-security-policy"]
    links = re.findall(rb'(?:href|src)="(/static/[^"#]+)', page)
    static = Path(xpnet.__file__).parent / "playground" / "static"
    for link in {*links, *(b"/static/" + p.name.encode() for p in static.iterdir())}:
        assert ask("GET", link.decode())[0] == 200, link
    for script in static.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', script.read_text(encoding="utf-8")):
            assert (static / name).exists(), name
    text = "".join(p.read_text(encoding="utf-8") for p in static.iterdir())
    assert not re.findall(r"https?://(?!www\.w3\.org)", text)  # nothing comes from elsewhere
    assert ask("GET", "/static/../server.py")[0] == 404
    assert ask("GET", "/static/%2e%2e/server.py")[0] == 404


def test_a_session_over_http(ask):
    one, state = ask.new()
    assert len(state["points"]["rows"]) == 200 and state["frame"]["epoch"] == 0
    assert ask("GET", one)[1]["points"] == state["points"]
    status, state = ask("POST", one + "/step", {"epochs": 3})
    assert status == 200 and state["frame"]["epoch"] == 3
    status, state = ask("POST", one + "/settings", {"hidden": [4], "activation": "relu"})
    assert status == 200 and state["architecture"] == [2, 4, 2] and state["frame"]["epoch"] == 0
    status, state = ask(
        "POST", one + "/preset", {"name": "spirals", "n": 60, "classes": 3, "noise": 0, "seed": 1}
    )
    assert status == 200 and state["points"]["recipe"]["name"] == "spirals" and state["architecture"][-1] == 3
    status, state = ask("POST", one + "/points", {"rows": [[0, 0, 0], [1, 1, 1]]})
    assert state["points"]["rows"] == [[0, 0, 0, 0], [1, 1, 1, 0]] and state["points"]["recipe"] is None
    status, state = ask(
        "POST", one + "/csv", b"x,y,c\n1,2,red\n-1,0.5,blue\n", **{"Content-Type": "text/csv"}
    )
    assert status == 200 and state["points"]["names"] == ["blue", "red"]
    ask("POST", one + "/play", {"playing": True})
    frame = {"version": -1, "epoch": 0}
    while frame["epoch"] < 5:
        status, frame = ask("GET", f"{one}/frame?since={frame['version']}")
        assert status == 200 and frame["playing"]
    state = ask("POST", one + "/play", {"playing": False})[1]
    began = time.monotonic()
    assert (
        ask("GET", f"{one}/frame?since={state['frame']['version']}")[1]["version"]
        == state["frame"]["version"]
    )
    assert time.monotonic() - began > 0.5  # it waited for something new
    assert ask("POST", one + "/reset", {})[1]["frame"]["epoch"] == 0


def test_two_sessions_know_nothing_of_each_other(ask):
    (one, before), (two, _) = ask.new(), ask.new()
    assert one != two
    ask("POST", two + "/settings", {"hidden": [2]})
    ask("POST", two + "/step", {"epochs": 2})
    after = ask("GET", one)[1]
    assert after == before
    copy = ask("POST", "/api/sessions", {"like": two.rpartition("/")[2]})[1]
    assert copy["settings"]["hidden"] == [2] and copy["frame"]["epoch"] == 0


@pytest.mark.parametrize(
    ("what", "body", "status", "message"),
    [
        ("settings", {"lr": "fast"}, 400, "lr must be a number"),
        ("settings", {"colour": 1}, 400, "unknown setting 'colour'"),
        ("points", {"rows": [[0, 0, 9]]}, 400, "point 1: the class"),
        ("points", {}, 400, "'rows' is missing"),
        ("points", {"rows": [[0, 0, 0]] * 2001}, 400, "at most 2000"),
        ("points", {"rows": [[1.25, 1.25, 0]] * 60000}, 413, "at most 524,288 bytes"),
        ("preset", {"name": "moon"}, 400, "did you mean 'moons'"),
        (
            "preset",
            {"name": "xor", "n": 100000},
            400,
            "the number of points must be a whole number from 8 to 1000",
        ),
        ("play", {"playing": "yes"}, 400, "must be true or false"),
        ("step", {"epochs": 0}, 400, "epochs must be"),
        ("step", {"speed": 1}, 400, "unknown entry 'speed'"),
        ("csv", b"x,y,c\n1,2,a\n1,z,b\n", 400, "line 3"),
        ("csv", b"1" * 300_000, 413, "262,144"),
        ("settings", b"{", 415, "application/json"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_what_cannot_be_used_is_refused_with_the_reason(ask, what, body, status, message):
    one, before = ask.new()
    found, answer = ask("POST", f"{one}/{what}", body)
    assert (found, list(answer)) == (status, ["error"]) and message in answer["error"]
    assert ask("GET", one)[1] == before


@pytest.mark.parametrize("body", [b"{", b"[1]", b"nope", b'{"lr": NaN}', b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_refused(ask, body):
    one, _ = ask.new()
    status, answer = ask("POST", one + "/settings", body, **{"Content-Type": "application/json"})
    assert status == 400 and "JSON" in answer["error"]


def test_an_endless_body_without_a_length_is_cut_off(ask):
    one, _ = ask.new()

    def much():
        for _ in range(100):
            yield b"1" * 10_000

    connection = http.client.HTTPConnection("127.0.0.1", ask.port, timeout=30)
    try:
        connection.request(
            "POST", one + "/csv", much(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was cut off before all was sent
    finally:
        connection.close()
    assert ask("GET", one)[0] == 200


def test_unknown_addresses_and_sessions(ask):
    assert ask("GET", "/api/sessions/nobody")[0] == 404
    assert "gone" in ask("POST", "/api/sessions/nobody/step", {})[1]["error"]
    assert ask("GET", "/nothing")[0] == 404
    one, _ = ask.new()
    assert ask("GET", one + "/frame?since=x")[0] == 400
    assert ask("GET", one + "/step")[0] == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1:1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_pages_are_refused(ask, headers):
    headers = {name: value.format(port=ask.port) for name, value in headers.items()}
    for method, path, body in (("POST", "/api/sessions", {}), ("GET", "/api/limits", None)):
        status, answer = ask(method, path, body, **headers)
        assert status == 403 and "own page" in answer["error"], (method, path)


def test_the_page_itself_is_let_in_under_both_names(ask):
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{ask.port}"
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert ask("POST", "/api/sessions", {}, **headers)[0] == 200


def test_digits_over_http(ask):
    assert ask("POST", "/api/digits/start", {})[1]["state"] == "ready"
    status, found = ask(
        "POST", "/api/digits/read", canvas_of(data.load("digits").x_test[0], zoom=9).tobytes()
    )
    assert status == 200 and int(np.argmax(found["probabilities"])) == data.load("digits").y_test[0]
    for body, code, message in (
        (bytes(140 * 140), 400, "nothing is drawn"), (b"12345", 400, "square"), (b"", 400, "square"),
        (bytes(300 * 300), 413, "65,536"),
    ):  # fmt: skip
        status, answer = ask("POST", "/api/digits/read", body)
        assert status == code and message in answer["error"]


# --- the command -------------------------------------------------------------------------------------
def test_the_command_serves_until_ctrl_c():
    arguments = [sys.executable, "-m", "xpnet", "playground", "--no-browser"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
        ask = Client(port)
        one, _ = ask.new()
        ask("POST", one + "/play", {"playing": True})
        assert ask("GET", "/")[0] == 200
        # a second one may not have the port
        second = subprocess.run([*arguments, "--port", str(port)], capture_output=True, text=True, timeout=60)
        assert second.returncode == 1 and f"port {port}" in second.stderr and "Traceback" not in second.stderr
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "") and "ended" in out


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    from xpnet.playground import serve

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(XpnetError, match=r'pip install "xpnet\[playground\]"'):
        serve(browser=False)


def test_a_browser_is_opened_at_the_address(monkeypatch):
    import webbrowser

    import uvicorn

    from xpnet.playground import serve

    opened, lines = [], []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    serve(echo=lines.append)
    assert opened and opened[0] in lines[0]
