"""The playground's addresses: static files, and a small JSON interface that only its own page may use.

The page asks for what is new, and an answer waits up to a second for it. That is as quick as a stream of events, slows
down by itself where a browser is slow, costs nothing while a page is hidden, and never keeps Ctrl-C waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, XpnetError, missing_package
from .digits import MAX_SIDE, DigitReader
from .points import MAX_CSV_BYTES, PRESETS, TWO_CLASSES, Points
from .session import Session, Sessions
from .settings import ACTIVATIONS, MAX_CLASSES, MAX_LAYERS, MAX_POINTS, MAX_WIDTH, OPTIMIZERS, PLANE, SPEEDS

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
HOST = "127.0.0.1"
MAX_BODY = 512 * 1024
_WAIT = 1.0  # seconds that an answer waits for something new
_LOOK = 0.02

LIMITS = {
    "plane": PLANE, "points": MAX_POINTS, "classes": MAX_CLASSES, "layers": MAX_LAYERS, "width": MAX_WIDTH,
    "csv_bytes": MAX_CSV_BYTES, "activations": ACTIVATIONS, "optimizers": OPTIMIZERS, "speeds": tuple(SPEEDS),
    "presets": tuple(PRESETS), "two_classes": TWO_CLASSES,
}  # fmt: skip

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Refused(Exception):
    """An answer other than 200, with the reason as JSON."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def application(sessions: Sessions, digits: DigitReader) -> Starlette:
    """Return the ASGI application.

    Parameters
    ----------
    sessions : Sessions
    digits : DigitReader

    Notes
    -----
    Errors are JSON: ``{"error": "..."}`` with 400 (cannot be used), 403 (from another page), 404 (no such session),
    413 (too large) or 415 (not JSON).
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    def answering(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return JSONResponse(await handler(request))
            except _Refused as error:
                return JSONResponse({"error": str(error)}, status_code=error.status)
            except XpnetError as error:
                return JSONResponse({"error": str(error)}, status_code=400)

        return endpoint

    def page_of(request: Request) -> Session:
        session = sessions.get(request.path_params["id"])
        if session is None:
            raise _Refused(404, "this page's session is gone; a new one begins")
        return session

    def acting(act: Callable[[Session, dict[str, Any]], dict[str, Any]]) -> Any:
        """Make an endpoint that changes a session and returns its state."""

        async def handler(request: Request) -> Any:
            session, body = page_of(request), await _json(request)
            return await run_in_threadpool(act, session, body)

        return answering(handler)

    async def new(request: Request) -> Any:
        like = _take(await _json(request), like=None)["like"]
        session = await run_in_threadpool(sessions.new, like if isinstance(like, str) else None)
        return session.state()

    async def state(request: Request) -> Any:
        return await run_in_threadpool(page_of(request).state)

    async def frame(request: Request) -> Any:
        session = page_of(request)
        since = request.query_params.get("since", "-1")
        if not since.removeprefix("-").isdigit():
            raise _Refused(400, f"since must be a whole number, found {since[:60]!r}")
        for _ in range(round(_WAIT / _LOOK)):
            if session.version != int(since):
                break
            await asyncio.sleep(_LOOK)
        return await run_in_threadpool(session.frame)

    async def csv(request: Request) -> Any:
        session, text = page_of(request), await _body(request, MAX_CSV_BYTES)
        points = await run_in_threadpool(Points.from_csv, text)
        return await run_in_threadpool(session.new_points, points)

    async def read(request: Request) -> Any:
        drawing = _drawing(await _body(request, MAX_SIDE * MAX_SIDE))
        return await run_in_threadpool(digits.read, drawing)

    async def start(request: Request) -> Any:
        await _json(request)
        return digits.start()

    async def status(request: Request) -> Any:
        return digits.status()

    async def limits(request: Request) -> Any:
        return LIMITS

    async def index(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    one = "/api/sessions/{id}"
    routes = [
        Route("/", index),
        Route("/api/limits", answering(limits)),
        Route("/api/sessions", answering(new), methods=["POST"]),
        Route(one, answering(state)),
        Route(one + "/frame", answering(frame)),
        Route(one + "/settings", acting(lambda s, b: s.change(b)), methods=["POST"]),
        Route(one + "/points", acting(_points), methods=["POST"]),
        Route(one + "/preset", acting(_preset), methods=["POST"]),
        Route(one + "/csv", answering(csv), methods=["POST"]),
        Route(one + "/play", acting(lambda s, b: s.play(_take(b, playing=...)["playing"])), methods=["POST"]),
        Route(one + "/step", acting(lambda s, b: s.step(_take(b, epochs=1)["epochs"])), methods=["POST"]),
        Route(one + "/reset", acting(lambda s, b: s.reset()), methods=["POST"]),
        Route("/api/digits", answering(status)),
        Route("/api/digits/start", answering(start), methods=["POST"]),
        Route("/api/digits/read", answering(read), methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        sessions.close()
        digits.close()

    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(_Guard)
    return app


class _Guard:
    """Lets only the page itself in, and says how browsers are to treat it.

    A foreign page that resolves its own name to this computer sends that name as Host (DNS rebinding); one that
    sends requests here sends its own Origin.
    """

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from starlette.datastructures import Headers
        from starlette.responses import JSONResponse

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
            await send(message)

        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        name, _, port = host.partition(":")
        here = name in (HOST, "localhost") and port in ("", str(scope["server"][1]))
        foreign = origin not in (None, f"http://{host}") or headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin", "none",
        )  # fmt: skip
        if here and not (foreign and scope["path"].startswith("/api/")):
            await self._app(scope, receive, guarded)
            return
        refusal = JSONResponse({"error": "only the playground's own page may ask here"}, status_code=403)
        await refusal(scope, receive, guarded)


# --- what requests hold -----------------------------------------------------------------------------
def _points(session: Session, body: dict[str, Any]) -> dict[str, Any]:
    wanted = _take(body, rows=..., add=False)
    points = Points.checked(wanted["rows"])
    return session.add_points(points) if wanted["add"] is True else session.set_points(points)


def _preset(session: Session, body: dict[str, Any]) -> dict[str, Any]:
    wanted = _take(body, name=..., n=200, noise=0.1, classes=2, seed=0)
    return session.new_points(Points.preset(wanted.pop("name"), **wanted))


def _take(body: dict[str, Any], **known: Any) -> dict[str, Any]:
    """Return the named entries, with defaults for those that have one; `...` has none."""
    for name in body:
        if name not in known:
            raise DataError(f"unknown entry {name[:60]!r}; known: {', '.join(known)}")
    for name, default in known.items():
        if default is ... and name not in body:
            raise DataError(f"the entry {name!r} is missing")
    return {**known, **body}


async def _body(request: Request, limit: int) -> bytes:
    """Read a request's body, never more than `limit` bytes of it."""
    message = f"that is too much: at most {limit:,} bytes can be sent here"
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        # a browser that is still sending would not see the answer, so what is not absurd is read and forgotten
        if int(announced) < 64 * MAX_BODY:
            async for _ in request.stream():
                pass
        raise _Refused(413, message)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _Refused(413, message)
        parts.append(part)
    return b"".join(parts)


async def _json(request: Request) -> dict[str, Any]:
    body = await _body(request, MAX_BODY)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "expected Content-Type: application/json")
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"not JSON: {str(error)[:100]}") from error
    if not isinstance(found, dict):
        raise _Refused(400, f"expected a JSON object, found {type(found).__name__}")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def _drawing(body: bytes) -> np.ndarray:
    side = round(len(body) ** 0.5)
    if side * side != len(body) or side < 8:
        raise DataError(f"a drawing is a square of at least 8 x 8 bytes, found {len(body)} bytes")
    return np.frombuffer(body, dtype=np.uint8).reshape(side, side)


# --- serving ----------------------------------------------------------------------------------------
def serve(
    *, port: int = 0, browser: bool = True, model: str | None = None, data_dir: str | None = None,
    echo: Callable[[str], Any] = print,
) -> None:  # fmt: skip
    """Serve the playground on this computer until Ctrl-C.

    Parameters
    ----------
    port : int, default 0
        0 takes one that is free.
    browser : bool, default True
        Whether to open the page.
    model, data_dir : path, optional
        See `DigitReader`.
    echo : callable
        Gets the line with the address.

    Raises
    ------
    XpnetError
        The port is taken, or the extra ``playground`` is not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise missing_package("the playground needs starlette and uvicorn", "playground", error) from error
    digits = DigitReader(model, data_dir=data_dir)
    listener = _listen(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}/"
    config = uvicorn.Config(
        application(Sessions(), digits), log_level="warning", access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=3,
    )  # fmt: skip
    server = uvicorn.Server(config)
    echo(f"xpnet playground: {address}  (Ctrl-C ends it)")
    if browser:
        # in vain where there is no browser: the address is printed all the same
        with contextlib.suppress(webbrowser.Error, OSError):
            webbrowser.open(address)
    with listener:
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt as error:
            if type(error) is not KeyboardInterrupt:  # SIGTERM, as the command hears it
                raise
    echo("xpnet playground: ended")


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)  # from now on a browser that comes early waits
    except OSError as error:
        listener.close()
        raise XpnetError(
            f"port {port} of {HOST} cannot be used ({error.strerror}); choose another --port, or none for a free one"
        ) from error
    return listener
