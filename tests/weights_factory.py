"""Small files in the place of weights that are not ours, under the names, sizes and digests that the table then has."""

import hashlib

import torch

from mscgan import weights


def put(monkeypatch, folder, name: str, state: object, **row: object) -> None:
    """Writes `state` as the file of the weights `name` into `folder`, which becomes the folder of weights, and tells
    the table its size and digest; `row` gives other values for it."""
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(folder))
    file = folder / weights.TABLE[name].file
    torch.save(state, file)
    expect(monkeypatch, name, file.read_bytes(), **row)


def expect(monkeypatch, name: str, content: bytes, **row: object) -> None:
    """Lets the table say that `content` is the file of the weights `name`."""
    truth = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | row
    monkeypatch.setitem(weights.TABLE, name, weights.TABLE[name]._replace(**truth))
