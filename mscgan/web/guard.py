"""Whom the server answers, how often, and how much it reads of what is sent.

It listens on this machine alone, and yet any page that is open in a browser here can send requests to it, under its own
name (CSRF) or under a name that its owner points at 127.0.0.1 (DNS rebinding). So the host has to be a name of this
machine, and the origin, which browsers add to what a page sends, has to be the page that came from here. There are no
CORS headers: other origins can read no answer.
"""

import asyncio
import re
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII)  # any port: ssh -L may give another
RATE = 40.0  # requests a second; a joint that is dragged asks for at most 25
BURST = 120.0  # requests at once
SECONDS = 30.0  # that a request may take to be sent
SENT_AS = ("application/json", "application/octet-stream")  # kinds that no form of another page can send

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def refusal(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Why not, in words. The connection ends with it, so that nothing more of the request is read."""
    return JSONResponse({"error": why}, status, {"Connection": "close"} | (headers or {}))


def guard(app: ASGIApp, policy: str, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """The app behind these rules.

    Args:
        policy: the Content-Security-Policy of every answer.
        clock: seconds, from any start.
    """
    left, before = BURST, clock()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal left, before
        if scope["type"] != "http":
            return await app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS | {"Content-Security-Policy": policy})
            await send(message)

        refused = _stranger(scope["method"], Headers(scope=scope))
        if refused is None:
            now = clock()
            left, before = min(BURST, left + RATE * (now - before)), now
            if left >= 1:
                left -= 1
            else:
                refused = refusal(429, "too many requests in a short time; wait a second", {"Retry-After": "1"})
        await (refused or app)(scope, receive, send_with_headers)

    return guarded


def _stranger(method: str, headers: Headers) -> JSONResponse | None:
    """The refusal of a request that another page sent, or of one to another name; a link to the page is none."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if len(headers.getlist("host")) != 1 or not HOST.fullmatch(host):
        return refusal(403, "this server answers to localhost and 127.0.0.1 alone; open it under one of these")
    linked = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    near = headers.get("sec-fetch-site", "none") in ("same-origin", "none")  # browsers say it, other programs do not
    if origin not in (None, f"http://{host}") or not (near or linked):
        return refusal(403, "another page sent this request; only the page of this server may")
    if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() not in SENT_AS:
        return refusal(415, f"send the content as {' or '.join(SENT_AS)}, as the page does")
    return None


async def read_body(request: Request, most: int) -> bytes:
    """What is sent, of at most `most` bytes; of more nothing else is read.

    Raises:
        HTTPException: it is larger (413), takes too long (408), or its sender has left (400).
    """
    too_large = HTTPException(413, f"this is larger than {most / 2**20:g} MB, the most that is read; send it smaller")
    told = request.headers.get("content-length", "0")
    if not told.isdecimal() or int(told[:20]) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise HTTPException(408, f"this took more than {SECONDS:g} seconds to arrive; send it again") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the sender left before all had arrived") from error
    return bytes(body)
