"""One page: its points, its network, and the thread that trains it while the page plays."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from typing import Any

import xpnet
from xpnet.optim import get_optimizer

from ..errors import DataError, XpnetError
from .curves import Curves
from .pictures import picture
from .points import Points
from .settings import MAX_EPOCHS, SPEEDS, Settings, whole

MAX_SESSIONS = 24
#: Seconds without a question from the page after which nobody seems to be watching.
UNWATCHED = 45.0
_SLICE = 0.05  # seconds of training between two looks
_FRAME = 0.06  # seconds between two pictures


class Session:
    """The state of one page. Every method may be called from any thread.

    Parameters
    ----------
    settings : Settings, optional
    points : Points, optional
        A preset where omitted.

    Attributes
    ----------
    id : str
        Unguessable, so that one page cannot reach another by chance.
    version : int
        Grows whenever there is something new to show.

    Examples
    --------
    >>> session = Session()
    >>> session.step(2)["frame"]["epoch"]
    2
    """

    def __init__(self, settings: Settings | None = None, points: Points | None = None):
        self.id = secrets.token_urlsafe(16)
        self.seen = time.monotonic()
        self.version = 0
        self._lock = threading.RLock()
        self._stop: threading.Event | None = None  # of the thread that trains; None while paused
        self._picture: dict[str, Any] | None = None
        self._trainer: xpnet.Trainer | None = None
        self.settings = settings or Settings()
        self.points = points or Points.preset("moons", n=200, noise=0.2, classes=2, seed=0)
        self._message: dict[str, str] = {"kind": "ready", "text": ""}
        self._begin()

    # --- what the page asks for -----------------------------------------------------------------
    @property
    def playing(self) -> bool:
        """Whether a thread trains the network."""
        return self._stop is not None

    def touch(self) -> None:
        """Note that somebody is watching."""
        self.seen = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Everything that a page needs to show itself, ready for JSON."""
        with self._lock:
            return {
                "id": self.id, "settings": self.settings.as_dict(), "frame": self.frame(),
                "points": self.points.as_dict(self._held_out), "architecture": list(self.model.sizes),
            }  # fmt: skip

    def frame(self) -> dict[str, Any]:
        """Return what changes while the network learns: epoch, losses, message, the picture of the plane."""
        with self._lock:
            if self._picture is None:
                self._picture = picture(self.model)
            return {
                "version": self.version, "epoch": self.epoch, "playing": self.playing, "message": self._message,
                "curves": self._curves.as_dict(), "parameters": self.model.n_parameters, **self._picture,
            }  # fmt: skip

    def change(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Change settings; a network that no longer fits begins anew, any other goes on learning."""
        with self._lock:
            before, self.settings = self.settings, self.settings.changed(changes)
            if self.settings.needs_new_network(before):
                self._begin()
            elif self.settings.needs_new_training(before):
                self._continue()
            return self.state()

    def set_points(self, points: Points) -> dict[str, Any]:
        """Replace the points; the network begins anew where the number of classes is another."""
        with self._lock:
            self.points = points
            if points.n_classes == self.model.sizes[-1]:
                self._continue()
            else:
                self._begin()
            return self.state()

    def add_points(self, more: Points) -> dict[str, Any]:
        """Add points; see `set_points`."""
        with self._lock:
            return self.set_points(self.points.and_more(more))

    def new_points(self, points: Points) -> dict[str, Any]:
        """Replace the points and begin anew."""
        with self._lock:
            self.points = points
            self._begin()
            return self.state()

    def reset(self) -> dict[str, Any]:
        """Stop, and draw the initial weights again."""
        with self._lock:
            self._halt()
            self._begin()
            return self.state()

    def step(self, epochs: Any = 1) -> dict[str, Any]:
        """Train some epochs now."""
        with self._lock:
            epochs = whole("epochs", epochs, 1, 1000)
            self._halt()
            self._need_trainer()
            self._say("paused")
            self._advance(epochs, seconds=5.0)
            return self.state()

    def play(self, playing: Any) -> dict[str, Any]:
        """Start or pause."""
        if not isinstance(playing, bool):
            raise DataError(f"playing must be true or false, found {str(playing)[:60]}")
        with self._lock:
            if playing and not self.playing:
                self._need_trainer()
                if self.epoch >= MAX_EPOCHS:
                    raise DataError(
                        f"{MAX_EPOCHS:,} epochs are the most a page trains; press Reset to begin anew"
                    )
                self._say("playing")
                self._stop = threading.Event()
                threading.Thread(
                    target=self._work, args=(self._stop,), daemon=True, name="xpnet-page"
                ).start()
            elif not playing and self.playing:
                self._halt()
                self._say("paused")
            return self.state()

    def copy(self) -> Session:
        """Return an independent page with the same settings and points, and an untrained network."""
        with self._lock:
            return Session(self.settings, self.points)

    def close(self) -> None:
        """Stop training."""
        with self._lock:
            self._halt()

    # --- beginning and going on -----------------------------------------------------------------
    def _begin(self) -> None:
        """Make a new network."""
        s = self.settings
        self.model = xpnet.MLP([2, *s.hidden, self.points.n_classes], activation=s.activation, seed=s.seed)
        self.epoch = 0
        self._curves = Curves()
        self._say("playing" if self.playing else "ready")
        self._continue(first=True)

    def _continue(self, first: bool = False) -> None:
        """Make a trainer for the network as it is, with the points and settings of now."""
        s, points = self.settings, self.points
        held = self._held_out = points.held_out(s.held_out)
        self._picture = self._trainer = None
        self.version += 1
        self._problem = ""
        test = (points.xy[held], points.label[held]) if held.any() else None
        try:
            self._trainer = xpnet.Trainer(
                self.model, (points.xy[~held], points.label[~held]), validation=test,
                optimizer=get_optimizer(s.optimizer, lr=s.lr), l1=s.l1, l2=s.l2, batch_size=s.batch_size,
                epochs=0, seed=s.seed, restore_best=False, threads=1,
            )  # fmt: skip
        except XpnetError as error:
            few = len(set(points.label.tolist())) < 2
            self._problem = "Draw points of at least two classes first." if few else str(error)
            self._halt()
            self._say("waiting", self._problem)
            return
        if self._message["kind"] in ("waiting", "diverged", "done"):
            self._say("playing" if self.playing else "ready")
        if first:
            scores = {"train": xpnet.evaluate(self.model, (points.xy[~held], points.label[~held]))}
            if test is not None:
                scores["valid"] = xpnet.evaluate(self.model, test)
            self._curves.add(
                0, {f"{part}_{k}": v for part, score in scores.items() for k, v in score.items()}
            )

    def _need_trainer(self) -> xpnet.Trainer:
        if self._trainer is None:
            raise DataError(self._problem)
        return self._trainer

    def _say(self, kind: str, text: str = "") -> None:
        self._message = {"kind": kind, "text": text}
        self.version += 1

    def _halt(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self._stop = None
            self.version += 1

    # --- training -------------------------------------------------------------------------------
    def _advance(self, epochs: int, seconds: float) -> None:
        """Train up to `epochs`, for about `seconds` at most."""
        trainer = self._need_trainer()
        trainer.callbacks[:] = [_Deadline(time.perf_counter() + seconds)]
        before = trainer.epoch
        trainer.epochs = before + min(epochs, MAX_EPOCHS - self.epoch)
        try:
            trainer.run()
        except xpnet.DivergedError as error:
            self._halt()
            epoch = self.epoch - before + trainer.epoch + 1
            self._say(
                "diverged",
                f"Diverged in epoch {epoch}: {error.where}. The network keeps its last good weights. "
                "Choose a smaller learning rate and play on, or press Reset.",
            )
        offset = self.epoch - before
        for record in trainer.history:
            self._curves.add(record["epoch"] + offset, record)
        trainer.history.clear()  # a page may train for hours
        self.epoch = offset + trainer.epoch
        self._picture = None
        if self._message["kind"] == "diverged":
            # its numbers are of no use any more; the weights are the last good ones, and may go on
            message = self._message
            self._continue()
            self._message = message
        elif self.epoch >= MAX_EPOCHS:
            self._halt()
            self._say(
                "done", f"{MAX_EPOCHS:,} epochs are done, the most a page trains. Press Reset to begin anew."
            )
        self.version += 1

    def _work(self, stop: threading.Event) -> None:
        """Train until paused: slices short enough that a click never waits."""
        while not stop.is_set():
            began = time.perf_counter()
            with self._lock:
                if stop.is_set():
                    return
                if time.monotonic() - self.seen > UNWATCHED:
                    self._halt()
                    self._say("paused", "Paused, because nobody was watching.")
                    return
                rate = SPEEDS[self.settings.speed]
                try:
                    self._advance(1 if rate else MAX_EPOCHS, _SLICE)
                except Exception as error:  # a defect: say so on the page instead of standing still
                    self._halt()
                    self._say("failed", f"Training stopped: {type(error).__name__}: {error}")
                    raise
            spent = time.perf_counter() - began
            # the least pause lets the page's questions in, which wait for the same lock
            stop.wait(max(1.0 / rate - spent if rate else 0.0, 0.004))


class _Deadline(xpnet.Callback):
    """End training after the epoch in which the time is up."""

    def __init__(self, at: float):
        self._at = at

    def on_epoch_end(self, trainer: xpnet.Trainer, record: dict[str, Any]) -> None:
        if time.perf_counter() >= self._at:
            trainer.stop("a look")


class Sessions:
    """All pages, by id; the one that was idle longest makes room for a new one."""

    def __init__(self, limit: int = MAX_SESSIONS):
        self._limit = limit
        self._lock = threading.Lock()
        self._all: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def new(self, like: str | None = None) -> Session:
        """Add a page, with the points and settings of another one where that is known."""
        with self._lock:
            model = self._all.get(like or "")
        session = Session() if model is None else model.copy()
        dropped = []
        with self._lock:
            while len(self._all) >= self._limit:
                oldest = min(self._all.values(), key=lambda s: (s.playing, s.seen))
                dropped.append(self._all.pop(oldest.id))
            self._all[session.id] = session
        for old in dropped:
            old.close()
        return session

    def get(self, name: str) -> Session | None:
        """Return a page and note that it is watched; None where there is none of that id."""
        session = self._all.get(name)
        if session is not None:
            session.touch()
        return session

    def close(self) -> None:
        """Stop all training."""
        for session in list(self._all.values()):
            session.close()


__all__ = ["MAX_SESSIONS", "Session", "Sessions"]
