"""What all tests share: a browser, and how two processes of pytest (`make test`) share the tests: a file stays whole,
and SLURM's go to one of them, at once: they take a third of the time, much of it waiting.

Nothing that an earlier evaluation left in the user's cache is used, but weights that are there are.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault(
    "MSCGAN_WEIGHTS", str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mscgan/weights"))
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CACHE = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = CACHE.name


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist's, which reads the groups
def pytest_collection_modifyitems(items):
    groups = {item: "slurm" if item.path.parent.name == "slurm" else item.path.name for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: groups[item] != "slurm")


@pytest.fixture(scope="module")
def browser():
    """A Chromium that is installed on this machine; playwright's own is never downloaded."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian and Ubuntu: apt-get install chromium")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright, which drives Chromium, is not installed")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no sandbox
        yield chromium
        chromium.close()
