"""Weights that are not ours: `python -m mscgan.weights list|fetch NAME...|check`

Some scores and losses need networks that others trained. Their files lie in one folder: MSCGAN_WEIGHTS, else
mscgan/weights in the user's cache folder. `fetch` brings them there; a file that was copied there by hand under the
name of the table is as good, so a cluster without internet needs nothing more. A file is used only if its SHA-256 is
the one in the table, and no code that may lie in it is run (weights_only). MoveNet's file is made of two that lie in an
npm package (mscgan/npm.py): `fetch` takes them from the package, or from the folder where they were copied there.

A safetensors file of the same stem is taken where the table's own file is not there. It holds no code, but no digest
is published for it: whether its numbers are the right ones is for whoever converted it, and a line says so.
"""

import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mscgan import files
from mscgan.arguments import Parser
from mscgan.download import Unreachable, download
from mscgan.errors import DONE, MISTAKE, UserError, run, say
from mscgan.metrics import Unavailable
from mscgan.movenet.published import to_safetensors
from mscgan.npm import read_package


class Weights(NamedTuple):
    """A file of weights that is not ours."""

    file: str
    url: str  # or npm:PACKAGE@VERSION
    sha256: str
    size: int  # bytes
    use: str
    terms: str
    parts: Mapping[str, str] = MappingProxyType({})  # in the npm package: the files that it is made of, their SHA-256


# The digests are those that public projects that pin these files agree on, those of `movenet` that of what the package
# holds. For all but these and `paf` the first 8 digits are also in the file's name, where its publisher states them.
TABLE = {
    "inception-fid": Weights(
        file="weights-inception-2015-12-05-6726825d.pth",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        size=95_628_359,
        use="is, mask_is, fid: TensorFlow's Inception of 2015-12-05, as torch-fidelity has it",
        terms="Apache-2.0; trained on ImageNet",
    ),
    "inception-imagenet": Weights(
        file="inception_v3_google-0cc3c7bd.pth",
        url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        sha256="0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        size=108_949_747,
        use="fid_gfla: torchvision's Inception v3",
        terms="BSD-3-Clause (torchvision); trained on ImageNet",
    ),
    "alexnet": Weights(
        file="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        size=244_408_911,
        use="lpips: torchvision's AlexNet",
        terms="BSD-3-Clause (torchvision); trained on ImageNet",
    ),
    "vgg19": Weights(
        file="vgg19-dcbb9e9d.pth",
        url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        size=574_673_361,
        use="perceptual losses: torchvision's VGG-19",
        terms="BSD-3-Clause (torchvision); trained on ImageNet",
    ),
    "paf": Weights(
        file="body_pose_model.pth",
        url="https://huggingface.co/lllyasviel/Annotators/resolve/main/body_pose_model.pth",
        sha256="25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746",
        size=209_267_595,
        use="poses of images: OpenPose's COCO network of 18 joints, converted from Caffe",
        terms="OpenPose licence: academic and non-commercial research only",
    ),
    "movenet": Weights(
        file="movenet-lightning.safetensors",
        url="npm:@vladmandic/human@3.3.6",
        sha256="4978cad64e46268b03bb0b7b9e4fc3f8d731d4a4d6005610792738199ffe4c3f",
        size=4_841_349,
        use="poses of images, pckh, pck_torso: Google's MoveNet Lightning 4",
        terms="Apache-2.0 by Google's model card; the package is MIT",
        parts={
            "models/movenet-lightning.json": "df8cbde44d00f533ccc4916a7c6ebc17316532fb3fadad114ec667fef22872e9",
            "models/movenet-lightning.bin": "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34",
        },
    ),
}


class Missing(Unavailable):
    """A file of weights is not in the folder. A damaged one is a plain UserError: it is to be mended, not left out."""


def folder() -> Path:
    """Where the files lie: MSCGAN_WEIGHTS, else mscgan/weights in the user's cache folder. It may not exist yet."""
    chosen = os.environ.get("MSCGAN_WEIGHTS")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(cache) / "mscgan" / "weights"


def path(name: str) -> Path:
    """The file of the weights `name`, or its safetensors; not yet verified.

    Raises:
        Missing: neither is in the folder.
        UserError: the table has no such name, or the folder may not be looked into.
    """
    own = folder() / _row(name).file
    try:
        for file in (own, own.with_suffix(".safetensors")):
            if file.exists():
                return file
    except OSError as error:
        raise UserError(f"cannot look into {own.parent} ({error.strerror}); give another in MSCGAN_WEIGHTS") from error
    raise Missing(
        f"no {own.name} in {own.parent}; run `python -m mscgan.weights fetch {name}`, or copy the file there by hand"
    )


def load(name: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of the weights `name` by their names, on the CPU, and the SHA-256 of the file they came from.

    Raises:
        Missing: the file is not there.
        UserError: the table has no such name; the file cannot be read, is damaged or another one, or holds other
            things than tensors.
    """
    file = path(name)
    content = _read(file)  # once: what was verified is what is loaded
    digest = hashlib.sha256(content).hexdigest()
    try:
        if file.name == _row(name).file:
            _verify(name, file, len(content), digest)
        else:
            say(f"{file} has no published digest: its numbers are taken as they are (sha256 {digest})")
        if file.suffix == ".safetensors":
            state = safetensors.torch.load(content)
        else:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be loaded as weights alone ({reason}); delete it and fetch {name}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} holds other things than tensors by name; delete it and fetch {name}")
    return dict(state), digest


def _row(name: str) -> Weights:
    if name not in TABLE:
        raise UserError(f"no weights are called {name!r}; choose from {', '.join(TABLE)}")
    return TABLE[name]


def _read(file: Path) -> bytes:
    try:
        return files.read(file, 4 << 30)
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); put a plain file there that you may read") from error


def _verify(name: str, file: Path, size: int, digest: str) -> None:
    """Raises UserError unless size and digest are those of the table."""
    row = _row(name)
    if (size, digest) != (row.size, row.sha256):
        raise UserError(
            f"{file} is damaged or another file: {size:,} bytes with sha256 {digest}, expected {row.size:,} bytes with "
            f"{row.sha256}; delete it and run `python -m mscgan.weights fetch {name}`"
        )


def fetch(name: str) -> Path:
    """Brings the weights `name` into the folder unless the verified file is there; a damaged one is replaced.

    Raises:
        UserError: the table has no such name, the download fails, or what came is another file.
        OSError: the folder cannot be written to.
    """
    row, file = _row(name), folder() / _row(name).file
    if file.exists():
        content = _read(file)
        if (len(content), hashlib.sha256(content).hexdigest()) == (row.size, row.sha256):
            return file
        say(f"{file} is damaged or another file; fetching it anew")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"no folder {file.parent} ({error.strerror}); give another in MSCGAN_WEIGHTS") from error
    with files.whole(file) as partial:
        try:
            size, digest = _from_parts(row, partial) if row.parts else download(row.url, partial, row.size)
        except Unreachable as error:
            parts = f", or {' and '.join(row.parts)} of the package, and fetch {name} again" if row.parts else ""
            raise UserError(f"{error}. Without internet copy {row.file} to {file.parent} by hand{parts}") from error
        if (size, digest) != (row.size, row.sha256):
            raise UserError(
                f"what came from {row.url} is not {file.name}: {size:,} bytes with sha256 {digest}, expected "
                f"{row.size:,} bytes with {row.sha256}; nothing was kept"
            )
    return file


def _from_parts(row: Weights, to: Path) -> tuple[int, str]:
    """Writes what the parts make, which lie in the folder or come out of the npm package; (bytes, sha256) of it."""
    by_hand = [folder() / Path(part).name for part in row.parts]
    there = all(part.exists() for part in by_hand)
    parts = [_read(part) for part in by_hand] if there else read_package(row.url.removeprefix("npm:"), row.parts)
    for (part, expected), content in zip(row.parts.items(), parts, strict=True):
        if (digest := hashlib.sha256(content).hexdigest()) != expected:
            whose = folder() if there else row.url
            raise UserError(
                f"{Path(part).name} of {whose} is another file: its sha256 is {digest}, expected {expected}"
            )
    content = to_safetensors(*parts)
    to.write_bytes(content)
    return len(content), hashlib.sha256(content).hexdigest()


def check() -> bool:
    """Verifies all files that are there and prints a line for each of the table; whether none is damaged."""
    good = True
    for name in TABLE:
        try:
            file = path(name)
            content = _read(file)
            digest = hashlib.sha256(content).hexdigest()
            if file.name == TABLE[name].file:
                _verify(name, file, len(content), digest)
                state = "verified"
            else:
                state = f"there as {file.name}, for which no digest is published"
        except Missing:
            state = "not there"
        except UserError as error:
            state, good = str(error), False
        print(f"{name:<20}{state}")
    return good


def show() -> None:
    """Prints the table, and which of its files are there (not whether they are whole)."""
    print(f"folder: {folder()}")
    for name, row in TABLE.items():
        try:
            there = f"there: {path(name).name}"
        except Missing:
            there = "not there"
        print(f"\n{name} ({there})\n  {row.use}\n  {row.file}, {row.size / 1e6:.0f} MB, sha256 {row.sha256}")
        print(f"  {row.url}\n  {row.terms}")
        for part, digest in row.parts.items():
            print(f"  made of {part}, sha256 {digest}")


def main() -> int:
    parser = Parser(prog="python -m mscgan.weights", description="Weights that are not ours.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, from where, on which terms, and what is in the folder")
    names = commands.add_parser("fetch", help="download files into the folder and verify them")
    names.add_argument("names", nargs="+", metavar="NAME", choices=TABLE, help=", ".join(TABLE))
    commands.add_parser("check", help="verify the files that are in the folder")
    options = parser.parse_args()
    if options.command == "check":
        return DONE if check() else MISTAKE
    if options.command == "list":
        show()
    else:
        for name in options.names:
            print(fetch(name), flush=True)
    return DONE


if __name__ == "__main__":
    run(main)
