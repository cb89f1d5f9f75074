"""launch/endings.py: too short a time limit, and a preemption that saves nothing, are said before a job is queued."""

import math
import subprocess

import pytest

from launch import endings, slurm
from mscgan.errors import UserError

PARTITIONS = (
    "PartitionName=main Default=YES PreemptMode=REQUEUE GraceTime=10\n"
    "PartitionName=fragile Default=NO PreemptMode=CANCEL GraceTime=0\n"
    "PartitionName=kind Default=NO PreemptMode=CANCEL GraceTime=120\n"
)


@pytest.mark.parametrize(("minutes", "refused"), [(3.9, True), (4, False), (math.inf, False)])
def test_a_time_limit_below_twice_the_time_to_save_is_refused_with_the_sum(minutes, refused):
    if not refused:
        assert endings.check_time("T", minutes, 120) is None
        return
    with pytest.raises(UserError, match=r"--time T is 234 s.* 2 x 120 = 240 s at least; give --time 4 .* 117 or less"):
        endings.check_time("T", minutes, 120)


def answers(monkeypatch, **texts):
    def command(*arguments, **_):
        if arguments[:3] == ("scontrol", "--oneliner", "show"):
            name = arguments[4] if len(arguments) > 4 else ""
            text = "".join(line for line in PARTITIONS.splitlines(keepends=True) if f"Name={name}" in line)
        else:
            text = texts.get("config" if arguments[0] == "scontrol" else arguments[0], "")
        return subprocess.CompletedProcess(arguments, 0, text, "")

    endings.preemption.cache_clear()
    monkeypatch.setattr(slurm, "command", command)


PRIORITIES = "PreemptMode             = REQUEUE\nPreemptType             = preempt/partition_prio\n"
QOS = "PreemptMode             = CANCEL\nPreemptType             = preempt/qos\n"


@pytest.mark.parametrize(
    ("config", "partition", "qos", "shown", "told"),
    [
        (PRIORITIES, "fragile", "", "", "partition fragile"),
        (PRIORITIES, "kind", "", "", ""),
        (PRIORITIES, "", "", "", ""),
        (PRIORITIES.replace("partition_prio", "none"), "fragile", "", "", ""),
        (QOS, "", "low", "cancel|00:00:00\n", "QoS low"),
        (QOS, "", "low", "cluster|00:00:00\n", "QoS low"),
        (QOS, "", "low", "requeue|00:00:00\n", ""),
        (QOS, "", "low", "cancel|00:02:00\n", ""),
        ("", "fragile", "", "", ""),  # the controller does not say
    ],
)
def test_a_preemption_that_ends_a_job_at_once_is_said(config, partition, qos, shown, told, monkeypatch):
    answers(monkeypatch, config=config, sacctmgr=shown)
    note = endings.preemption(partition, qos)
    assert f"note: {told} preempts by CANCEL without grace" in note if told else note == ""
