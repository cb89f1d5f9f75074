"""How `auto` picks the decoder from what the machine has."""

import os

import pytest
import torch

from mscgan.data import dali
from mscgan.errors import UserError

GPU = torch.device("cuda", 0)


def machine(monkeypatch, cores: int, bound: int, ranks: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(bound)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    dali._announce.cache_clear()


@pytest.mark.parametrize(
    ("cores", "bound", "ranks", "chosen"),
    [
        (96, 96, 8, "cpu"),
        (8, 8, 8, "mixed"),
        (12, 12, 8, "mixed"),
        (96, 12, 8, "cpu"),  # each rank has 12 cores of its own
        (8, 1, 8, "mixed"),
    ],
)
def test_auto_decodes_on_the_gpu_only_with_fewer_than_two_cores_a_rank(monkeypatch, cores, bound, ranks, chosen):
    machine(monkeypatch, cores, bound, ranks)
    assert dali.choose("auto", GPU, rank=1) == chosen


def test_the_choice_is_announced_once_and_by_rank_0_alone(monkeypatch, capsys):
    machine(monkeypatch, 96, 96, 8)
    for rank in (0, 1, 0):
        dali.choose("auto", GPU, rank)
    assert capsys.readouterr().err == "data.decode=auto: JPEGs are decoded on the CPU, 12 core(s) a rank\n"


def test_what_the_user_chose_stays(monkeypatch):
    machine(monkeypatch, 1, 1, 1)
    assert dali.choose("cpu", GPU, 0) == "cpu" and dali.choose("mixed", GPU, 0) == "mixed"
    assert dali.choose("auto", torch.device("cpu"), 0) == "cpu"
    with pytest.raises(UserError, match="data.decode=mixed needs a GPU"):
        dali.choose("mixed", torch.device("cpu"), 0)
