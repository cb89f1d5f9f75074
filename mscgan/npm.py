"""Files out of an npm package: by `npm pack` where npm is installed, else from the registry by HTTPS.

npm asks the registry that its own configuration names. Without npm it is the one of npm_config_registry, npm's own
variable, else npm's default.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from mscgan.download import Unreachable, download
from mscgan.errors import UserError

REGISTRY = "https://registry.npmjs.org"  # npm's default
LARGEST = 64 << 20  # bytes of a package
UNPACKED = 256 << 20  # bytes of all that is in it
SECONDS = 600  # for `npm pack`, which tries again and again by itself


def read_package(package: str, names: Iterable[str]) -> list[bytes]:
    """The files with these paths in NAME@VERSION; nothing else of it is unpacked, and nothing of it is run.

    Raises:
        Unreachable: the package cannot be had.
        UserError: it is too large, no package, or one of the files is not in it.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _take(package, _pack(package, folder) if shutil.which("npm") else _get(package, folder), list(names))


def _pack(package: str, folder: str) -> Path:
    command = ["npm", "pack", package, "--pack-destination", folder, "--ignore-scripts", "--loglevel", "error"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"`npm pack {package}` did not end within {SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split())[:300]
        raise Unreachable(f"`npm pack {package}` failed ({reason})") from error
    return next(Path(folder).glob("*.tgz"))


def _get(package: str, folder: str) -> Path:
    name, _, version = package.rpartition("@")
    settings = {key.lower(): value for key, value in os.environ.items()}
    registry = (settings.get("npm_config_registry") or REGISTRY).rstrip("/")
    file = Path(folder, "package.tgz")
    download(f"{registry}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz", file, LARGEST)
    return file


def _take(package: str, tgz: Path, names: list[str]) -> list[bytes]:
    if (size := tgz.stat().st_size) > LARGEST:
        raise UserError(f"{package} has {size:,} bytes or more, where {LARGEST:,} are the most")
    found: dict[str, bytes] = {}
    unpacked = 0
    try:
        with tarfile.open(tgz, "r:gz") as tar:
            for member in tar:
                unpacked += member.size
                if unpacked > UNPACKED:
                    raise UserError(f"{package} unpacks to more than {UNPACKED:,} bytes")
                name = member.name.partition("/")[2]  # all lies in package/
                if name in names and member.isreg() and (file := tar.extractfile(member)):
                    found[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{package} is damaged or no npm package ({error})") from error
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{package} holds no {' and no '.join(missing)}")
    return [found[name] for name in names]
