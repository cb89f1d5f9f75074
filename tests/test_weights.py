"""The folder of weights: what is loaded from it and what is refused, and downloads from a server on this machine."""

import functools
import hashlib
import http.server
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mscgan import weights
from mscgan.download import Unreachable
from mscgan.errors import UserError
from mscgan.metrics import Unavailable
from mscgan.movenet.published import to_safetensors
from tests.weights_factory import expect, put

ROOT = Path(__file__).resolve().parents[1]
STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine; what lies in the folder it gives is under its address."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield tmp_path / "www", f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_every_row_is_complete_and_its_name_has_the_first_digits_of_its_digest():
    assert list(weights.TABLE) == ["inception-fid", "inception-imagenet", "alexnet", "vgg19", "paf", "movenet"]
    for name, row in weights.TABLE.items():
        if name == "movenet":
            assert re.fullmatch("npm:@[a-z]+/[a-z]+@[0-9.]+", row.url) and len(row.parts) == 2
            assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in [row.sha256, *row.parts.values()])
            continue
        assert re.fullmatch("[0-9a-f]{64}", row.sha256) and row.url.startswith("https://") and row.use and row.terms
        assert row.url.endswith("/" + row.file) and 50e6 < row.size < 1e9
        assert name == "paf" or row.file.endswith(f"-{row.sha256[:8]}.pth")


def test_the_folder_is_the_variables_or_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MSCGAN_WEIGHTS", "/elsewhere")
    assert weights.folder() == Path("/elsewhere")
    monkeypatch.delenv("MSCGAN_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.folder() == tmp_path / "mscgan/weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.folder() == Path.home() / ".cache/mscgan/weights"


def test_a_missing_file_is_named_with_its_folder_and_both_ways_to_get_it(folder):
    with pytest.raises(weights.Missing) as missing:
        weights.load("alexnet")
    for part in ("alexnet-owt-7be5be79.pth", str(folder), "python -m mscgan.weights fetch alexnet", "by hand"):
        assert part in str(missing.value)
    assert isinstance(missing.value, Unavailable)
    with pytest.raises(UserError, match="no weights are called 'alexnett'; choose from inception-fid, "):
        weights.path("alexnett")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_copied_there_by_hand_is_loaded(folder, monkeypatch, zipped):
    file = folder / weights.TABLE["alexnet"].file
    torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    expect(monkeypatch, "alexnet", file.read_bytes())
    state, digest = weights.load("alexnet")
    assert state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_under_another_name_is_missing(folder, monkeypatch):
    put(monkeypatch, folder, "alexnet", STATE)
    (folder / weights.TABLE["alexnet"].file).rename(folder / "alexnet.pth")
    with pytest.raises(weights.Missing, match="no alexnet-owt-7be5be79.pth in"):
        weights.load("alexnet")


def test_a_safetensors_of_the_same_stem_is_loaded_and_said_to_be_unverified(folder, capsys):
    file = folder / "alexnet-owt-7be5be79.safetensors"
    safetensors.torch.save_file(STATE, file)
    state, digest = weights.load("alexnet")
    assert torch.equal(state["conv.weight"], STATE["conv.weight"])
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"{file} has no published digest" in capsys.readouterr().err
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be loaded as weights alone"):
        weights.load("alexnet")


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty", "folder"])
def test_a_damaged_file_is_refused_and_not_taken_for_a_missing_one(folder, monkeypatch, damage):
    put(monkeypatch, folder, "alexnet", STATE)
    file = folder / weights.TABLE["alexnet"].file
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"cut": content[:100], "one bit": content, "empty": b""}[damage])
    with pytest.raises(UserError, match="plain file" if damage == "folder" else "damaged or another file") as refused:
        weights.load("alexnet")
    assert not isinstance(refused.value, Unavailable) and str(file) in str(refused.value)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("known", [False, True], ids=["by its digest", "by what it holds"])
def test_code_in_a_file_is_not_run(folder, monkeypatch, tmp_path, known):
    file, trace = folder / weights.TABLE["alexnet"].file, tmp_path / "trace"
    torch.save({"conv.weight": Malicious(trace)}, file)
    if known:
        expect(monkeypatch, "alexnet", file.read_bytes())
    with pytest.raises(UserError, match="cannot be loaded as weights alone" if known else "damaged or another"):
        weights.load("alexnet")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Malicious(trace)))
    assert trace.exists()  # it would have been seen


@pytest.mark.parametrize("state", [[torch.ones(2)], {"conv.weight": 3}, {"model": STATE}])
def test_what_holds_other_things_than_tensors_by_name_is_refused(folder, monkeypatch, state):
    put(monkeypatch, folder, "alexnet", state)
    with pytest.raises(UserError, match="other things than tensors by name"):
        weights.load("alexnet")


def test_fetch_verifies_what_came_and_leaves_a_verified_file_alone(server, monkeypatch, tmp_path):
    www, url = server
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path / "new/weights"))
    (www / "file.pth").write_bytes(b"w" * 3_000_000)
    expect(monkeypatch, "alexnet", b"w" * 3_000_000, url=f"{url}/file.pth")
    file = weights.fetch("alexnet")
    assert file == tmp_path / "new/weights/alexnet-owt-7be5be79.pth" and file.read_bytes() == b"w" * 3_000_000
    (www / "file.pth").unlink()
    assert weights.fetch("alexnet") == file  # nothing is asked of the server


def test_fetch_replaces_a_damaged_file(server, monkeypatch, folder, capsys):
    www, url = server
    (www / "file.pth").write_bytes(b"right")
    expect(monkeypatch, "alexnet", b"right", url=f"{url}/file.pth")
    (folder / weights.TABLE["alexnet"].file).write_bytes(b"wrong")
    assert weights.fetch("alexnet").read_bytes() == b"right"
    assert "fetching it anew" in capsys.readouterr().err


@pytest.mark.parametrize("came", [b"wrong", b"righ", b"right and more" * 200_000])
def test_what_is_another_file_is_not_kept(server, monkeypatch, folder, came):
    www, url = server
    (www / "file.pth").write_bytes(came)
    expect(monkeypatch, "alexnet", b"right", url=f"{url}/file.pth")
    with pytest.raises(UserError, match="what came from .* is not alexnet-owt-7be5be79.pth.*expected 5 bytes"):
        weights.fetch("alexnet")
    assert not list(folder.iterdir())


def test_without_a_network_fetch_says_so_in_a_line_and_what_to_do(server, monkeypatch, folder):
    with socket.socket() as closed:  # a port where nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/file.pth"
        expect(monkeypatch, "alexnet", b"right", url=address)
        with pytest.raises(UserError, match="cannot fetch .*refused.*copy alexnet-owt-7be5be79.pth to .* by hand"):
            weights.fetch("alexnet")
    expect(monkeypatch, "alexnet", b"right", url=f"{server[1]}/not-there.pth")
    with pytest.raises(UserError, match="cannot fetch .*404"):
        weights.fetch("alexnet")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ConnectionResetError])
def test_a_download_that_stops_leaves_nothing(monkeypatch, folder, stop):
    class Response:
        pieces = [b"half"]
        length = 8

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, _):
            assert list(folder.iterdir())  # it is on the disk under another name
            if not self.pieces:
                raise stop
            return self.pieces.pop()

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response())
    with pytest.raises(KeyboardInterrupt if stop is KeyboardInterrupt else UserError):
        weights.fetch("alexnet")
    assert not list(folder.iterdir())


def test_fetch_into_what_is_no_folder_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(UserError, match="no folder .*file .*MSCGAN_WEIGHTS"):
        weights.fetch("alexnet")


def test_check_names_what_is_verified_damaged_and_missing(folder, monkeypatch, capsys):
    put(monkeypatch, folder, "alexnet", STATE)
    safetensors.torch.save_file(STATE, folder / "vgg19-dcbb9e9d.safetensors")
    assert weights.check()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["alexnet"] == "verified" and lines["paf"] == "not there" and "no digest" in lines["vgg19"]
    (folder / weights.TABLE["paf"].file).write_bytes(b"no weights")
    assert not weights.check()
    assert "damaged or another file" in capsys.readouterr().out


def test_a_damaged_file_and_a_name_that_is_not_in_the_table_end_the_command_with_2(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["weights", "list"])
    assert weights.main() == 0
    listed = capsys.readouterr().out
    assert str(folder) in listed and all(name in listed and row.url in listed for name, row in weights.TABLE.items())
    monkeypatch.setattr(sys, "argv", ["weights", "fetch", "vgg-19"])
    with pytest.raises(SystemExit, match="2"):
        weights.main()
    (folder / weights.TABLE["vgg19"].file).write_bytes(b"no weights")
    command = [sys.executable, "-m", "mscgan.weights", "check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 2 and "vgg19-dcbb9e9d.pth is damaged" in checked.stdout


TEXT = json.dumps({"weightsManifest": [{"weights": [{"name": "a", "shape": [2], "dtype": "float32"}]}]}).encode()
NUMBERS = np.array([0.5, -2], "<f2").tobytes()


@pytest.fixture
def parts(folder, monkeypatch):
    """The files that MoveNet's weights are made of, small ones, which the table takes for the true ones."""
    names = list(weights.TABLE["movenet"].parts)
    digests = [hashlib.sha256(content).hexdigest() for content in (TEXT, NUMBERS)]
    expect(monkeypatch, "movenet", to_safetensors(TEXT, NUMBERS), parts=dict(zip(names, digests, strict=True)))
    return dict(zip(names, (TEXT, NUMBERS), strict=True))


def package_of(monkeypatch, files: dict[str, bytes]) -> list[str]:
    """Lets the npm package hold these; what is asked of it."""
    asked = []
    monkeypatch.setattr(
        weights, "read_package", lambda name, parts: asked.append(name) or [files[part] for part in parts]
    )
    return asked


def test_weights_out_of_an_npm_package_become_one_verified_file(parts, folder, monkeypatch, capsys):
    asked = package_of(monkeypatch, parts)
    with pytest.raises(weights.Missing, match="fetch movenet"):
        weights.load("movenet")
    file = weights.fetch("movenet")
    assert asked == ["@vladmandic/human@3.3.6"] and list(folder.iterdir()) == [file]
    state, digest = weights.load("movenet")
    assert state["a"].tolist() == [0.5, -2] and digest == weights.TABLE["movenet"].sha256
    assert weights.check() and re.search("movenet +verified", capsys.readouterr().out)
    assert weights.fetch("movenet") == file and len(asked) == 1
    weights.show()
    listed = capsys.readouterr().out
    assert all(f"made of {part}, sha256 {digest}" in listed for part, digest in weights.TABLE["movenet"].parts.items())
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged or another file"):
        weights.load("movenet")
    assert not weights.check()


def test_parts_that_were_copied_by_hand_need_no_package(parts, folder, monkeypatch):
    asked = package_of(monkeypatch, parts)
    for part, content in parts.items():
        (folder / Path(part).name).write_bytes(content)
    assert weights.fetch("movenet").exists() and not asked
    assert weights.load("movenet")[0]["a"].tolist() == [0.5, -2]


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_a_part_that_is_another_file_is_refused(parts, folder, monkeypatch, which, by_hand):
    wrong = list(parts)[which]
    parts[wrong] += b" "
    package_of(monkeypatch, parts)
    for part, content in parts.items() if by_hand else ():
        (folder / Path(part).name).write_bytes(content)
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=f"{Path(wrong).name} of .* is another file: its sha256 is .*, expected "):
        weights.fetch("movenet")
    assert sorted(folder.iterdir()) == before


def test_a_package_that_cannot_be_had_is_said_with_what_to_do(parts, folder, monkeypatch):
    def unreachable(*_):
        raise Unreachable("`npm pack` failed (no network)")

    monkeypatch.setattr(weights, "read_package", unreachable)
    expected = (
        f"failed .* copy movenet-lightning.safetensors to {folder} by hand, or models/movenet-lightning.json and "
    )
    with pytest.raises(UserError, match=expected):
        weights.fetch("movenet")
    assert not list(folder.iterdir())
