"""Ranks from SLURM's variables; tests/slurm starts real steps."""

import os

import pytest

from mscgan import dist, step

# As SLURM 22.05 sets them for `srun -N2 -n3`, in the last task.
STEP = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_NODELIST": "n[1-4]", "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_ID": "5", "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "localhost,n2", "SLURM_STEP_TASKS_PER_NODE": "2,1",
}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Exactly these variables of SLURM's and torchrun's."""

    def set_to(values):
        monkeypatch.setattr(os, "environ", {key: os.environ[key] for key in ("PATH", "HOME")} | values)

    return set_to


def ranks():
    return [os.environ.get(name) for name in dist.ENVIRONMENT]


def test_the_tasks_of_a_step_are_the_ranks_of_one_training(environment):
    environment(STEP)
    step.take_ranks()
    assert ranks() == ["2", "3", "0", "1", "localhost", str(20_000 + (77 * 7 + 5 * 1_001) % 4_000)]


@pytest.mark.parametrize(
    "there",
    [
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "3,1"},
        STEP | {"SLURM_STEP_ID": "4294967290", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {},
    ],
    ids=["batch script", "salloc's shell", "salloc's step", "no SLURM"],
)
def test_what_is_no_step_of_several_tasks_is_one_process(there, environment):
    environment(there)
    step.take_ranks()
    assert ranks() == [None] * 6


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
def test_what_a_launcher_says_comes_first(name, environment):
    environment(STEP | {name: "1"})
    step.take_ranks()
    assert ranks().count(None) == 5


@pytest.mark.parametrize(("text", "counts"), [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("1,10(x2)", [1, 10, 10])])
def test_tasks_of_each_node_are_read_from_the_short_form(text, counts):
    assert step.tasks(text) == counts


@pytest.mark.parametrize(
    ("names", "first"),
    [("n1", "n1"), ("n[1-3]", "n1"), ("a-[007-012,20],b1", "a-007"), ("b1,n[1-3]", "b1"), ("r[2,4]n[01-9]", "r2n01")],
)
def test_the_first_node_is_read_from_the_short_form(names, first):
    assert step.first_node(names) == first
