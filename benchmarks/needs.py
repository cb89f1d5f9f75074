"""Packages that not every machine has. Steps of PyTorch and the ops need torch, Triton and numpy alone."""

import importlib.util
import sys
from collections.abc import Iterable

PIP = {  # what pip installs, where its name is another than that of the import
    "PIL": "pillow",
    "nvidia.dali": "nvidia-dali-cuda130",  # or -cuda120
    "pynvml": "nvidia-ml-py",
    "yaml": "pyyaml",
}
SHARDS = ("PIL", "tqdm")  # to draw those that are read


def missing(imports: Iterable[str]) -> str:
    """Those that are not installed, by the names that pip has for them; "" if all are."""
    return ", ".join(PIP.get(name, name) for name in imports if not _is_there(name))


def skip(what: str, packages: str) -> None:
    """Says that something is not measured, as the packages are not installed."""
    print(f"SKIPPED: {what} needs {packages}: not installed; the rest goes on", file=sys.stderr, flush=True)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
