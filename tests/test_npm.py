"""Files out of npm packages, from registries on this machine: a folder behind HTTP, and an `npm` that is a script."""

import functools
import gzip
import http.server
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from mscgan import npm
from mscgan.download import Unreachable
from mscgan.errors import UserError
from mscgan.npm import read_package

NAMES = ["models/a.json", "models/a.bin"]


def package(*members: tuple[str, bytes | tarfile.TarInfo]) -> bytes:
    """A .tgz of files, or of other members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


WHOLE = package(
    ("package/models/b.bin", b"other"),
    ("package/models/a.bin", b"numbers"),
    ("package/../../evil", b"not unpacked"),
    ("package/models/a.json", b"graph"),
)


@pytest.fixture
def no_npm(monkeypatch):
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The folder of a registry on this machine, which npm_config_registry names."""
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "www/@some/thing/-").mkdir(parents=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{running.server_port}/")
        yield tmp_path / "www/@some/thing/-/thing-1.2.3.tgz"
        running.shutdown()


def fake_npm(monkeypatch, folder: Path, script: str) -> None:
    """An `npm` that does this; $3 is the folder's option, $4 the folder."""
    (folder / "bin").mkdir()
    (folder / "bin/npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin/npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_npm_packs_where_it_is_there(monkeypatch, tmp_path):
    (tmp_path / "whole.tgz").write_bytes(WHOLE)
    copy = f'test "$3" = --pack-destination && cp {tmp_path}/whole.tgz "$4/some-thing-1.2.3.tgz"'
    fake_npm(monkeypatch, tmp_path, f'echo "$@" > {tmp_path}/called; {copy}')
    monkeypatch.setattr(npm, "download", lambda *_: pytest.fail("not asked of npm"))
    assert read_package("@some/thing@1.2.3", NAMES) == [b"graph", b"numbers"]
    called = (tmp_path / "called").read_text()
    assert called.startswith("pack @some/thing@1.2.3 ") and "--ignore-scripts" in called


def test_what_npm_says_is_said(monkeypatch, tmp_path):
    fake_npm(monkeypatch, tmp_path, "echo 'npm error code E404' >&2; exit 1")
    with pytest.raises(Unreachable, match="`npm pack a@1` failed .npm error code E404"):
        read_package("a@1", NAMES)


def test_an_npm_that_hangs_is_given_up(monkeypatch, tmp_path):
    fake_npm(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(npm, "SECONDS", 0.5)
    with pytest.raises(Unreachable, match="did not end within 0.5 s"):
        read_package("a@1", NAMES)


def test_without_npm_the_registry_is_asked_and_nothing_else_is_unpacked(no_npm, registry, monkeypatch, tmp_path):
    registry.write_bytes(WHOLE)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(npm.tempfile, "tempdir", str(temporary))
    assert read_package("@some/thing@1.2.3", reversed(NAMES)) == [b"numbers", b"graph"]
    assert not (tmp_path / "evil").exists() and not list(temporary.iterdir())
    with pytest.raises(Unreachable, match="thing-1.2.4.tgz .*404"):
        read_package("@some/thing@1.2.4", NAMES)


def test_without_a_registry_of_ones_own_it_is_npms_default(no_npm, monkeypatch):
    asked = []

    def not_there(url, *_):
        asked.append(url)
        raise Unreachable("no network")

    monkeypatch.setattr(npm, "download", not_there)
    for variable in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(variable, raising=False)
    for name in ("@some/thing@1.2.3", "thing@1.2.3"):
        with pytest.raises(Unreachable):
            read_package(name, NAMES)
    assert asked == [
        "https://registry.npmjs.org/@some/thing/-/thing-1.2.3.tgz",
        "https://registry.npmjs.org/thing/-/thing-1.2.3.tgz",
    ]


def link(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
    return member


@pytest.mark.parametrize(
    "content, message",
    [
        (package(("package/models/a.bin", b"numbers")), "@some/thing@1.2.3 holds no models/a.json"),
        (package(("package/x/models/a.bin", b""), ("models/a.json", b"")), "no models/a.json and no models/a.bin"),
        (package(("", link("package/models/a.json")), ("package/models/a.bin", b"")), "holds no models/a.json"),
        (WHOLE[:60], "damaged or no npm package"),
        (b"<html>", "damaged or no npm package"),
        (gzip.compress(b"no tar" * 1000), "damaged or no npm package"),
        (package(("package/models/a.bin", bytes(3000))), "unpacks to more than 2,000 bytes"),
        (bytes(20_000), "20,000 bytes or more, where 10,000 are the most"),
    ],
    ids=["one is missing", "elsewhere", "a link", "cut", "a page", "no tar", "a bomb", "too large"],
)
def test_what_is_not_the_package_is_refused(no_npm, registry, monkeypatch, content, message):
    registry.write_bytes(content)
    monkeypatch.setattr(npm, "LARGEST", 10_000)
    monkeypatch.setattr(npm, "UNPACKED", 2_000)
    with pytest.raises(UserError, match=message):
        read_package("@some/thing@1.2.3", NAMES)
