"""What is asked for -> what is answered: the page, and JSON. An error is {"error": words}, which the page shows."""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mscgan.errors import UserError
from mscgan.framing import Box
from mscgan.web import studio
from mscgan.web.guard import AGAIN, guard, read_body, refusal
from mscgan.web.studio import Studio
from mscgan.web.turns import Full, Turns

PLACES = 8  # requests that are being sent, wait or compute; the rest of a picture each is not taken
MOST_JSON = 4 << 20
CONNECTIONS = 100
WORDS = {404: "there is nothing at this address; the page is at /", 405: "this address does not take such a request"}


def app(opened: Studio) -> ASGIApp:
    """The page of a run, and what it asks for."""
    turns = Turns(PLACES)
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    async def computed(request: Request, most: int, function: Callable[[bytes], dict]) -> Response:
        with turns.place():
            body = await read_body(request, most)
            return JSONResponse(await turns.compute(lambda: function(body)))

    async def show(request: Request) -> Response:
        return HTMLResponse(page)

    async def facts(request: Request) -> Response:
        return JSONResponse(studio.facts(opened))

    async def people(request: Request) -> Response:
        start = _number(request, "from")
        return await computed(request, 0, lambda _: studio.people(opened, start))

    async def photo(request: Request) -> Response:
        person, box = _number(request, "person"), _box(request)
        return await computed(request, studio.MOST_PHOTO, lambda data: studio.photo(opened, data, person, box))

    async def pose(request: Request) -> Response:
        return await computed(request, MOST_JSON, lambda text: studio.pose_of_text(opened, text))

    async def images(request: Request) -> Response:
        return await computed(request, MOST_JSON, lambda text: studio.images(opened, text))

    routes = [
        Route("/", show),
        Route("/facts", facts),
        Route("/people", people),
        Route("/photo", photo, methods=["POST"]),
        Route("/pose", pose, methods=["POST"]),
        Route("/images", images, methods=["POST"]),
    ]
    handlers = {UserError: _mistake, Full: _full, HTTPException: _http, Exception: _crash}
    return guard(Starlette(routes=routes, exception_handlers=handlers), _policy(page))


def server(opened: Studio) -> uvicorn.Server:
    """Uvicorn with the app. What it answers by itself (what is no HTTP, too many connections) is plain text."""
    return uvicorn.Server(
        uvicorn.Config(
            app(opened), http="h11", ws="none", lifespan="off", log_level="warning", access_log=False,
            server_header=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=2,
        )
    )  # fmt: skip


def _number(request: Request, name: str) -> int:
    value = request.query_params.get(name, "0")
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise UserError(f"{name} is not a whole number from 0 on")
    return int(value)


def _box(request: Request) -> Box | None:
    value = request.query_params.get("box")
    if value is None:
        return None
    sides = value.split(",")
    if len(sides) != 4 or not all(re.fullmatch(r"-?\d{1,7}(\.\d{1,9})?", side, re.ASCII) for side in sides):
        raise UserError("box is not left,top,right,bottom")
    left, top, right, bottom = map(float, sides)
    return left, top, right, bottom


def _policy(page: str) -> str:
    """A browser runs the page's own script and style, by their digests, and loads nothing but answers from here."""
    own = {tag: re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("script", "style")}
    digests = {tag: " ".join(f"'sha256-{_sha256(text)}'" for text in texts) for tag, texts in own.items()}
    return (
        f"default-src 'none'; script-src {digests['script']}; style-src {digests['style']}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _mistake(request: Request, error: Exception) -> Response:
    return refusal(400, str(error), request.headers)


def _full(request: Request, error: Exception) -> Response:
    return refusal(503, "others are being served and the queue is full; try again in a second", request.headers, AGAIN)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = WORDS.get(error.status_code, error.detail)
    return refusal(error.status_code, words, request.headers, dict(error.headers or {}))


def _crash(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer, and uvicorn prints it."""
    return refusal(500, "this went wrong in the server; the terminal that it was started in says how", request.headers)
