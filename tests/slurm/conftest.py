"""These tests talk to a real SLURM that is started for them; they skip where it is not installed."""

import pytest
from cluster import Cluster, missing_packages
from training import train

from tests.shard_factory import write_shards


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


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """8 people in 8 views: 448 pairs of 32x32."""
    return write_shards(tmp_path_factory.mktemp("shards"), persons=8, views=8, height=32, width=32)


@pytest.fixture(scope="session")
def undisturbed(cluster, shards, tmp_path_factory):
    """A training on two nodes that nothing happens to."""
    return train(cluster, shards, tmp_path_factory.mktemp("undisturbed"))
