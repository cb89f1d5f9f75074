"""--job table2 on a real SLURM, with stand-ins for training and scoring: the parts' order, a requeue, a failure."""

import time

from tests.launch_checkout import Checkout
from tests.test_table2 import COMMAND, NAMES, STAGE_I, prepared, told


def wait_for(true, what, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.3)


def test_the_parts_wait_for_each_other_over_a_requeue_and_a_failed_row_holds_up_nothing(cluster, tmp_path):
    checkout = prepared(Checkout(tmp_path / "checkout"))
    environment = cluster.env | {"SLOW": STAGE_I, "FAILS": "pg2-seed-0"}
    code, output = checkout.run(*COMMAND, "--preflight=false", "--cpus-per-task=1", **environment)
    assert code == 0, output
    first, rows, own, scores, last = [line.split()[1].rstrip(":") for line in output.splitlines() if "job" == line[:3]]
    assert f"job {rows}: train, the rows that stand on it: 4 runs, after job {first}\n" in output
    assert f"job {last}: table2, the table: 1 run, after job {first}, {rows}, {own}, {scores}\n" in output

    wait_for(lambda: STAGE_I in (checkout.root / "trained.txt").read_text() if (checkout.root / "trained.txt").exists()
             else False, lambda: cluster.run("squeue"))  # fmt: skip
    time.sleep(0.5)  # its handler
    cluster.run("scancel", "--signal=USR2", first)
    wait_for(lambda: cluster.job(first)["Restarts"] == "1", lambda: str(cluster.job(first)))
    assert cluster.run("squeue", "-h", "-j", rows, "-o", "%r").splitlines() == ["Dependency"]
    code, listed = checkout.run("jobs.py", "list", **environment)
    assert code == 0 and f"{scores}_4" in listed and "table2 " in listed and "PENDING" in listed

    table = checkout.root / "runs/table2-demo/table2.md"
    wait_for(table.exists, lambda: cluster.run("squeue"))
    trained = told(checkout, "trained")
    assert trained.count(STAGE_I) == 2 and sorted(set(trained)) == sorted([STAGE_I, *NAMES])
    assert max(place for place, name in enumerate(trained) if name == STAGE_I) < min(map(trained.index, NAMES[:4]))
    assert "- Missing: PG2, seed 0: trained 0 of 10,400 pairs: the train job of" in table.read_text()
    assert (
        "ended: mistake (exit code 2)." in table.read_text()
        and "| MsCGAN | ours | synthetic | 0.130 [" in table.read_text()
    )

    told(checkout, "scored")
    code, output = checkout.run(*COMMAND, "--preflight=false", "--cpus-per-task=1", "--follow", **cluster.env)
    assert code == 0, output
    assert told(checkout, "trained") == told(checkout, "scored") == ["pg2-seed-0"]
    assert "Missing" not in table.read_text()
