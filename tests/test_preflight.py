import hashlib
import json
import os
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from launch import preflight
from launch.preflight import Fault, Findings
from mscgan.errors import BAD_NODE, DONE, FAILED, MISTAKE, UserError
from tests.ranks import exit_codes, free_port, logged, start_ranks

DISK = Fault("run folder", "cannot write")
ECC = Fault("gpu", "GPU 1: 3 uncorrected ECC errors")


def test_a_bad_node_among_good_ones_is_named():
    assert preflight.judge({0: [], 1: [DISK]}) == (BAD_NODE, {1: ["cannot write"]}, "")


def test_what_all_nodes_report_is_the_users_to_mend():
    code, bad, line = preflight.judge({0: [DISK], 1: [DISK, ECC]})
    assert (code, bad, line) == (MISTAKE, {}, "cannot write")


def test_gpu_faults_are_the_nodes_even_when_all_have_them():
    assert preflight.judge({0: [ECC]})[0] == BAD_NODE


def test_no_fault_is_fine():
    assert preflight.judge({0: [], 1: []}) == (DONE, {}, "")


@pytest.mark.parametrize(
    "offsets, bad",
    [
        ({0: 0.0, 1: 0.5}, set()),
        ({0: 0.0, 1: -60.0}, {1}),
        ({0: 0.0, 1: 60.0, 2: 60.3}, {0}),
        ({0: 0.0, 1: 0.1, 2: 60.0, 3: 0.2}, {2}),
    ],
)
def test_the_clock_that_differs_from_the_others_is_found(offsets, bad):
    assert set(preflight.clock_faults(offsets)) == bad


def test_a_rank_that_does_not_come_makes_its_node_bad():
    found = Findings(world=4, local_world=2)
    found.nodes({rank: {"name": f"n{1 + rank // 2}", "faults": []} for rank in (0, 1, 2)}, names=["n1", "n2"])
    code, bad, _ = found.verdict()
    assert code == BAD_NODE and list(bad) == ["n2"] and "rank 3 did not come" in bad["n2"][0]


def test_node_names_need_no_scontrol(monkeypatch):
    monkeypatch.setenv("PATH", "")  # as in a container
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2],m7")
    assert preflight.node_names() == ["n1", "n2", "m7"]
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    assert preflight.node_names() == []


def test_a_rank_waits_for_rank_0_which_waits_for_a_missing_one():
    from launch.meeting import Meeting

    port, told = free_port(), []
    zero = Meeting(0, 3, "127.0.0.1", port, seconds=5)
    one = Meeting(1, 3, "127.0.0.1", port, seconds=0.5)  # its time to reach the store, which is there
    waiting = threading.Thread(target=lambda: told.append(one.announce("verdict")))
    waiting.start()
    assert zero.gather("node", seconds=1.0) == {}
    zero.announce("verdict", BAD_NODE)
    waiting.join()
    assert told == [BAD_NODE]


def test_a_node_that_says_nothing_has_its_name_from_the_scheduler():
    found = Findings(world=2, local_world=1)
    found.nodes({0: {"name": "n1", "faults": []}}, names=["n1", "n9"])
    assert list(found.verdict()[1]) == ["n9"]


def test_when_most_nodes_do_not_come_none_is_blamed():
    found = Findings(world=3, local_world=1)
    found.nodes({0: {"name": "n1", "faults": []}}, names=["n1", "n2", "n3"])
    code, bad, line = found.verdict()
    assert (code, bad) == (FAILED, {}) and "2 of 3 nodes do not answer" in line


def test_a_rank_that_hangs_in_the_all_reduce_makes_its_node_bad():
    found = Findings(world=2, local_world=1)
    found.nodes({rank: {"name": f"n{rank}", "faults": []} for rank in (0, 1)}, names=[])
    found.all_reduce(ready={0: True, 1: True}, said={0: "timed out"})
    assert found.verdict()[:2] == (BAD_NODE, {"n1": ["rank 1 hung in an all-reduce"]})


def test_an_all_reduce_that_fails_for_all_blames_no_node():
    found = Findings(world=2, local_world=1)
    found.nodes({rank: {"name": f"n{rank}", "faults": []} for rank in (0, 1)}, names=[])
    found.all_reduce(ready={0: True, 1: True}, said={0: "timed out", 1: "timed out"})
    code, bad, line = found.verdict()
    assert (code, bad) == (FAILED, {}) and "timed out" in line


def test_the_manifest_must_be_the_one_of_the_submission(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    preflight.check_manifest(tmp_path, hashlib.sha256(b"{}").hexdigest())
    preflight.check_manifest(tmp_path, "")
    with pytest.raises(UserError, match="submit again"):
        preflight.check_manifest(tmp_path, "0" * 64)


def test_the_run_folder_must_have_room_for_a_checkpoint(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(0, 0, preflight.RUN_BYTES))
    preflight.check_run_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(0, 0, preflight.RUN_BYTES - 1))
    with pytest.raises(UserError, match="GB free, a checkpoint needs"):
        preflight.check_run_folder(tmp_path)
    (tmp_path / "checkpoints/pairs-8").mkdir(parents=True)
    (tmp_path / "checkpoints/pairs-8/state").touch()
    os.truncate(tmp_path / "checkpoints/pairs-8/state", 3 * preflight.RUN_BYTES)
    with pytest.raises(UserError, match="a checkpoint needs 3.22"):
        preflight.check_run_folder(tmp_path)


def test_a_run_folder_that_is_gone_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write into"):
        preflight.check_run_folder(tmp_path / "gone")


def codes_of_two_nodes(run: Path, *arguments: str, n2: tuple[str, ...] = ()) -> list[int]:
    """Runs the preflight of a rank on node n1 and a rank on n2; `n2` are arguments on the second alone."""
    command = [sys.executable, preflight.__file__, "--run", run, *arguments]
    place = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    places = [place | {"SLURMD_NODENAME": node} for node in ("n1", "n2")]
    return exit_codes(start_ranks([command, [*command, *n2]], run / "logs", places))


def test_ranks_that_are_fine_all_exit_with_0(tmp_path):
    assert codes_of_two_nodes(tmp_path) == [DONE, DONE], logged(tmp_path / "logs")
    assert "2 ranks on 2 nodes are fine" in (tmp_path / "logs" / "0.out").read_text()
    assert not (tmp_path / "bad_nodes").exists()


def test_the_bad_node_is_written_down_with_its_reason_and_all_ranks_exit_with_87(tmp_path):
    codes = codes_of_two_nodes(tmp_path, n2=("--shards", str(tmp_path / "nowhere")))
    assert codes == [BAD_NODE, BAD_NODE], logged(tmp_path / "logs")
    assert [file.name for file in (tmp_path / "bad_nodes").iterdir()] == ["n2.json"]
    found = json.loads((tmp_path / "bad_nodes" / "n2.json").read_text())
    assert found["node"] == "n2" and "cannot read" in found["reasons"][0]


def test_a_manifest_that_no_node_finds_is_one_line_of_rank_0_and_exit_code_2(tmp_path):
    codes = codes_of_two_nodes(tmp_path, "--shards", str(tmp_path / "nowhere"), "--stage-to", str(tmp_path))
    errors = [(tmp_path / "logs" / f"{rank}.err").read_text() for rank in range(2)]
    assert codes == [MISTAKE, MISTAKE]
    assert errors[0].startswith("error: [rank 0] cannot read") and errors[0].count("cannot") == 1 and errors[1] == ""
