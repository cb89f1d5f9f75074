"""Each section on something tiny: what it measures, what it keeps on the way, what it says of what is missing."""

import json
from dataclasses import asdict

import pytest
import torch

from benchmarks import checkpoint, data, ops, profiled, report, scaling
from mscgan import dist
from mscgan.config import load

CONFIG = load("demo", ["train.backend=ddp", "data.height=32", "data.width=16", "mscgan.base=8"])


@pytest.fixture(scope="module")
def ranks():
    yield dist.init("cpu")
    dist.shutdown()


@pytest.fixture(scope="module")
def measured(ranks, tmp_path_factory):
    """`data` of 4 people on a machine without simplejpeg, how many windows were kept, and each DataLoader's workers."""
    kept, workers = [], []

    class Noted(data.DataLoader):
        def __init__(self, *given, **named):
            workers.append(named["num_workers"])
            super().__init__(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "missing", lambda imports: "simplejpeg" if "simplejpeg" in imports else "")
        patch.setattr(data, "DataLoader", Noted)
        patch.setattr(data.os, "sched_getaffinity", lambda pid: {0, 1, 2})
        out = tmp_path_factory.mktemp("data")
        found = data.measure(ranks, out, [(64, 32)], 4, 8, 2, 0.02, keep=lambda found: kept.append(len(found["rows"])))
    return found, kept, workers


def test_the_loader_has_as_many_threads_as_what_is_beside_it_has_processes(measured):
    found, _, workers = measured
    assert found["workload"]["threads_or_processes_a_rank"] == 3
    assert workers == [3]


def test_the_ways_of_loading_are_measured_in_turn_and_kept_after_each(measured):
    found, kept, _ = measured
    ways = [row["way"] for row in found["rows"]]
    assert ways == [
        "DataLoader + Pillow", "WebLoader + Pillow", "loader cpu", "DALI webdataset cpu", "in memory (ceiling)"
    ]  # fmt: skip
    assert kept == [1, 2, 3, 4, 5, 5, 5, 5, 5, 5]
    base, web, *_ = found["rows"]
    assert base["metrics"]["times_base"] == 1.0
    ratio = web["metrics"]["images_per_second"]["median"] / base["metrics"]["images_per_second"]["median"]
    assert web["metrics"]["times_base"] == pytest.approx(ratio)
    json.dumps(found)


def test_a_way_of_loading_that_is_not_installed_has_a_row_that_says_so(measured):
    (entry,) = measured[0]["failures"]
    assert entry == {"way": "DataLoader + simplejpeg", "error": "simplejpeg: not installed", "images": "64x32"}
    assert ["64x32", "DataLoader + simplejpeg", "simplejpeg: not installed", "", ""] in report._data(measured[0])


def test_both_decoders_give_the_same_image(tmp_path):
    simplejpeg = pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")
    drawn = torch.arange(3 * 32 * 16, dtype=torch.uint8).view(32, 16, 3).numpy()
    jpeg = simplejpeg.encode_jpeg(drawn, quality=95)
    ours, theirs = data.pillow(jpeg), data.simplejpeg(jpeg)
    assert ours.shape == theirs.shape == (32, 16, 3)
    assert abs(ours.astype(int) - theirs).max() <= 1


def test_webloaders_batches_are_whole(ranks, tmp_path):
    shards = data.cached_shards(tmp_path, 64, 32, 4, ranks)
    source = data.webloader(shards, 10, 2)
    assert [next(source) for _ in range(8)] == [10] * 8  # more images than there are: they come again
    source.close()


def test_an_op_that_cannot_be_compiled_is_noted_and_the_others_are_measured(ranks, monkeypatch):
    def broken(*given):
        raise RuntimeError("no C++ compiler\nand more")

    own = ops.table
    monkeypatch.setattr(ops, "table", lambda dtype: {name: own(dtype)[name] for name in ("masked_l1", "condition")})
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: broken)
    monkeypatch.setattr(ops, "copy_rate", lambda device: 1e9)
    kept = []
    found = ops.measure(
        ranks.device, torch.float32, (32, 16), 1, 2, 0.001, keep=lambda now: kept.append(len(now["rows"]))
    )
    assert kept == [4, 6]  # forward and with backward, ours and eager; and the op without a backward
    assert found["status"] == "incomplete"
    assert found["failures"][0] == {
        "op": "masked_l1", "pass": "forward", "implementation": "compiled", "error": "RuntimeError: no C++ compiler"
    }  # fmt: skip
    assert len(found["failures"]) == 3
    assert all(row["metrics"]["times_compiled"] is None and row["metrics"]["times_eager"] for row in found["rows"])
    assert "| masked_l1 | forward | ours |" in "\n".join(report._table(report._ops(found)))


def test_a_checkpoints_stall_is_the_copy_and_what_the_steps_beside_the_writing_lose(ranks, tmp_path, monkeypatch):
    """A copy of 0.5 s, then four steps of 0.3 s, which alone take 0.1 s, then 0.2 s to give the folder its name."""
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: clock[0])
    beside = []

    class Saver:
        saving = False

        def save(self, state, own, last):
            self.saving = True
            clock[0] += 0.5

        def meet(self, pairs, signalled):
            pass

        def settle(self):
            clock[0] += 0.2

    saver = Saver()

    def step():
        clock[0] += 0.3 if saver.saving else 0.1
        beside.extend([1] if saver.saving else [])
        if len(beside) == 4:
            checkpoint.checkpoint.folder(tmp_path, 1).mkdir(parents=True)

    stall, copy, published = checkpoint._save(saver, None, tmp_path, 1, step)
    assert copy == pytest.approx(0.5)
    assert published == pytest.approx(0.5 + 4 * 0.3 + 0.2)
    assert stall == pytest.approx(0.5 + 4 * 0.2 + 0.2)


def test_a_real_checkpoint_comes_back_equal_and_a_backend_that_is_missing_is_skipped(ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "missing", lambda imports: ", ".join(imports))
    backends = {"ddp": {"train.backend": "ddp"}, "zero1": {"train.backend": "deepspeed"}}
    found = checkpoint.measure(ranks, tmp_path, CONFIG, backends, 1)
    assert found["failures"] == [{"way": "zero1", "error": "deepspeed: not installed"}]
    (row,) = found["rows"]
    metrics = {name: value["median"] for name, value in row["metrics"].items()}
    assert row["restored_equal"]
    assert 0 < metrics["copy_seconds"] <= metrics["stall_seconds"] <= metrics["published_seconds"]
    assert not list(tmp_path.glob("checkpoint-*"))
    assert " once |" in "\n".join(report._table(report._checkpoint(found)))


def test_a_profile_names_the_kernels_and_their_shares_are_all(ranks, tmp_path):
    found = profiled.measure(ranks, tmp_path, CONFIG, "I", ["ddp", "plain-1"], 2, 1, 1)
    for way in ("ddp", "plain-1"):
        rows = [row for row in found["rows"] if row["way"] == way]
        assert len(rows) == profiled.LONGEST + 1 and rows[-1]["kernel"] == "all others"
        assert sum(row["metrics"]["share"] for row in rows) == pytest.approx(1.0)
        assert any("convolution" in row["kernel"] for row in rows)


def test_a_child_of_scaling_gets_the_configuration_as_it_was():
    assert scaling.config_of(json.loads(json.dumps(asdict(CONFIG)))) == CONFIG


def test_scaling_keeps_rows_of_the_ranks_that_are_measured_so_far():
    def row(rate):
        return {"size": "32x16", "base": 8, "precision": "fp32", "phases_ms": {}, "parameters": {}, "failures": [],
                "finite": True, "metrics": {"pairs_per_second": {"median": rate}, "step_ms": {}}}  # fmt: skip

    rates = {(1, 4): row(10.0)}
    assert [one["ranks"] for one in scaling._rows(rates, 4, 4, "I", "ddp")] == [1, 1]
    rates |= {(2, 4): row(18.0), (2, 2): row(15.0)}
    found = scaling._rows(rates, 4, 4, "I", "ddp")
    assert [(one["kind"], one["ranks"], one["metrics"]["efficiency"]) for one in found] == [
        ("weak", 1, 1.0), ("weak", 2, 0.9), ("strong", 1, 1.0), ("strong", 2, 0.75)
    ]  # fmt: skip
