"""What more nodes would give, calculated from a measured step; nothing here is measured.

A ring all-reduce of S bytes over N ranks takes 2 (N - 1) / N * S / bandwidth, bandwidth being the network's bus
bandwidth a rank sees. Two bounds: nothing of it hidden behind computation, and each engine's as far as its own backward
pass is long. The truth lies between them where ranks, network and file system behave as on one node.
"""

from typing import NamedTuple


class Exchange(NamedTuple):
    """One engine's gradients: bytes a rank sends into the all-reduce, seconds of backward to hide it behind."""

    gradient_bytes: float
    backward_seconds: float


def all_reduce_seconds(size: float, ranks: int, bandwidth: float) -> float:
    """Seconds for `size` bytes over `ranks` ranks with `bandwidth` bytes/s of bus bandwidth."""
    return 2 * (ranks - 1) / ranks * size / bandwidth


def project(
    step_seconds: float, exchanges: list[Exchange], batch: int, nodes: int, ranks_a_node: int, bandwidth: float
) -> dict:
    """Pairs/s and efficiency of weak scaling to nodes * ranks_a_node ranks, from the step of one rank.

    Returns:
        {"ranks", "all_reduce_ms", "hidden": {"step_ms", "pairs_per_second", "efficiency"}, "exposed": {...}}
    """
    ranks = nodes * ranks_a_node
    each = [all_reduce_seconds(exchange.gradient_bytes, ranks, bandwidth) for exchange in exchanges]
    left = [max(0.0, seconds - exchange.backward_seconds) for seconds, exchange in zip(each, exchanges, strict=True)]
    found = {"ranks": ranks, "nodes": nodes, "all_reduce_ms": 1000 * sum(each)}
    for name, extra in (("hidden", sum(left)), ("exposed", sum(each))):
        seconds = step_seconds + extra
        found[name] = {
            "step_ms": 1000 * seconds,
            "pairs_per_second": ranks * batch / seconds,
            "efficiency": step_seconds / seconds,
        }
    return found


def of_section(scaling: dict, trained: dict[str, int], gradient_bytes: int, nodes: list[int], ranks_a_node: int,
               gigabytes: float) -> dict:  # fmt: skip
    """The projection from the row of 1 rank in a measured section `scaling`.

    trained: parameters of the engines, by name; all but D go backward in the phase "G backward".
    gradient_bytes: of each number of a gradient as it travels, 2 or 4.
    gigabytes: the network's bus bandwidth, GB/s.
    """
    row = next(row for row in scaling["rows"] if row["kind"] == "weak" and row["ranks"] == 1)
    phases = row["phases_ms"]
    backward = {name: phases.get("D" if name == "D" else "G backward", 0.0) / 1000 for name in trained}
    exchanges = [Exchange(gradient_bytes * count, backward[name]) for name, count in trained.items()]
    seconds = row["metrics"]["step_ms"]["median"] / 1000
    return {
        "calculated": True,
        "from": row["key"],
        "batch_a_rank": row["batch"],
        "gradient_bytes": {name: gradient_bytes * count for name, count in trained.items()},
        "network_gigabytes_per_second": gigabytes,
        "rows": [project(seconds, exchanges, row["batch"], count, ranks_a_node, gigabytes * 1e9) for count in nodes],
    }
