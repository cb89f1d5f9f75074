"""A run with people beside it and an estimator, as the page's server holds them, for tests of mscgan/web."""

import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from mscgan import trained
from mscgan.data.read import open_shards
from mscgan.estimators import Person
from mscgan.web.app import server
from mscgan.web.studio import STANDING, Studio
from tests.run_factory import write_run


def photograph(height: int = 300, width: int = 400, kind: str = "PNG", seed: int = 1) -> bytes:
    """A picture file of smooth random colours."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def two_people(pixels: np.ndarray) -> list[Person]:
    """Finds, in any picture, a small person at its left who is surer than the large one at its right."""
    height, width = pixels.shape[:2]
    small, large = (
        (np.array(STANDING) * size * height + [middle * width, 0.1 * height]).astype(np.float32)
        for middle, size in ((0.25, 0.4), (0.7, 0.8))
    )
    sure = np.ones(18, np.float32)
    return [Person(small, sure, 0.9), Person(large, sure, 0.8)]


def write_studio(folder: Path, **changes) -> Studio:
    """Of an untrained narrow run of the demo's size, with 3 people of 2 images a split."""
    run = write_run(folder, persons=3, views=2)
    model = trained.load(run)
    shards = open_shards(model.config.data, "test")
    return Studio(**{"name": "run", "trained": model, "estimator": two_people, "no_estimator": "", "shards": shards,
                     "no_shards": ""} | changes)  # fmt: skip


@contextmanager
def served(studio: Studio) -> Iterator[str]:
    """The server as the command sets it up, in a thread; the address of its page."""
    with socket.create_server(("127.0.0.1", 0)) as listening:  # who connects before the server is there, waits
        serving = server(studio)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            serving.should_exit = True
            thread.join(20)


def ask(address: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict]:
    """The status of a GET, or of a POST where there is a body, and the JSON that came. A header's _ is written -."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    headers = {"Content-Type": "application/octet-stream"} | {key.replace("_", "-"): v for key, v in headers.items()}
    path = path if path.startswith("/") else f"/{path}"
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text)
