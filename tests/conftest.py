"""How two processes of pytest (`make test`) share the tests: a file stays whole, and SLURM's go to one of them."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        slurm = item.path.parent.name == "slurm"  # they share one cluster
        item.add_marker(pytest.mark.xdist_group("slurm" if slurm else item.path.name))
