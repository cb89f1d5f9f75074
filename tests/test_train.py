"""The training command: what survives a kill, what more or fewer ranks change, and what it says to mistakes.

Each run is real processes over gloo, as a launcher would start them (tests/train_rank.py).
"""

import json
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mscgan import asked, dist, process
from mscgan.config import check_compile, load, micro_batch
from mscgan.data.batch import Batch
from mscgan.data.order import permutation
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.keys import Train
from mscgan.lease import take
from mscgan.prepare import prepare
from mscgan.state import State
from mscgan.train import train
from tests.ranks import ROOT, exit_codes, start_ranks
from tests.shard_factory import write_shards
from tests.test_lease import written

TINY = (
    "data.height=32 data.width=32 data.threads=1 data.sigma=2 data.radius=2 mscgan.base=8 train.batch=12 "
    "train.pairs.I=36 train.pairs.II=36 train.pairs.joint=0 train.precision=fp32 train.ema_halflife=24 log.every=12 "
    "log.samples=36 log.checkpoint=24 log.checkpoint_minutes=0 train.zero=1 train.warmup=0"
).split()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """4 people in 6 views: 24 images and 120 pairs a split."""
    return write_shards(tmp_path_factory.mktemp("shards"), persons=4, views=6, height=32, width=32)


def start(ranks: int, run: Path, shards: Path, *overrides: str, strike: str = "") -> tuple[list[int], str, Counter]:
    """Trains to the end or the strike. Returns the ranks' exit codes, rank 0's stderr, how often each pair was seen."""
    seen = run.parent / f"{run.name}-seen"
    seen.mkdir(parents=True, exist_ok=True)
    before = _count(seen)
    command = [sys.executable, ROOT / "tests/train_rank.py", "--config", "demo", f"data.root={shards}", f"run={run}"]
    command += [*TINY, *overrides]
    logs, environment = run.parent / f"{run.name}-logs", {"SEEN": str(seen), "CUDA_VISIBLE_DEVICES": ""}
    if strike:
        environment["STRIKE"] = strike
    codes = exit_codes(start_ranks([command] * ranks, logs, **environment))
    return codes, (logs / "0.err").read_text(), _count(seen) - before


def _count(seen: Path) -> Counter:
    return Counter(int(pair) for notes in seen.iterdir() for pair in notes.read_text().split())


def curve(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(line: dict) -> dict[str, float]:
    meters = {"pairs", "steps", "epoch", "stage", "pairs_per_second", "replaced_pairs", "seconds", "memory_bytes"}
    slowest = ("data_wait", "step_seconds")
    return {name: value for name, value in line.items() if name not in meters and not name.startswith(slowest)}


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    codes, error, _ = start(2, run, shards)
    assert codes == [0, 0], error
    return run


def test_a_run_leaves_what_its_user_came_for(undisturbed):
    names = {path.name for path in undisturbed.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "tensorboard", "samples", "generator.safetensors", "checkpoints"} <= names
    assert [path.name for path in sorted((undisturbed / "samples").iterdir())] == [
        "pairs-000000036.png",
        "pairs-000000072.png",
    ]
    lines = curve(undisturbed)
    assert [line["pairs"] for line in lines] == [12, 24, 36, 48, 60, 72]
    assert [line["steps"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["stage"] for line in lines] == ["I"] * 3 + ["II"] * 3
    assert [line["replaced_pairs"] for line in lines] == [0] * 6
    assert {"L1_1", "bg_1"} <= set(lines[0]) and {"D1_real", "D2_fake", "L1_2", "bg_2", "G_D1"} <= set(lines[-1])


def test_replaced_pairs_of_all_ranks_are_in_the_curve_and_whole_tars_are_said_to_match(tmp_path):
    """Image 4 is broken: those of the first 72 pairs of the order that hold it are replaced."""
    broken = write_shards(tmp_path / "shards", persons=4, views=6, height=32, width=32, images={4: b""})
    codes, error, _ = start(2, tmp_path / "run", broken, "train.backend=ddp")
    assert codes == [0, 0], error
    pairs, order = ShardSet(broken, "train").pairs, permutation(load("demo", []).train.seed, 0, 120)
    expected = [int((pairs[order[at : at + 12]] == 4).any(axis=1).sum()) for at in range(0, 72, 12)]
    assert [line["replaced_pairs"] for line in curve(tmp_path / "run")] == expected and sum(expected) > 2
    assert error.count("shards: 2 tars match the manifest\n") == 1


def test_an_image_that_cannot_be_shown_stops_no_training(tmp_path):
    broken = write_shards(tmp_path / "shards", persons=4, views=6, height=32, width=32, images={0: b""})
    codes, error, _ = start(1, tmp_path / "run", broken, "train.backend=ddp", "train.pairs.II=0")
    assert codes == [0] and "warning: no pictures at 36 pairs: " in error, error


def test_a_damaged_tar_ends_every_rank_as_the_users_mistake_and_nothing_is_saved(shards, tmp_path):
    """One bit of one image, which decodes all the same; rank 0 finds it and both ranks end in the same step."""
    damaged = shutil.copytree(shards, tmp_path / "shards")
    data = bytearray((damaged / "train-00001.tar").read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / "train-00001.tar").write_bytes(data)
    run = tmp_path / "run"
    codes, error, _ = start(2, run, damaged, "train.backend=ddp", "train.pairs.I=36000", "log.checkpoint=36000")
    assert codes == [2, 2], error
    last = error.splitlines()[-1]
    assert last.startswith(f"error: [rank 0] {damaged}/train-00001.tar on ") and "The newest checkpoint is none" in last
    assert "Traceback" not in error and not list((run / "checkpoints").glob("*"))


def test_a_run_killed_between_checkpoints_ends_with_the_weights_of_one_never_killed(undisturbed, shards, tmp_path):
    """Once in stage I and once in stage II, where the discriminators' BatchNorm and both optimisers count too."""
    run = tmp_path / "run"
    for pairs in (36, 60):
        codes, error, _ = start(2, run, shards, strike=f"all SIGKILL {pairs}")
        assert codes == [-9, -9], error
    codes, error, _ = start(2, run, shards)
    assert codes == [0, 0], error
    expected, got = load_file(undisturbed / "generator.safetensors"), load_file(run / "generator.safetensors")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert [losses(line) for line in curve(run)] == [losses(line) for line in curve(undisturbed)]


def test_a_run_saves_and_ends_when_it_is_asked_and_the_same_command_goes_on(shards, tmp_path):
    run, longer = (
        tmp_path / "run",
        ["train.backend=ddp", "train.pairs.I=480", "train.pairs.II=0", "log.checkpoint=9999"],
    )
    run.mkdir()
    for what in ("save", "stop"):
        asked.ask(run, what, "")  # no launcher started it, so it is of no job
    codes, error, _ = start(2, run, shards, *longer)
    assert codes == [86, 86], error
    saved = int(re.search(r"saves at (\d+) pairs, as was asked", error)[1])
    assert 0 < saved < 480 and [path.name for path in run.glob("checkpoints/pairs-*")] == [f"pairs-{saved:09d}"]
    asked.ask(run, "stop", "77")  # of another job
    asked.ask(run, "save", "")
    codes, error, _ = start(2, run, shards, *longer)
    assert codes == [0, 0] and f"goes on from {saved} pairs" in error, error
    assert "pairs, as was asked" in error and not list((run / "asked").iterdir())
    assert [line["pairs"] for line in curve(run)] == list(range(12, 481, 12))


@pytest.mark.parametrize("later", [(), ("variant=three-discriminators", "train.pairs.II=0", "train.pairs.joint=36")])
def test_a_run_on_anothers_stage_I_ends_with_the_weights_of_one_that_trained_its_own(later, shards, tmp_path):
    """35 pairs of stage I: its last step goes beyond its end, and the order of the pairs must go on behind that."""
    uneven = ("train.pairs.I=35", "train.seed=3")
    codes, error, own = start(2, tmp_path / "own", shards, *uneven, *later)
    assert codes == [0, 0], error
    codes, error, first = start(2, tmp_path / "first", shards, *uneven, "train.pairs.II=0")
    assert codes == [0, 0], error
    init = (f"train.init={tmp_path}/first/generator.safetensors", "train.init_after=I")
    codes, error, second = start(2, tmp_path / "row", shards, *uneven, *later, *init)
    assert codes == [0, 0] and "starts at 36 pairs, after stage I of" in error, error
    assert first + second == own and sum(second.values()) == 36
    for part in (".", sorted((tmp_path / "own/checkpoints").iterdir())[-1].relative_to(tmp_path / "own")):
        names = sorted(file.name for file in (tmp_path / "own" / part).glob("*.safetensors"))
        assert names
        for name in names:  # of the last checkpoint also the discriminators, and what the optimisers keep
            wanted, found = (load_file(tmp_path / run / part / name) for run in ("own", "row"))
            assert wanted.keys() == found.keys()
            assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    last = [curve(tmp_path / run)[-1] for run in ("own", "row")]
    assert losses(last[0]) == losses(last[1]) and last[0]["steps"] == last[1]["steps"]

    codes, error, _ = start(1, tmp_path / "other", shards, "train.pairs.I=48", *init)
    assert codes == [2] and "was made after 36 pairs of stage I, and" in error and "expects 48 of I" in error


def test_a_damaged_checkpoint_is_named_and_the_run_ends_as_the_undisturbed_one(undisturbed, shards, tmp_path):
    run = tmp_path / "run"
    codes, error, _ = start(2, run, shards, strike="1 SIGUSR1 60")
    assert codes == [85, 85], error
    file = run / "checkpoints/pairs-000000060/rank-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    codes, error, _ = start(2, run, shards)
    assert codes == [0, 0], error
    assert f"warning: checkpoint {run}/checkpoints/pairs-000000060 is damaged (rank-00001.safetensors is not" in error
    assert re.search(r"goes on from (36|48) pairs", error)
    assert (run / "checkpoints/damaged-pairs-000000060").is_dir()
    expected, got = load_file(undisturbed / "generator.safetensors"), load_file(run / "generator.safetensors")
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_what_the_run_is_may_change_with_leave_only_and_all_changes_are_said(shards, tmp_path):
    run = tmp_path / "run"
    codes, error, _ = start(1, run, shards, strike="0 SIGUSR1 24")
    assert codes == [85] and f"starts at 0 pairs: {run} has no checkpoint" in error
    codes, error, _ = start(1, run, shards, "train.lr=1e-3", "mscgan.lambda_bg_1=2")
    assert codes == [2] and "was made with train.lr 0.003, now it is 0.001; with mscgan.lambda_bg_1 1.0, now" in error
    assert "or allow=[train.lr,mscgan.lambda_bg_1] to go on all the same" in error
    changes = ("train.lr=1e-3", "allow=[train.lr]", "log.every=24", "train.zero=2", "train.pairs.II=0")
    codes, error, _ = start(1, run, shards, *changes)
    assert codes == [0], error
    assert "changed with leave (allow): train.lr 0.003, now it is 0.001" in error
    assert "changed since the last start: allow [] -> ['train.lr'], " in error and "log.every 12 -> 24" in error
    assert "zero 1 -> 2: sums are taken in another order, so losses agree to rounding, not bit for bit" in error
    kept = {path.name: load(str(path)).train.lr for path in run.glob("config-*.yaml")}
    assert kept == {"config-000000000.yaml": 3e-3, "config-000000024.yaml": 1e-3}


def test_other_numbers_of_ranks_follow_the_undisturbed_curve_and_lose_no_pair(undisturbed, shards, tmp_path):
    """4 ranks with ZeRO 1, 2 with ZeRO 0, 3 with ZeRO 2, then one with DDP; the signal reaches one rank, and all of
    them save and stop together."""
    run, seen, said = tmp_path / "run", Counter(), []
    starts = (
        (4, "train.zero=1", "1 SIGUSR1 24"), (2, "train.zero=0", "1 SIGUSR2 48"), (3, "train.zero=2", "2 SIGTERM 60"),
        (1, "train.backend=ddp", ""),
    )  # fmt: skip
    for ranks, way, strike in starts:
        codes, error, pairs = start(ranks, run, shards, "train.batch=12", way, strike=strike)
        assert codes == [85 if strike else 0] * ranks, error
        seen += pairs
        wanted = (" from ", "sums are", "done", "    python")
        said += [line for line in error.splitlines() if any(part in line for part in wanted)]
    other = "sums are taken in another order, so losses agree to rounding, not bit for bit"
    at = [f"({run}/checkpoints/pairs-0000000{pairs})" for pairs in (24, 48, 60)]
    assert said == [
        f"saved at 24 pairs, 2 steps {at[0]}; the same command goes on from there",
        f"goes on from 24 pairs {at[0]}",
        f"ranks 4 -> 2, zero 1 -> 0: {other}",
        f"saved at 48 pairs, 4 steps {at[1]}; the same command goes on from there",
        f"goes on from 48 pairs {at[1]}",
        f"ranks 2 -> 3, zero 0 -> 2: {other}",
        f"saved at 60 pairs, 5 steps {at[2]}; the same command goes on from there",
        f"goes on from 60 pairs {at[2]}",
        f"ranks 3 -> 1, backend deepspeed -> ddp, zero 2 -> 0: {other}",
        "done: 72 pairs, 6 steps; next:",
        f"    python -m mscgan.evaluate --run {run}",
        f"    python -m mscgan.generate --run {run} --pairs 8",
        f"    python -m mscgan.report {run}    # writes {run}/report.html",
    ]
    assert sum(seen.values()) == 72 and max(seen.values()) == 1
    for expected, got in zip(curve(undisturbed), curve(run), strict=True):
        assert (got["pairs"], got["epoch"], got["stage"]) == (expected["pairs"], expected["epoch"], expected["stage"])
        assert losses(got) == pytest.approx(losses(expected), rel=2e-5)


def test_joint_training_with_three_discriminators_and_micro_batches_runs_in_bf16(shards, tmp_path):
    run = tmp_path / "run"
    overrides = (
        "train.pairs.I=0 train.pairs.II=0 train.pairs.joint=24 train.accumulate=2 train.precision=bf16 "
        "train.backend=ddp mscgan.scales=[1,2,4] mscgan.pool=mean3 data.mask=pose-gan data.heatmap=disc"
    )
    codes, error, pairs = start(2, run, shards, *overrides.split())
    assert codes == [0, 0], error
    assert {"L1_1", "L1_2", "D3_real", "G_D3"} <= set(curve(run)[-1])
    assert sum(pairs.values()) == 24


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(shards, tmp_path):
    overrides = ("train.lr=1e30", "log.checkpoint=12", "train.backend=ddp", "train.precision=auto", "data.threads=0")
    codes, error, _ = start(1, tmp_path / "run", shards, *overrides)
    assert codes == [1]
    kept = load(str(tmp_path / "run" / "config.yaml"))
    assert kept.train.precision in ("bf16", "fp32") and f"precision: {kept.train.precision}, as " in error
    assert 1 <= kept.data.threads <= 8
    last = error.strip().splitlines()[-1]
    assert re.search(r"not finite in the step that ends at 24 pairs \(L1_1 .*checkpoints/pairs-000000012", last), last
    assert "Traceback" not in error


def test_a_mistake_gets_one_line_and_exit_code_2(shards, tmp_path):
    codes, error, _ = start(2, tmp_path / "run", shards, "train.backend=ddp", "train.batch=13")
    assert codes == [2, 2]
    assert error == "error: [rank 0] batch 13 is not a multiple of 2 ranks x 1; set train.batch to 12 or 14\n"


def test_a_run_that_another_process_trains_is_refused_once_and_left_as_it_is(shards, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    lease = take(run)
    codes, error, pairs = start(2, run, shards)
    assert codes == [2, 2] and not pairs and error.count("\n") == 1
    assert error.startswith(f"error: [rank 0] {run} belongs to process ")
    assert [path.name for path in run.iterdir()] == ["lease"]
    lease.release()


def test_a_training_that_was_taken_for_dead_publishes_nothing_more(shards, tmp_path):
    run, logs = tmp_path / "run", tmp_path / "logs"
    command = [sys.executable, "-m", "mscgan.train", "--config", "demo", f"data.root={shards}", f"run={run}", *TINY]
    # Ten steps between what is published: not stopped just between its look at the lease and what it writes.
    command += ["train.pairs.I=360000", "log.every=120", "log.samples=120", "log.checkpoint=120"]
    ranks = start_ranks([command] * 2, logs, CUDA_VISIBLE_DEVICES="")
    while not list(run.glob("checkpoints/pairs-*")):
        assert ranks[0].poll() is None, (logs / "0.err").read_text()
        time.sleep(0.05)
    ranks[0].send_signal(signal.SIGSTOP)
    while not process.stopped(ranks[0].pid):
        time.sleep(0.01)
    (run / "lease").unlink()
    written(run)
    before = published(run)
    ranks[0].send_signal(signal.SIGCONT)
    assert exit_codes(ranks) == [2, 2]
    assert published(run) == before and (run / "lease").exists()
    last = (logs / "0.err").read_text().splitlines()[-1]
    assert last.startswith(f"error: [rank 0] {run} now belongs to process 4242 on n7, job 77, attempt 2")


def published(run: Path) -> dict[str, int]:
    """Every file that readers of the run look at, and when it was last written."""
    files = [path for path in run.rglob("*") if path.is_file() and not {"heartbeat"} & set(path.parts)]
    named = [path for path in files if path.name[0] != "." and "partial-" not in str(path)]
    return {str(path): path.stat().st_mtime_ns for path in named if path.name != "lease"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.root={absent}", "no shard folder '.*/absent'"),
        ("data.height=64", "holds images of 32x32"),
        ("run=''", "no run folder"),
        ("train.pairs.I=0 train.pairs.II=0", "nothing to train"),
    ],
)
def test_what_does_not_fit_is_said_before_the_ranks_meet(override, said, shards, tmp_path):
    with pytest.raises(UserError, match=said):
        overrides = override.format(absent=tmp_path / "absent").split()
        train(load("demo", [f"data.root={shards}", f"run={tmp_path}", *TINY, *overrides]))


def test_a_run_of_an_older_version_is_refused_and_not_trained_anew(shards, tmp_path):
    (tmp_path / "checkpoints/images-000000036").mkdir(parents=True)
    with pytest.raises(UserError, match="images-000000036 is of an older version"):
        train(load("demo", [f"data.root={shards}", f"run={tmp_path}", *TINY]))


def test_cuda_graphs_without_cuda_are_refused(shards, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    codes, error, pairs = start(1, tmp_path / "run", shards, "train.cuda_graphs=true")
    assert codes == [2] and "train.cuda_graphs needs a CUDA GPU" in error and not pairs


def test_compiled_networks_in_DeepSpeed_are_refused_on_several_ranks(shards, tmp_path):
    codes, error, pairs = start(2, tmp_path / "run", shards, "train.compile=true")
    assert codes == [2, 2] and "set train.backend=ddp" in error and not pairs
    for backend, ranks in (("ddp", 2), ("deepspeed", 1)):
        check_compile(Train(compile=True, cuda_graphs=True, backend=backend), ranks)
    with pytest.raises(UserError, match="train.cuda_graphs with train.backend=deepspeed over 8 ranks"):
        check_compile(Train(cuda_graphs=True), 8)


@pytest.mark.slow
def test_compiled_networks_train_as_the_others_do(undisturbed, shards, tmp_path):
    codes, error, _ = start(2, tmp_path / "run", shards, "train.compile=true", "train.backend=ddp")
    assert codes == [0, 0], error
    assert [line.split(";")[0] for line in error.splitlines() if line.startswith("compiling")] == [
        "compiling the networks of stage I", "compiling the networks of stage II",
    ]  # fmt: skip
    for line, expected in zip(curve(tmp_path / "run"), curve(undisturbed), strict=True):
        assert losses(line) == pytest.approx(losses(expected), rel=1e-4)


@pytest.mark.slow
def test_ZeRO_3_trains_and_goes_on_as_ZeRO_1_does(undisturbed, shards, tmp_path):
    codes, error, _ = start(2, tmp_path / "run", shards, "train.zero=3", strike="all SIGTERM 48")
    assert codes == [85, 85], error
    codes, error, _ = start(2, tmp_path / "run", shards, "train.zero=3")
    assert codes == [0, 0], error
    assert curve(tmp_path / "run")[-1]["pairs"] == 72
    for line in curve(tmp_path / "run"):
        expected = next(other for other in curve(undisturbed) if other["pairs"] == line["pairs"])
        assert losses(line) == pytest.approx(losses(expected), rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mask", ["pg2", "pose-gan"])
def test_no_step_waits_for_the_gpu(mask):
    config = load("demo", ["train.precision=bf16", f"data.mask={mask}", "train.backend=ddp"])
    ranks = dist.init()
    state = State(config, ranks.device, 4)
    state.enter("joint")
    images = torch.zeros(4, 64, 32, 3, dtype=torch.uint8, device="cuda")
    keypoints, flip = torch.rand(4, 18, 2, device="cuda") * 31, torch.zeros(4, dtype=torch.bool, device="cuda")
    batch = Batch(images, images, keypoints, keypoints, flip, torch.arange(4))
    try:
        for mode in ("default", "default", "error"):  # what is copied or allocated once is so before
            torch.cuda.set_sync_debug_mode(mode)
            state.step([prepare(batch, config.data, "bf16")])
            state.follow(4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        dist.shutdown()


def test_a_finished_run_is_not_trained_further_and_never_means_never(undisturbed, shards):
    lost = [undisturbed / name for name in ("config.yaml", "generator.safetensors")]
    before = [file.read_bytes() for file in lost]
    for file in lost:
        file.unlink()
    codes, said, pairs = start(2, undisturbed, shards)
    assert codes == [0, 0] and not pairs and said.startswith("already complete: 72 pairs; next:\n")
    assert [file.read_bytes() for file in lost] == before
    codes, error, _ = start(1, undisturbed, shards, "train.pairs.I=60")
    assert codes == [2] and "pairs-000000072 is in stage II, which with the train.pairs given now" in error
    codes, error, _ = start(1, undisturbed, shards, "resume=never")
    assert codes == [2] and "resume=never" in error


def test_other_shards_than_the_checkpoints_are_refused(undisturbed, tmp_path):
    other = write_shards(tmp_path / "other", persons=3, views=4, height=32, width=32)
    codes, error, _ = start(1, undisturbed, other, "train.pairs.II=72")
    assert codes == [2] and "was made with shards" in error


@pytest.mark.parametrize(("world", "accumulate", "expected"), [(1, 1, 12), (2, 1, 6), (2, 3, 2)])
def test_the_global_batch_divides_over_ranks_and_micro_batches(world, accumulate, expected):
    assert micro_batch(12, world, accumulate) == expected


def test_a_global_batch_that_does_not_divide_is_refused_with_better_ones():
    with pytest.raises(UserError, match="batch 30 is not a multiple of 4 ranks x 1; set train.batch to 28 or 32"):
        micro_batch(30, 4, 1)
    with pytest.raises(UserError, match="to 8$"):
        micro_batch(5, 8, 1)
