"""Whom the server of the page answers: by host, origin, kind and rate, without a server."""

import asyncio
import json

import pytest
from starlette.responses import JSONResponse

from mscgan.web.guard import BURST, RATE, guard

HERE = "127.0.0.1:8008"
KIND = {"content-type": "application/json"}
OWN = {"origin": f"http://{HERE}", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"} | KIND


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(guarded, method: str, headers: dict[str, str], more: tuple = ()) -> tuple[int, dict, dict]:
    """Status, headers and content of what comes back; `more` are further headers, of a name that is there already."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    listed = [(name.encode(), value.encode()) for name, value in (*headers.items(), *more)]
    scope = {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": listed}
    asyncio.run(guarded(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guarded(clock):
    return guard(JSONResponse({"answer": 42}), "default-src 'none'", clock)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"host": HERE}),
        ("GET", {"host": "localhost:8008"}),
        ("GET", {"host": "localhost"}),  # port 80 of another machine, by ssh -L
        ("GET", {"host": "[::1]:9000"}),
        ("GET", {"host": HERE, "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        ("GET", {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),  # a link to the page
        ("GET", {"host": HERE, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}),
        ("POST", {"host": HERE} | KIND),  # curl
        ("POST", {"host": HERE} | OWN),
        ("POST", {"host": "localhost:9000"} | OWN | {"origin": "http://localhost:9000"}),
        ("POST", {"host": HERE} | OWN | {"content-type": "Application/JSON; charset=utf-8"}),
    ],
)
def test_the_page_itself_and_programs_of_this_machine_are_answered(guarded, method, headers):
    assert answer(guarded, method, headers)[::2] == (200, {"answer": 42})


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", {"host": ""}),
        ("GET", {"host": "evil.example:8008"}),  # a name that its owner points at 127.0.0.1
        ("GET", {"host": "127.0.0.1.evil.example"}),
        ("GET", {"host": "evil.example@127.0.0.1"}),
        ("GET", {"host": "localhost:8008.evil.example"}),
        ("GET", {"host": "127.0.0.1:8008\n"}),
        ("GET", {"host": "0.0.0.0:8008"}),
        ("GET", {"host": "127.0.0.1:८"}),
        ("GET", {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),  # <img src=…>
        ("GET", {"host": HERE, "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}),
        ("POST", {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"} | KIND),  # a form
        ("POST", {"host": HERE} | OWN | {"origin": "http://evil.example"}),
        ("POST", {"host": HERE} | OWN | {"origin": "null"}),
        ("POST", {"host": HERE} | OWN | {"origin": ""}),
        ("POST", {"host": HERE} | OWN | {"origin": f"https://{HERE}"}),
        ("POST", {"host": HERE} | OWN | {"origin": "http://127.0.0.1:8888"}),  # another server of this machine
        ("POST", {"host": HERE} | OWN | {"origin": "http://localhost:8008"}),
        ("POST", {"host": "evil.example"} | OWN | {"origin": "http://evil.example"}),
        ("POST", {"host": HERE} | OWN | {"sec-fetch-site": "same-site"}),
        ("OPTIONS", {"host": HERE, "origin": "http://evil.example", "access-control-request-method": "POST"}),
    ],
)
def test_another_page_and_another_name_are_refused_in_words_that_allow_no_other_origin(guarded, method, headers):
    status, came, said = answer(guarded, method, headers)
    assert status == 403 and list(said) == ["error"] and len(said["error"]) > 30
    assert not any(name.startswith(b"access-control") for name in came)


def test_two_hosts_are_none(guarded):
    assert answer(guarded, "GET", {"host": HERE}, (("host", "evil.example"),))[0] == 403


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
)
def test_what_a_form_of_another_page_can_send_is_refused(guarded, kind):
    status, _, said = answer(guarded, "POST", {"host": HERE, "content-type": kind})
    assert status == 415 and "application/octet-stream" in said["error"]


def test_more_requests_than_the_rate_are_refused_until_time_has_passed(guarded, clock):
    def asked(times):
        return [answer(guarded, "GET", {"host": HERE})[0] for _ in range(times)]

    assert asked(int(BURST) + 3) == [200] * int(BURST) + [429] * 3
    clock.now += 1
    assert asked(int(RATE) + 3) == [200] * int(RATE) + [429] * 3
    clock.now += 3600
    assert asked(int(BURST) + 1)[-2:] == [200, 429]


def test_a_flood_of_another_page_takes_nothing_of_the_rate(guarded):
    for _ in range(2 * int(BURST)):
        assert answer(guarded, "POST", {"host": HERE} | OWN | {"origin": "http://evil.example"})[0] == 403
    assert answer(guarded, "POST", {"host": HERE} | OWN)[0] == 200


def test_every_answer_says_that_it_is_not_to_be_kept_framed_or_guessed_at(guarded):
    for headers in ({"host": HERE}, {"host": "evil.example"}):
        _, came, _ = answer(guarded, "GET", headers)
        assert came[b"content-security-policy"] == b"default-src 'none'" and came[b"cache-control"] == b"no-store"
        assert came[b"x-frame-options"] == b"DENY" and came[b"x-content-type-options"] == b"nosniff"
        assert came[b"cross-origin-resource-policy"] == b"same-origin"
