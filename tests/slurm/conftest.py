"""These tests talk to a real SLURM that is started for them; they skip where it is not installed."""

import pytest
from cluster import Cluster, missing_packages


def _started(accounting: bool):
    command = missing_packages(accounting)
    if command:
        pytest.skip(f"SLURM is not installed; as root: {command}")
    cluster = Cluster(accounting=accounting)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def cluster():
    """Four nodes without accounting, as many clusters are."""
    yield from _started(accounting=False)


@pytest.fixture(scope="module")
def accounting_cluster():
    """Four nodes with slurmdbd on a private MariaDB."""
    yield from _started(accounting=True)
