"""How `make test` shares the tests between its processes (tests/conftest.py)."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has all the tests")
def test_a_file_stays_whole_in_one_process(request):
    """Else each of them makes what a file's tests share, and starts a SLURM of its own."""
    assert request.node.nodeid.endswith("@test_groups.py")
