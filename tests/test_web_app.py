"""The server of the page, as programs that mean no good would use it: each gets its error in words, and it lives on."""

import base64
import io
import json
import logging
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from mscgan.errors import UserError
from mscgan.pictures import to_uint8
from mscgan.trained import Trained
from mscgan.web import app, guard, studio
from tests.web_factory import ask, photograph, served, two_people, write_studio

PAGE = Path(studio.__file__).with_name("page.html").read_text()
STANDING = studio._standing(64, 32)
FRAME = base64.b64encode(photograph(64, 32)).decode()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return write_studio(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def address(opened):
    with served(opened) as address:
        yield address


@pytest.fixture(autouse=True)
def unlimited(monkeypatch, request):
    """No test waits because another asked much; the tests of the rate itself want it as it is."""
    if "rated" not in request.fixturenames:
        monkeypatch.setattr(guard, "RATE", 1e9)


@pytest.fixture
def rated():
    """Marks the tests of the rate."""


def wanted(image: str = FRAME, keypoints: object = STANDING) -> bytes:
    return json.dumps({"image": image, "keypoints": keypoints}).encode()


def pixels(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.array(picture.convert("RGB"))


def lives(address: str) -> None:
    """A picture is made."""
    status, made = ask(address, "images", wanted())
    assert (status, [one["title"] for one in made["images"]]) == (200, ["stage I", "stage II"])


def test_the_pictures_are_those_of_the_run_and_the_last_is_its_answer(address, opened):
    status, made = ask(address, "images", wanted())
    x = np.array(Image.open(io.BytesIO(base64.b64decode(FRAME))))
    expected = opened.trained.images(torch.from_numpy(x)[None], torch.tensor([STANDING]))
    assert status == 200 and made["milliseconds"] > 0
    for one, (title, image) in zip(made["images"], expected.items(), strict=True):
        assert one["title"] == title
        assert abs(pixels(one["image"]).astype(int) - to_uint8(image)[0]).max() <= 1  # other threads round otherwise


def test_a_photograph_comes_back_as_the_frame_around_the_largest_person_or_the_one_asked_for(address):
    status, found = ask(address, "photo?person=0", photograph(300, 400))
    assert (status, found["people"], found["size"]) == (200, 2, [400, 300])
    assert pixels(found["image"]).shape == (64, 32, 3) and pixels(found["shown"]).shape == (640, 320, 3)
    large, small = np.array(found["keypoints"]), ask(address, "photo?person=1", photograph(300, 400))[1]
    assert found["box"][0] > 150 > small["box"][0]  # the large one is at the right
    assert (large >= 0).all() and large[:, 1].min() == pytest.approx(0.08 * 64, abs=1)  # Market's margin


def test_a_photograph_of_the_models_size_is_taken_as_it_is(address):
    status, found = ask(address, "photo", photograph(64, 32))
    assert (status, found["box"]) == (200, [0, 0, 32, 64])
    with Image.open(io.BytesIO(photograph(64, 32))) as picture:
        assert (pixels(found["image"]) == np.array(picture)).all()


def test_a_box_says_which_part_of_the_photograph_is_taken(address):
    status, found = ask(address, "photo?box=100,50,200,250", photograph(300, 400))
    assert (status, found["box"]) == (200, [100, 50, 200, 250])
    with Image.open(io.BytesIO(photograph(300, 400))) as picture:
        expected = np.array(picture.crop((100, 50, 200, 250)).resize((32, 64), Image.Resampling.BICUBIC))
    assert abs(pixels(found["image"]).astype(int) - expected).max() <= 1


def test_the_people_of_the_shards_come_each_person_once_before_any_twice(address, opened):
    status, first = ask(address, "people?from=0")
    assert status == 200 and len(first["people"]) == len(opened.shards) == 6
    persons = dict(zip(opened.shards.names, opened.shards.persons, strict=True))
    order = [persons[one["name"]] for one in first["people"]]
    assert len(set(order[:3])) == len(set(order[3:])) == 3
    number = opened.shards.names.index(first["people"][4]["name"])
    assert np.allclose(first["people"][4]["keypoints"], opened.shards.keypoints[number], atol=0.006)
    assert pixels(first["people"][4]["image"]).shape == (64, 32, 3)
    assert ask(address, "people?from=6") == (200, {"people": []})


def test_a_joint_of_a_file_in_the_outer_half_of_the_outermost_pixel_is_kept(address):
    points = [[31.7, 63.6], *STANDING[1:]]
    found = ask(address, "pose", json.dumps({"keypoints": points, "width": 32, "height": 64}).encode())[1]
    assert found["keypoints"][0] == [31, 63]
    assert ask(address, "images", wanted(keypoints=found["keypoints"]))[0] == 200


def test_a_pose_in_a_frame_of_its_own_moves_into_the_models(address):
    text = {"keypoints": [[2 * x + 0.5, 2 * y + 0.5] for x, y in STANDING], "width": 64, "height": 128}
    status, found = ask(address, "pose", json.dumps(text).encode())
    assert status == 200 and np.allclose(found["keypoints"], STANDING, atol=0.006)


def test_of_a_file_of_another_program_the_largest_person_is_taken_and_what_it_was_taken_for_is_said(address):
    large = [value for x, y in STANDING for value in (8 * x, 8 * y, 0.9)]
    small = [value for x, y in STANDING for value in (4 * x, 4 * y, 0.9)]
    text = {"version": 1.3, "people": [{"pose_keypoints_2d": small}, {"pose_keypoints_2d": large}]}
    status, found = ask(address, "pose", json.dumps(text).encode())
    alone = {"version": 1.3, "people": [{"pose_keypoints_2d": large}]}
    assert status == 200 and "OpenPose" in found["note"]
    assert found == ask(address, "pose", json.dumps(alone).encode())[1]
    status, said = ask(address, "pose", b'{"people": []}')
    assert status == 400 and "nobody" in said["error"]


def test_a_missing_estimator_and_missing_shards_are_said_and_photographs_still_come(opened):
    without = replace(opened, estimator=None, no_estimator="bring it", shards=None, no_shards="they are gone")
    with served(without) as address:
        facts = ask(address, "facts")[1]
        assert (facts["no_estimator"], facts["people"]) == ("bring it", 0)
        assert ask(address, "people") == (400, {"error": "they are gone"})
        status, found = ask(address, "photo", photograph(300, 400))
        assert (status, found["people"], found["keypoints"]) == (200, 0, None)
        assert found["box"] == [0, -250, 400, 550]  # the whole picture, in the middle
        lives(address)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose head tells of so many grey pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BOMB = png(60_000, 60_000, zlib.compress(b"\0" * 10_000_000))
HOSTILE = {
    "nothing": (b"", "empty"),
    "a text": (b"#!/bin/sh\nrm -rf /\n", "no picture of a known kind"),
    "a page": (b"<html><script>alert(1)</script>", "no picture of a known kind"),
    "a picture of instructions": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture of a known kind"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no picture of a known kind"),
    "a pickle": (b"\x80\x04cposix\nsystem\n(S'touch /tmp/x'\ntR.", "no picture of a known kind"),
    "half a PNG": (photograph()[:2000], "cannot be decoded"),
    "half a JPEG": (photograph(kind="JPEG")[:2000], "cannot be decoded"),
    "a bomb": (BOMB, "are the most"),
    "a head without pixels": (png(32, 64), "cannot be decoded"),
    "a path": (b"../../../../etc/passwd", "no picture of a known kind"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_whole_picture_gets_a_sentence_and_the_server_lives_on(address, kind):
    data, words = HOSTILE[kind]
    status, said = ask(address, "photo", data)
    assert status == 400 and words in said["error"]
    assert len(said["error"]) < 400 and "\n" not in said["error"] and "passwd" not in said["error"]
    status, said = ask(address, "images", wanted(base64.b64encode(data).decode()))
    assert status == 400 and words in said["error"]
    lives(address)


def test_a_picture_that_is_an_archive_too_is_a_picture_and_nothing_else_comes_back_of_it(address):
    zipped = photograph(64, 32) + b"PK\x03\x04<script>alert(1)</script>"
    status, found = ask(address, "photo", zipped)
    assert status == 200 and b"PK\x03\x04" not in base64.b64decode(found["image"].partition(",")[2])
    assert b"script" not in base64.b64decode(found["shown"].partition(",")[2])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b"[]", "expected"),
        (wanted(image=None), "expected"),
        (wanted(image="a*b"), "not base64"),
        (wanted(image="ä"), "not base64"),
        (wanted(keypoints=None), "the keypoints are no list of 18"),
        (wanted(keypoints=STANDING[:17]), "the keypoints are no list of 18"),
        (wanted(keypoints=STANDING[:17] + [[1, float("nan")]]), "the left ear is no point"),
        (wanted(keypoints=STANDING[:17] + [[1, 10**400]]), "the left ear is no point"),
        (wanted(keypoints=STANDING[:17] + [["1", "2"]]), "the left ear is no point"),
        (wanted(keypoints=STANDING[:17] + [[32, 5]]), "the left ear is no point"),
        (wanted(keypoints=STANDING[:17] + [[-1, 5]]), "the left ear is no point"),
        (wanted(keypoints=STANDING[:17] + [[True, 5]]), "the left ear is no point"),
        (wanted(keypoints=STANDING[:17] + [[1, 2, 3]]), "the left ear is no point"),
        (wanted(keypoints=[[-1, -1]] * 18), "every joint is missing"),
        (wanted(image=base64.b64encode(photograph(65, 32)).decode()), "images are (65, 32, 3)"),
    ],
)  # fmt: skip
def test_what_is_no_picture_and_pose_gets_a_sentence(address, body, words):
    status, said = ask(address, "images", body, Content_Type="application/json")
    assert status == 400 and words in said["error"]


@pytest.mark.parametrize(
    "text", [b"/etc/passwd", b'"/etc/passwd"', b"../run/config.yaml", b"pose.json", b'{"$ref": 1}']
)
def test_a_pose_that_is_a_files_name_is_no_pose_and_the_file_is_not_read(address, text, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", opened)
    status, said = ask(address, "pose", text)
    assert status == 400 and "root:" not in said["error"]


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.html", "/config.yaml", "//etc/passwd", "/static/../x",
     "/photo/../../../etc/passwd", "/people/../config.yaml", "/.", "/\\..\\x", "/people%00"],
)  # fmt: skip
def test_no_file_is_served_under_any_name(address, path):
    status, said = ask(address, path)
    assert (status, said["error"]) == (404, "there is nothing at this address; the page is at /")


@pytest.mark.parametrize(
    "query", ["from=-1", "from=x", "from=1e3", "from=9999999999", "from=../1", "from=%F0%9F%98%80"]
)
def test_people_are_asked_for_by_a_number(address, query):
    assert ask(address, f"people?{query}") == (400, {"error": "from is not a whole number from 0 on"})


@pytest.mark.parametrize(
    "box", ["1,2,3", "a,b,c,d", "nan,0,1,1", "0,0,inf,1", "5,5,5,9", "9,9,1,1", "0,0,9999999,9999999", "0,0,.1,.1", "",
            "-900,-900,-800,-800", "1e3,0,2,2"],
)  # fmt: skip
def test_a_box_that_is_none_gets_a_sentence(address, box):
    status, said = ask(address, f"photo?box={box}", photograph())
    assert status == 400 and "box" in said["error"]


def raw(address: str, request: bytes) -> bytes:
    """What comes back for these bytes, to the end of the connection."""
    with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "POST"])
@pytest.mark.parametrize("path", ["/", "/facts", "/people", "/photo", "/images"])
def test_another_method_is_refused_in_words_and_allows_nothing_to_other_origins(address, method, path):
    if method == "POST" and path in ("/photo", "/images"):
        path = "/"
    kind = "Content-Type: application/json\r\nContent-Length: 0\r\nConnection: close\r\n"
    came = raw(address, f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\n{kind}\r\n".encode())
    assert came.startswith(b"HTTP/1.1 405 ") and b"does not take such a request" in came
    assert b"access-control" not in came.lower()


@pytest.mark.parametrize("told", [True, False], ids=["told", "in chunks"])
def test_of_a_gigabyte_only_the_beginning_is_read(address, told, monkeypatch):
    monkeypatch.setattr(studio, "MOST_PHOTO", 1 << 20)  # or else the machine's buffers would decide
    length = b"Content-Length: 1073741824" if told else b"Transfer-Encoding: chunked"
    host = urlsplit(address).netloc.encode()
    head = b"POST /photo HTTP/1.1\r\nHost: %b\r\nContent-Type: application/octet-stream\r\n%b\r\n\r\n" % (host, length)
    part, sent = b"\0" * 65536, 0
    with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=20) as connection:
        connection.sendall(head)
        try:
            while sent < 1 << 30:
                connection.sendall(part if told else b"10000\r\n%b\r\n" % part)
                sent += len(part)
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert sent < 64 << 20
    lives(address)


def test_what_is_told_to_be_too_large_is_refused_before_it_is_sent(address):
    head = f"POST /photo HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\nContent-Type: application/octet-stream\r\n"
    came = raw(address, f"{head}Content-Length: 1073741824\r\n\r\n".encode())
    assert came.startswith(b"HTTP/1.1 413 ") and b"larger than 32 MB" in came


def test_who_sends_too_slowly_gives_its_place_back(address, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 0.3)
    host = urlsplit(address).netloc
    kind = "Content-Type: application/json\r\nContent-Length: 100"
    came = raw(address, f"POST /images HTTP/1.1\r\nHost: {host}\r\n{kind}\r\n\r\n{{".encode())
    assert came.startswith(b"HTTP/1.1 408 ") and b"seconds to arrive" in came
    lives(address)


def test_one_request_computes_at_a_time_and_those_beyond_the_queue_are_refused_in_words(opened, monkeypatch):
    computing, most, finish = [], [], threading.Event()

    def estimator(image):
        computing.append(1)
        most.append(len(computing))
        finish.wait(20)
        computing.pop()
        return two_people(image)

    with served(replace(opened, estimator=estimator)) as address, ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(ask, address, "photo", photograph(64, 32)) for _ in range(12)]
        end = time.monotonic() + 20
        while sum(answer.done() for answer in answers) < 12 - app.PLACES and time.monotonic() < end:
            time.sleep(0.02)
        finish.set()
        count = Counter(answer.result()[0] for answer in answers)
        words = {json.dumps(answer.result()[1]) for answer in answers if answer.result()[0] == 503}
        assert count == {200: app.PLACES, 503: 12 - app.PLACES} and set(most) == {1}
        assert words == {'{"error": "others are being served and the queue is full; try again in a second"}'}
        lives(address)


def test_who_is_refused_while_still_sending_a_photograph_reads_why(opened, monkeypatch):
    monkeypatch.setattr(app, "PLACES", 0)
    with served(opened) as address:  # a browser, too, sends all before it reads
        status, said = ask(address, "photo", photograph() + b"\0" * (24 << 20))
    assert status == 503 and "the queue is full" in said["error"]


def test_after_a_thousand_requests_most_of_which_were_refused_the_page_lives_on(address, rated):
    def one(number):
        return ask(address, *(("images", wanted()) if number % 2 else ("photo", BOMB)))

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(one, range(1000)))
    count = Counter(status for status, _ in answers)
    assert set(count) <= {200, 400, 429, 503} and sum(count.values()) == 1000 and count[429] > 100
    assert all(said["error"] for status, said in answers if status != 200)
    time.sleep(1.1)
    lives(address)


def test_an_error_of_our_own_is_said_on_the_page_and_the_server_lives_on(address, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [caplog.handler])
    with monkeypatch.context() as patch:
        patch.setattr(Trained, "images", lambda *_: 1 / 0)
        status, said = ask(address, "images", wanted())
    assert (status, said["error"]) == (
        500,
        "this went wrong in the server; the terminal that it was started in says how",
    )
    end = time.monotonic() + 10  # it is logged after the answer
    while "ZeroDivisionError" not in caplog.text and time.monotonic() < end:
        time.sleep(0.02)
    assert "ZeroDivisionError" in caplog.text
    lives(address)


def test_a_network_that_makes_no_picture_is_found_before_the_page_is_open(opened):
    weights = {name: value.clone() for name, value in opened.trained.networks.state_dict().items()}
    broken = {name: value * float("nan") if value.is_floating_point() else value for name, value in weights.items()}
    opened.trained.networks.load_state_dict(broken)
    try:
        with pytest.raises(UserError, match="NaN"):
            studio.warm_up(opened)
    finally:
        opened.trained.networks.load_state_dict(weights)


def test_the_policy_lets_the_pages_own_script_and_style_run_and_nothing_else(address):
    host = urlsplit(address).netloc
    came = raw(address, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()).decode()
    head, _, body = came.partition("\r\n\r\n")
    policy = re.search(r"content-security-policy: (.*)", head)[1].strip()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert body == PAGE and "unsafe" not in policy and "*" not in policy and "http" not in policy
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["connect-src"] == "'self'" and rules["script-src"].startswith("'sha256-")
    assert not re.search(
        r"""(src|href)=["'](?!#|data:)|url\(|@import|\son\w+=|style=|\bimport\b|eval\(|innerHTML""", body
    )
