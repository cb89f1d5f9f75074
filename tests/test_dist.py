"""Ranks, collectives and BatchNorm over them, on two processes and on one; this file is what each of the two runs."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mscgan import dist
from mscgan.errors import UserError
from mscgan.layers.batch_norm import sync_batch_norm
from tests.ranks import exit_codes, logged, start_ranks

SIZES = (3, 2)  # images of each rank: unequal on purpose
NORMS = {"usual": {}, "average": {"momentum": None}, "plain": {"affine": False, "track_running_stats": False}}


def network(norm: str) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **NORMS[norm]), nn.Tanh(), nn.Conv2d(4, 2, 3))
    for parameter in module[1].parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module


def images(rank: int, number: int) -> Tensor:
    return torch.randn(SIZES[rank], 3, 8, 8, generator=torch.Generator().manual_seed(rank + 10 * number)) * 2 + 5


def outputs(module: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    """Two batches of training, then one of evaluation; outputs, gradients (summed), buffers."""
    tensors = {}
    for number, x in enumerate(batches):
        x.requires_grad_(True)
        y = module(x)
        (y.square() * torch.linspace(0, 1, y[0].numel()).view_as(y[0])).sum().backward()
        tensors |= {f"y{number}": y.detach(), f"gradient{number}": x.grad}
    if module[1].track_running_stats:
        with torch.no_grad():
            tensors["evaluated"] = module.eval()(batches[0])
    tensors |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return tensors | dict(module.named_buffers())


def _raise(error: Exception) -> None:
    raise error


def rank_of_two(folder: Path) -> None:
    ranks = dist.init("cpu")
    tensors = {}
    for norm in NORMS:
        module = sync_batch_norm(network(norm))
        assert module.state_dict().keys() == network(norm).state_dict().keys()
        made = outputs(module, [images(ranks.rank, number) for number in range(2)])
        tensors |= {f"{norm}/{name}": tensor for name, tensor in made.items()}
    bf16 = module.train()[1](torch.randn(2, 4, 3, 3).bfloat16())
    dist.barrier()
    report: dict = {
        "ranks": [ranks.rank, ranks.world, ranks.local_rank, ranks.local_world, str(ranks.device)],
        "any": [dist.all_any(ranks.rank == 1, False, ranks.rank == 0)],
        "said": [dist.first_said("late" if ranks.rank == 1 else ""), dist.first_said("")],
        "mean": dist.mean({"a": torch.tensor(1.0 + ranks.rank), "b": torch.tensor(2, dtype=torch.int64)}),
        "gather": dist.gather(["é" * ranks.rank, ranks.rank]),  # of different lengths
        "largest": dist.largest({"alike": 1.0 + ranks.rank / 100, "apart": 3.0 - ranks.rank})["apart"].rank,
        "alike": dist.largest({"alike": 1.0 + ranks.rank / 100})["alike"].value,
        "from_rank_0": dist.from_rank_0({"path": "é/ü", "rank": ranks.rank, "none": None}),
        "bf16": str(bf16.dtype),
    }
    report["on_rank_0"] = [dist.on_rank_0(lambda: "done")]
    for error in (UserError("mine"), OSError(28, "No space left", "a"), OSError(116, "Stale file handle", "b")):
        try:
            dist.on_rank_0(partial(_raise, error))
        except (UserError, RuntimeError) as raised:
            report["on_rank_0"].append([type(raised).__name__, str(raised)])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{ranks.rank}.safetensors")
    (folder / f"{ranks.rank}.json").write_text(json.dumps(report))
    dist.shutdown()


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    processes = start_ranks([[sys.executable, __file__, folder]] * 2, folder / "logs")
    assert exit_codes(processes, seconds=120) == [0, 0], logged(folder / "logs")
    return folder


@pytest.fixture
def reports(left) -> list[dict]:
    return [json.loads((left / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("norm", NORMS)
def test_batch_norm_over_two_ranks_is_batch_norm_over_their_batches_together(left, norm):
    expected = outputs(network(norm), [torch.cat([images(0, number), images(1, number)]) for number in range(2)])
    parts = [load_file(left / f"{rank}.safetensors") for rank in range(2)]
    for name, tensor in expected.items():
        both = [part[f"{norm}/{name}"] for part in parts]
        if name in ("y0", "y1", "gradient0", "gradient1", "evaluated"):
            found = torch.cat(both)
        elif "running" in name or "tracked" in name:
            assert torch.equal(*both)  # the ranks' buffers never part
            found = both[0]
        else:
            found = sum(both)  # gradients of the weights
        torch.testing.assert_close(found, tensor, rtol=1e-4, atol=2e-5, msg=f"{name}: {{}}".format)


def test_batch_norm_returns_the_dtype_it_was_given(reports):
    assert reports[0]["bf16"] == "torch.bfloat16"


def test_each_rank_knows_its_place(reports):
    assert [report["ranks"] for report in reports] == [[0, 2, 0, 2, "cpu"], [1, 2, 1, 2, "cpu"]]


def test_all_ranks_learn_the_same(reports):
    assert [report["on_rank_0"][0] for report in reports] == ["done", None]
    for report in reports:
        assert report["any"] == [[True, False, True]] and report["said"] == ["late", ""]
        assert report["mean"] == {"a": 1.5, "b": 2.0}
        assert report["on_rank_0"][1:] == [
            ["UserError", "mine"],
            ["UserError", "a: No space left; make room there, or let this user write there, and run again"],
            ["RuntimeError", "b: Stale file handle"],
        ]
        assert report["gather"] == [["", 0], ["é", 1]]
        assert (report["largest"], report["alike"]) == (0, 1.01)
        assert report["from_rank_0"] == {"path": "é/ü", "rank": 0, "none": None}


def test_one_process_without_an_environment_is_a_group_of_one(monkeypatch):
    for name in dist.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    ranks = dist.init("cpu")
    try:
        assert ranks == dist.Ranks(0, 1, 0, 1, torch.device("cpu"))
        assert dist.all_any(True, False) == [True, False] and dist.mean({"a": torch.tensor(3.0)}) == {"a": 3.0}
        assert dist.from_rank_0([1]) == [1] and dist.gather(["a"]) == [["a"]]
        assert dist.mean({}) == {}
        expected = outputs(network("usual"), [images(0, 0)])
        found = outputs(sync_batch_norm(network("usual")), [images(0, 0)])
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=2e-5)
    finally:
        dist.shutdown()


def test_half_an_environment_is_the_users_mistake(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(UserError, match="lacks .*MASTER_PORT"):
        dist.init("cpu")


@pytest.mark.parametrize(
    ("mine", "everyone", "expected"),
    [
        (range(8), [("a", range(8))] * 2, 4),  # all share all
        (range(8), [("a", range(8))] * 3, 2),  # 8 / 3, rounded down
        (range(4, 8), [("a", range(4)), ("a", range(4, 8))], 4),  # each has its own
        (range(8), [("a", range(8))] * 2 + [("a", range(8, 16))] * 2, 4),  # two near each GPU's socket
        (range(2), [("a", range(2))] * 4, 1),  # never none
        (range(8), [("a", range(8)), ("b", range(8))], 8),  # another machine's cores are others
    ],
)
def test_a_core_that_ranks_share_counts_in_parts(mine, everyone, expected, monkeypatch):
    def gather(own):
        assert own == ["a", list(mine)]
        return [[host, list(cores)] for host, cores in everyone]

    monkeypatch.setattr(dist.os, "sched_getaffinity", lambda pid: set(mine))
    monkeypatch.setattr(dist.socket, "gethostname", lambda: "a")
    monkeypatch.setattr(dist, "gather", gather)
    assert dist.cores(dist.Ranks(0, len(everyone), 0, 2, torch.device("cpu"))) == expected


def test_torch_gets_a_ranks_cores_unless_the_environment_says_how_many(monkeypatch):
    threads, ranks = torch.get_num_threads(), dist.Ranks(0, 2, 0, 2, torch.device("cpu"))
    monkeypatch.setattr(dist, "cores", lambda ranks: 3)
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert (dist.take_cores(ranks), torch.get_num_threads()) == (3, 2)
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert (dist.take_cores(ranks), torch.get_num_threads()) == (3, 3)
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank_of_two(Path(sys.argv[1]))
