"""The playground in a real browser: click, draw, watch the accuracy rise, reload, two tabs, digits, refusals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn")
_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_DRIVER = shutil.which("chromedriver")
_MISSING = [name for name, path in (("chromium", _BROWSER), ("chromedriver", _DRIVER)) if path is None]
if _MISSING:
    _WHY = f"needs {' and '.join(_MISSING)}; on Debian: apt-get install chromium chromium-driver"
    if os.environ.get("XPNET_NEEDS_BROWSER"):
        pytest.fail(_WHY, pytrace=False)
    pytest.skip(_WHY, allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow
PATIENCE = 90  # seconds that a busy machine may take; an idle one takes a moment


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The playground as its user starts it, and ends it."""
    environment = {k: v for k, v in os.environ.items() if k != "XPNET_DATA"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "OPENBLAS_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "xpnet", "playground", "--no-browser"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        yield re.search(r"http://\S+", process.stdout.readline())[0]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "") and "ended" in out


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = _BROWSER
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1300,1000",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()


class Page:
    """One tab, as a user sees it."""

    def __init__(self, browser: webdriver.Chrome, address: str, hash: str = ""):
        self.browser = browser
        browser.switch_to.new_window("tab")
        self.handle = browser.current_window_handle
        browser.get(address + hash)
        self.ready()

    def ready(self) -> None:
        self.until(lambda: self.run("return document.documentElement.dataset.ready") == "yes")

    def front(self) -> None:
        self.browser.switch_to.window(self.handle)

    def close(self) -> None:
        self.front()
        self.browser.close()
        self.browser.switch_to.window(self.browser.window_handles[0])

    def run(self, script: str):
        return self.browser.execute_script(script)

    def until(self, condition) -> None:
        WebDriverWait(self.browser, PATIENCE, poll_frequency=0.05).until(lambda _: condition())

    def __getitem__(self, name: str):
        return self.browser.find_element(By.ID, name)

    def click(self, name: str) -> None:
        self[name].click()

    def choose(self, name: str, value: str) -> None:
        Select(self[name]).select_by_value(value)

    @property
    def epoch(self) -> int:
        return int(self["epoch"].text.replace(",", ""))

    def accuracy(self, part: str = "valid") -> float:
        text = self[f"{part}-accuracy"].text
        return float(text.removesuffix(" %")) if "%" in text else 0.0

    def state(self) -> dict:
        """What the server knows of this tab."""
        return self.browser.execute_async_script(
            "fetch('/api/sessions/' + sessionStorage.getItem('xpnet-session')).then(a => a.json()).then(arguments[0])"
        )

    def pixels(self, selector: str) -> str:
        """A fingerprint of what a canvas shows."""
        return self.run(f"return document.querySelector('{selector}').toDataURL()")

    def drag(self, name: str, path: list[tuple[float, float]]) -> None:
        """Press at the first of the points (shares of the canvas), move through the others, let go."""
        canvas = self[name]
        self.run(f"document.getElementById('{name}').scrollIntoView({{block: 'center'}})")
        actions = ActionChains(self.browser, duration=0)
        for i, (x, y) in enumerate(path):
            width, height = canvas.size["width"], canvas.size["height"]
            actions.move_to_element_with_offset(canvas, round((x - 0.5) * width), round((y - 0.5) * height))
            if i == 0:
                actions.click_and_hold()
        actions.release().perform()

    def settled(self, condition) -> dict:
        """Wait until the server's state is as it should be, and return it."""
        found: list[dict] = []
        self.until(lambda: condition(found.append(self.state()) or found[-1]))
        return found[-1]


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    browser.switch_to.window(browser.window_handles[0])
    page = Page(browser, address)
    yield page
    page.front()
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    page.close()
    # the page may be refused, and says so; it may not have errors of its own
    assert not [message for message in severe if "the server responded with a status of 4" not in message]


def test_press_play_and_the_accuracy_rises(page):
    assert page.epoch == 0 and page.accuracy() < 90
    before = page.pixels("#plane"), page.pixels(".layer:nth-child(3) canvas"), page.pixels("#loss-curve")
    page.click("play")
    page.until(lambda: page["message"].text == "Training." and page.epoch > 3)
    page.until(lambda: page.accuracy() > 92 and page.accuracy("train") > 92)
    after = page.pixels("#plane"), page.pixels(".layer:nth-child(3) canvas"), page.pixels("#loss-curve")
    assert all(a != b for a, b in zip(before, after, strict=True))  # boundary, hidden unit, curves
    page.click("play")
    page.until(lambda: page["message"].text == "Paused.")
    epoch = page.settled(lambda state: not state["frame"]["playing"])["frame"]["epoch"]
    page.until(lambda: page.epoch == epoch)
    page.click("step")
    page.until(lambda: page.epoch == epoch + 1)
    page.click("reset")
    page.until(lambda: page.epoch == 0 and page.accuracy() < 90)


def test_draw_two_clouds_and_train_on_them(page):
    page.click("clear")
    page.until(lambda: "two classes" in page["message"].text)
    page.drag("plane", [(0.15 + 0.02 * i, 0.2 + 0.03 * (i % 2)) for i in range(12)])
    page.run("document.querySelectorAll('#brushes input')[1].click()")
    page.drag("plane", [(0.6 + 0.02 * i, 0.8 + 0.03 * (i % 2)) for i in range(12)])
    page.click("play")
    page.until(lambda: page.accuracy("train") == 100 and page.accuracy() == 100)
    rows = page.state()["points"]["rows"]
    assert all((x < 0 and y > 0) if c == 0 else (x > 0 and y < 0) for x, y, c, _ in rows)
    counts = [sum(row[2] == c for row in rows) for c in (0, 1)]
    assert min(counts) >= 5
    # points set while it plays: it goes on with the weights it has
    page.drag("plane", [(0.2, 0.75)])
    state = page.settled(lambda state: len(state["points"]["rows"]) == len(rows) + 1)
    assert state["frame"]["epoch"] > 0 and state["frame"]["playing"]


def test_keys_alone_are_enough(page):
    page.click("clear")
    page.until(lambda: "two classes" in page["message"].text)
    plane = page["plane"]
    plane.send_keys(Keys.ARROW_LEFT * 3, Keys.ENTER, "2", Keys.ARROW_RIGHT * 8, Keys.ARROW_UP, Keys.ENTER)
    state = page.settled(lambda state: len(state["points"]["rows"]) == 2)
    assert [row[:3] for row in state["points"]["rows"]] == [[-0.3, 0, 0], [0.5, 0.1, 1]]
    plane.send_keys(Keys.DELETE)
    page.settled(lambda state: len(state["points"]["rows"]) == 1)
    page["tab-points"].send_keys(Keys.ARROW_RIGHT)
    assert page["digits"].is_displayed() and not page["points"].is_displayed()
    assert page.run("return document.activeElement.id") == "tab-digits"


def test_change_the_network(page):
    page.click("more-layers")
    page.until(lambda: page["layers"].text == "3")
    page.browser.find_element(By.CSS_SELECTOR, "[aria-label='One unit more in hidden layer 1']").click()
    page.until(lambda: len(page.browser.find_elements(By.CSS_SELECTOR, ".layer:nth-child(3) .unit")) == 7)
    page.choose("activation", "relu")
    page.choose("l2", "0.01")
    settings = page.settled(lambda state: state["settings"]["l2"] == 0.01)["settings"]
    assert (settings["hidden"], settings["activation"]) == ([7, 4, 4], "relu")
    plane = page.pixels("#plane")
    unit = page.browser.find_element(By.CSS_SELECTOR, "[aria-label^='Hidden layer 1, unit 1']")
    ActionChains(page.browser, duration=0).move_to_element(unit).perform()
    page.until(lambda: page.pixels("#plane") != plane)  # the unit is shown large
    assert page["result-title"].text == "Hidden layer 1, unit 1"
    assert page["parameters"].text == "83 weights and biases"


def test_reload_keeps_everything(page):
    page.choose("activation", "sigmoid")
    page.browser.find_element(By.CSS_SELECTOR, "[data-preset='xor']").click()
    page.drag("plane", [(0.5, 0.5)])
    page.settled(lambda state: len(state["points"]["rows"]) == 201)
    for _ in range(3):
        page.click("step")
    page.until(lambda: page.epoch == 3)
    before = page.state()
    page.browser.refresh()
    page.ready()
    assert page.state() == before
    assert page.epoch == 3 and Select(page["activation"]).first_selected_option.text == "sigmoid"
    page.click("play")
    page.until(lambda: page.epoch > 5)
    page.browser.refresh()  # it goes on playing
    page.ready()
    epoch = page.epoch
    page.until(lambda: page.epoch > epoch)
    assert page["play"].get_attribute("aria-label") == "Pause"


def test_two_tabs_do_not_disturb_each_other(page, address):
    other = Page(page.browser, address)
    other.choose("activation", "relu")
    other.click("play")
    other.until(lambda: other.epoch > 3)
    page.front()
    assert page.epoch == 0 and page.state()["settings"]["activation"] == "tanh"
    first = page.state()["id"]
    # a tab that is opened from another one, or duplicated, brings a copy of its storage
    page.run("window.open('/', '_blank')")
    page.until(lambda: len(page.browser.window_handles) == 4)
    page.browser.switch_to.window(page.browser.window_handles[-1])
    page.ready()
    assert page.state()["id"] != first
    page.browser.close()
    other.close()


def test_what_is_too_much_or_wrong_is_refused_on_the_page(page, tmp_path):
    def upload(name: str, text: str) -> None:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        page["csv"].send_keys(str(path))

    before = page.state()
    upload("large.csv", "x,y,c\n" + "1,2,a\n" * 60_000)
    page.until(lambda: "large.csv has 352 KiB; at most 256 KiB" in page["alert"].text)
    upload("many.csv", "x,y,c\n" + "1,2,a\n0,0,b\n" * 1001)
    page.until(lambda: "many.csv: the file has 2002 points" in page["alert"].text)
    upload("bad.csv", "x,y,c\n1,2,a\n1,oops,b\n")
    page.until(lambda: "line 3" in page["alert"].text and "oops" in page["alert"].text)
    field = page["n"]
    field.send_keys(Keys.CONTROL, "a", Keys.NULL, "99999", Keys.ENTER)
    page.until(lambda: "the number of points must be a whole number from 8 to 1000" in page["alert"].text)
    assert page.state() == before
    upload("good.csv", "x,y,c\n" + "".join(f"{i},{i % 7},{'ab'[i % 2]}\n" for i in range(50)))
    page.until(lambda: not page["alert"].is_displayed() and "scaled to fit" in page["note"].text)
    assert page.state()["points"]["names"] == ["a", "b"]


def test_divergence_is_said_on_the_page(page):
    page.choose("activation", "identity")
    page.choose("optimizer", "sgd")
    page.choose("lr", "10")
    page.settled(lambda state: state["settings"]["lr"] == 10)
    page.click("play")
    page.until(lambda: re.match(r"Diverged in epoch \d+: .*smaller learning rate", page["message"].text))
    assert page["play"].get_attribute("aria-label") == "Play"
    page.choose("lr", "0.01")
    page.click("play")
    page.until(lambda: page.epoch > 3 and page["message"].text == "Training.")


def test_a_forgotten_session_begins_anew(page):
    page.run("sessionStorage.setItem('xpnet-session', 'of-yesterday')")
    page.browser.refresh()
    page.run("document.documentElement.dataset.ready = ''")
    page.browser.refresh()
    page.ready()
    assert page.epoch == 0 and page.state()["id"] != "of-yesterday"


# Strokes of digits, as shares of the pad.
DIGITS = {
    "0": [[(0.5, 0.15), (0.33, 0.28), (0.28, 0.5), (0.33, 0.72), (0.5, 0.85), (0.67, 0.72), (0.72, 0.5), (0.67, 0.28),
           (0.5, 0.15)]],
    "4": [[(0.58, 0.15), (0.43, 0.36), (0.28, 0.58), (0.5, 0.58), (0.75, 0.58)],
          [(0.6, 0.38), (0.6, 0.6), (0.6, 0.85)]],
}  # fmt: skip


def test_drawn_digits_are_read(page):
    page.click("tab-digits")
    page.until(lambda: "Learnt from 1,438 pictures" in page["digits-status"].text)
    for digit, strokes in DIGITS.items():
        page.click("wipe")
        page.until(lambda: "nothing is drawn" in page["answer"].text)
        for stroke in strokes:
            page.drag("pad", stroke)
        page.until(lambda d=digit: page["answer"].text.splitlines()[0] == d)
    shares = [
        float(e.text.strip("> %"))
        for e in page.browser.find_elements(By.CSS_SELECTOR, "#probabilities .share")
    ]
    assert len(shares) == 10 and sum(shares) == pytest.approx(100, abs=1)
    captions = [e.text for e in page.browser.find_elements(By.CSS_SELECTOR, "#hidden figcaption")]
    assert captions == ["hidden layer 1: 64 units", "hidden layer 2: 32 units"]
    assert page["sample-size"].text == "input: 8 × 8 pixels"
    page.until(lambda: page.run("return sessionStorage.getItem('xpnet-drawing')"))
    page.browser.refresh()  # the drawing and the tab are kept
    page.until(lambda: page["answer"].text.startswith("4"))


def test_nothing_sticks_out_at_any_width_and_everything_has_a_name(page):
    for width in (320, 360, 640, 800, 1080, 1300):
        emulate = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulate)
        for name in ("points", "digits"):
            page.click(f"tab-{name}")
            assert page.run("return document.documentElement.scrollWidth <= innerWidth"), (width, name)
    unnamed = page.run(
        "return [...document.querySelectorAll('button, select, input')].filter(e => "
        "!(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.id || e.outerHTML)"
    )
    assert unnamed == []
