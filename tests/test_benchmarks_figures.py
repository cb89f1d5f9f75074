"""The arithmetic of the benchmarks, and what mscgan.costs counts, against numbers computed by hand and by numpy."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import baseline, ops, projection, scaling, settings, step, timing
from mscgan import costs, dist
from mscgan.config import load
from mscgan.errors import UserError


@pytest.fixture(scope="module")
def alone():
    yield dist.init("cpu")
    dist.shutdown()


def test_percentiles_and_spread_are_numpys():
    values = list(np.random.default_rng(0).exponential(size=37))
    found = timing.summary(values)
    for key, percent in (("p5", 5), ("median", 50), ("p95", 95), ("p99", 99)):
        assert found[key] == pytest.approx(np.percentile(values, percent))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    low, high = stats.t.interval(0.95, 36, loc=np.mean(values), scale=stats.sem(values))
    assert found["ci95"] == pytest.approx((high - low) / 2, rel=1e-3)


@pytest.mark.parametrize("degrees", [*range(1, 41), 100, 1000])
def test_the_quantile_of_students_t_is_scipys(degrees):
    assert timing.student_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-3)


def test_three_rounds_have_an_interval_more_than_twice_the_normal_ones():
    assert timing.summary([1.0, 2.0, 3.0])["ci95"] == pytest.approx(4.303 / 3**0.5)


def test_one_value_says_nothing_of_its_spread():
    assert timing.summary([2.0])["ci95"] is None
    assert timing.rate([2.0], 8)["ci95"] is None


def test_a_rate_is_the_count_over_the_median_time():
    found = timing.rate([0.5, 1.0, 2.0], 8)
    assert found["median"] == 8.0
    assert found["p5"] < found["median"] < found["p95"]


def test_rounds_change_their_order():
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "ABC"}
    timing.interleave(cases, 3)
    assert "".join(order) == "ABCCBAABC"


def test_what_was_measured_is_kept_after_each_case_also_where_the_first_round_is_over():
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "AB"}
    timing.interleave(cases, 3, after=lambda: order.append("."), first=1)
    assert "".join(order) == "B.A.A.B."


def test_the_batch_is_halved_until_it_fits():
    def measure(batch):
        if batch > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return {"batch": batch}

    found, failures = timing.halving(32, measure)
    assert found == {"batch": 8}
    assert [failure["batch"] for failure in failures] == [32, 16]
    assert failures[0]["error"] == "CUDA out of memory. Tried to allocate 2 GiB"


def test_a_batch_of_one_that_does_not_fit_is_an_error():
    def measure(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        timing.halving(2, measure)


def test_laps_count_from_the_start_of_their_step(monkeypatch):
    times = iter([0.0, 1.0, 3.0, 10.0, 14.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(times))
    laps = timing.Laps(torch.device("cpu"))
    for name in ("", "a", "b", "", "a"):
        laps.lap(name)
    assert laps.seconds() == [{"step": 3.0, "a": 1.0, "b": 2.0}, {"step": 4.0, "a": 4.0}]
    assert laps.seconds() == []


@pytest.mark.parametrize(("preset", "base"), [("demo", 8), ("market1501", 128)])
def test_the_counted_flops_of_a_step_are_those_of_its_forwards_and_backwards(preset, base):
    """A backward pass costs twice its forward: half the gradient of the weights, half that of the input.

    8 D: forward of real and fake pairs (2), their backward (4), and in G's loss forward (1) and gradient of input (1).
    The first layer's share of its input's gradient is left out where nothing that learns made the input: G1's condition
    always, G2's x and y1 in stage II, and D's pairs in its own update. It costs as much as that layer's forward.
    """
    config = load(preset, [f"mscgan.base={base}"])
    layers = costs.layers(config)
    G1, G2, D1, D2 = (sum(layer.gflop for layer in layers[name]) for name in ("G1", "G2", "D1", "D2"))
    first_G1, first_G2, first_D1, first_D2 = (layers[name][0].gflop for name in ("G1", "G2", "D1", "D2"))
    by_hand = {
        "I": 3 * G1 - first_G1,
        "II": G1 + 3 * G2 - first_G2 + 8 * (D1 + D2) - 2 * (first_D1 + first_D2),
        "joint": 3 * G1 - first_G1 + 3 * G2 + 8 * (D1 + D2) - 2 * (first_D1 + first_D2),
    }
    # Two FLOPs a multiply-add of 3*3 kernels on 21 and 6 channels, 4*4 kernels on 6.
    pixels = config.data.height * config.data.width
    assert first_G1 == pytest.approx(2e-9 * pixels * 9 * 21 * base)
    assert first_G2 == pytest.approx(2e-9 * pixels * 9 * 6 * base)
    assert first_D1 == pytest.approx(2e-9 * pixels / 4 * 16 * 6 * base)
    for stage, gflop in by_hand.items():
        assert costs.step_gflop(config, stage) == pytest.approx(gflop, rel=1e-9), stage


@pytest.mark.parametrize(
    ("preset", "joint", "one", "two", "generators", "discriminators"),
    [("market1501", 304.9, 160.7, 197.8, 93.0, 22.1), ("deepfashion", 3221.6, 1631.9, 2133.9, 373.2, 89.3)],
)
def test_flops_a_pair_and_parameters_of_the_papers_sizes(preset, joint, one, two, generators, discriminators):
    config = load(preset)
    for stage, gflop in (("joint", joint), ("I", one), ("II", two)):
        assert costs.step_gflop(config, stage) == pytest.approx(gflop, rel=3e-4)
    trained = costs.trained_parameters(config, "joint")
    assert trained["G"] / 1e6 == pytest.approx(generators, rel=2e-3)
    assert trained["D"] / 1e6 == pytest.approx(discriminators, rel=2e-3)
    assert set(costs.trained_parameters(config, "I")) == {"G"}


@pytest.mark.parametrize("stage", ["I", "II", "joint"])
def test_the_baseline_of_one_forward_makes_the_flops_that_a_step_is_credited_with(alone, stage):
    config = load("demo", ["mscgan.base=8"])
    batch = step.random_batch(config, 2, alone.device, 0)
    made = {}
    for forwards in (1, 2):
        plain = baseline.PlainStep(config, stage, alone.device, forwards=forwards)
        with FlopCounterMode(display=False) as counter:
            plain(batch)
        made[forwards] = counter.get_total_flops() / 2e9
    mask = 2e-9 * 64 * 32 * 5 * 5  # drawn as a convolution of a disc of radius 2
    assert made[1] - mask == pytest.approx(costs.step_gflop(config, stage), rel=1e-9)
    layers = {name: sum(layer.gflop for layer in rows) for name, rows in costs.layers(config).items()}
    again = {"I": 0.0, "II": layers["G1"] + layers["G2"], "joint": layers["G1"] + layers["G2"]}[stage]
    assert made[2] - made[1] == pytest.approx(again, rel=1e-6)


def test_bytes_of_the_pyramid_are_the_floor_of_the_cost_model():
    # 9 channels read, 12 * (1 + 1/4 + 1/16) written with three scales: 24.75 units of H * W elements.
    op = ops.table(torch.float32)["pyramid"]
    inputs = op.inputs(2, 32, 16, torch.float32, torch.device("cpu"))
    assert op.forward_bytes(inputs, op.plain(*inputs)) == 24.75 * 32 * 16 * 4 * 2


def test_bytes_of_bias_act_are_read_write_and_a_bit():
    op = ops.table(torch.float32)["bias_act"]
    inputs = op.inputs(1, 8, 8, torch.float32, torch.device("cpu"))
    elements = 128 * 64
    assert op.forward_bytes(inputs, op.plain(*inputs)) == elements * 8 + 128 * 4 + elements // 8
    assert op.backward_bytes(inputs, op.plain(*inputs)) == elements * 8 + elements // 8


def test_ranks_are_powers_of_two_and_the_last_is_all():
    assert scaling.counts(1) == [1]
    assert scaling.counts(2) == [1, 2]
    assert scaling.counts(8) == [1, 2, 4, 8]
    assert scaling.counts(6) == [1, 2, 4, 6]


def test_strong_scalings_batch_gives_equal_shares_everywhere():
    assert scaling.global_batch(16, 4) == 16
    assert scaling.global_batch(2, 8) == 8
    assert scaling.global_batch(16, 6) == 24


def test_efficiency_is_one_where_ranks_add_up():
    assert scaling.efficiency(80.0, 8, 10.0) == 1.0
    assert scaling.efficiency(60.0, 8, 10.0) == 0.75


def test_projection_matches_a_calculation_by_hand():
    # 2 * 15 / 16 * 1e9 B / 50e9 B/s = 37.5 ms, 2.5 ms of it behind 35 ms of backward; D: 3.75 ms, all hidden.
    exchanges = [projection.Exchange(1e9, 0.035), projection.Exchange(1e8, 0.005)]
    found = projection.project(0.1, exchanges, batch=16, nodes=2, ranks_a_node=8, bandwidth=50e9)
    assert found["ranks"] == 16
    assert found["all_reduce_ms"] == pytest.approx(41.25)
    assert found["exposed"]["step_ms"] == pytest.approx(141.25)
    assert found["hidden"]["step_ms"] == pytest.approx(102.5)
    assert found["hidden"]["pairs_per_second"] == pytest.approx(16 * 16 / 0.1025)
    assert found["hidden"]["efficiency"] == pytest.approx(0.1 / 0.1025)


def test_one_rank_exchanges_nothing():
    assert projection.all_reduce_seconds(1e9, 1, 1e9) == 0.0


def test_times_over_ranks_are_the_slowest_ranks(monkeypatch):
    def of_another_rank(values, op):
        assert op == torch.distributed.ReduceOp.MAX
        values.copy_(torch.maximum(values, torch.tensor([2.0, 9.0, 1.0, 0.0], dtype=torch.float64)))

    monkeypatch.setattr(torch.distributed, "all_reduce", of_another_rank)
    steps = [{"step": 3.0, "D": 1.0}, {"step": 4.0, "D": 2.0}]
    assert timing.slowest_steps(steps) == [{"step": 3.0, "D": 9.0}, {"step": 4.0, "D": 2.0}]


@pytest.mark.parametrize("preset", settings.PRESETS)
def test_without_the_packages_that_read_them_the_presets_are_the_same(monkeypatch, preset):
    read = settings.load(preset, [], "fp32")
    monkeypatch.setattr(settings, "missing", lambda imports: "omegaconf")
    bare = settings.load(preset, [], "fp32")
    read.data.root = bare.data.root
    assert (bare.data, bare.mscgan) == (read.data, read.mscgan)
    of_a_step = "accumulate betas ema_halflife seed backend zero precision compile cuda_graphs".split()
    assert [getattr(bare.train, key) for key in of_a_step] == [getattr(read.train, key) for key in of_a_step]
    with pytest.raises(UserError, match="omegaconf, which is not installed"):
        settings.load(preset, ["train.seed=1"], "fp32")


def test_a_changed_configuration_leaves_the_first_as_it_was():
    config = load("demo")
    other = settings.changed(config, {"train.backend": "ddp", "data.height": 32})
    assert (other.train.backend, other.data.height) == ("ddp", 32)
    assert (config.train.backend, config.data.height) == ("deepspeed", 64)
