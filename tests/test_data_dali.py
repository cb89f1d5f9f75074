"""How `auto` picks the decoder from what the machine has, and a machine without DALI."""

import os
import sys

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


@pytest.mark.parametrize(("cuda", "extra"), [("12.6", "cuda12"), ("13.0", "cuda13"), (None, "cuda13")])
def test_without_dali_the_extra_for_this_torch_is_named(monkeypatch, cuda, extra):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)  # as if it were not there
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(UserError, match=rf"DALI.* not installed.*pip install 'mscgan\[{extra}\]'"):
        dali.build(list, 2, 1, torch.device("cpu"), "cpu")
