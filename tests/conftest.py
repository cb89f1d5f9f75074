"""How two processes of pytest (`make test`) share the tests: a file stays whole, and SLURM's go to one of them.

Nothing that an earlier evaluation left in the user's cache is used, but weights that are there are.
"""

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault(
    "MSCGAN_WEIGHTS", str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mscgan/weights"))
)
CACHE = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = CACHE.name


def pytest_collection_modifyitems(items):
    for item in items:
        slurm = item.path.parent.name == "slurm"  # they share one cluster
        item.add_marker(pytest.mark.xdist_group("slurm" if slurm else item.path.name))
