"""Whom the server answers, how often, and how much it reads of what is sent.

It listens on this machine alone, and yet any page that is open in a browser here can send requests to it, under its own
name (CSRF) or under a name that its owner points at 127.0.0.1 (DNS rebinding). So the host has to be a name of this
machine, and the origin, which browsers add to what a page sends, has to be the page that came from here. There are no
CORS headers: other origins can read no answer.
"""

import asyncio
import math
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
MOST_UNREAD = 32 << 20  # bytes of a refused request
SENT_AS = ("application/json", "application/octet-stream")  # kinds that no form of another page can send

AGAIN = {"Retry-After": "1"}  # seconds
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def refusal(status: int, why: str, asked: Headers, more: dict[str, str] | None = None) -> JSONResponse:
    """Why not, in words.

    A browser reads no answer before it has sent all, and loses it where the connection ends meanwhile. So what is
    still to come is read and thrown away, where it is told to be little; of more nothing is read, and the connection
    ends.

    Args:
        asked: the headers of the request.
        more: headers of the answer.
    """
    little = _told(asked) <= MOST_UNREAD
    return JSONResponse({"error": why}, status, ({} if little else {"Connection": "close"}) | (more or {}))


def _told(headers: Headers) -> float:
    """How many bytes the request is said to have."""
    told = headers.get("content-length", "0")
    return int(told[:20]) if told.isdecimal() and "transfer-encoding" not in headers else math.inf


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

        headers = Headers(scope=scope)
        refused = _stranger(scope["method"], headers)
        if refused is None:
            now = clock()
            left, before = min(BURST, left + RATE * (now - before)), now
            if left >= 1:
                left -= 1
            else:
                refused = refusal(429, "too many requests in a short time; wait a second", headers, AGAIN)
        await (refused or app)(scope, receive, send_with_headers)

    return guarded


def _stranger(method: str, headers: Headers) -> JSONResponse | None:
    """The refusal of a request that another page sent, or of one to another name; a link to the page is none."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if len(headers.getlist("host")) != 1 or not HOST.fullmatch(host):
        return refusal(403, "this server answers to localhost and 127.0.0.1 alone; open it under one of these", headers)
    linked = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    near = headers.get("sec-fetch-site", "none") in ("same-origin", "none")  # browsers say it, other programs do not
    if origin not in (None, f"http://{host}") or not (near or linked):
        return refusal(403, "another page sent this request; only the page of this server may", headers)
    if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() not in SENT_AS:
        return refusal(415, f"send the content as {' or '.join(SENT_AS)}, as the page does", headers)
    return None


async def read_body(request: Request, most: int) -> bytes:
    """What is sent, of at most `most` bytes; of more nothing else is read.

    Raises:
        HTTPException: it is larger (413), takes too long (408), or its sender has left (400).
    """
    too_large = HTTPException(413, f"this is larger than {most / 2**20:g} MB, the most that is read; send it smaller")
    if "content-length" in request.headers and _told(request.headers) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        why = f"this took more than {SECONDS:g} seconds to arrive; send it again"
        raise HTTPException(408, why, {"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the sender left before all had arrived") from error
    return bytes(body)
