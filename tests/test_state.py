"""What State keeps: the average's law, what goes from stage to stage, what is exported, what comes back."""

from collections.abc import Iterator

import pytest
import torch

from mscgan import dist
from mscgan.errors import UserError
from mscgan.state import State
from tests.model_rank import config, inputs
from tests.whole_state import whole


@pytest.fixture
def alone() -> Iterator[dist.Ranks]:
    yield dist.init("cpu")
    dist.shutdown()


def state(ranks: dist.Ranks, family: str = "mscgan", *overrides: str, stage: str = "") -> State:
    made = State(config(family, "train.backend=ddp", *overrides), ranks.device, 2)
    if stage:
        made.enter(stage)
    return made


def fill(module: torch.nn.Module, value: float) -> None:
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(value)


def only_value(module: torch.nn.Module) -> float:
    values = torch.cat([weight.flatten() for weight in module.parameters()])
    assert values.max() - values.min() < 1e-6
    return values[0].item()


def test_after_the_halflife_a_weight_counts_half(alone):
    ours = state(alone, "mscgan", "train.ema_halflife=100", stage="joint")
    ours.seen = 2_000  # from here on the ramp-up allows the whole half-life
    fill(ours.average, 1.0)
    fill(ours.networks["G"], 0.0)
    for pairs, left in ((25, 0.5**0.25), (75, 0.5), (200, 0.125)):  # of the 1.0, after 25, 100 and 300 pairs
        ours.follow(pairs)
        assert only_value(ours.average) == pytest.approx(left, rel=1e-5)


def test_the_average_of_a_short_run_is_of_its_last_weights(alone):
    ours = state(alone, "mscgan", "train.ema_halflife=10000", stage="joint")
    fill(ours.networks["G"], 1.0)
    for _ in range(10):
        ours.follow(8)
    assert only_value(ours.average) == pytest.approx(1.0, abs=0.1)
    fill(ours.networks["G"], 0.0)
    ours.follow(8)  # 88 pairs seen: the half-life is 4.4 pairs
    assert only_value(ours.average) == pytest.approx(0.5 ** (8 / 4.4), rel=1e-3)


@pytest.mark.parametrize(("stage", "moves"), [("I", {"G1"}), ("II", {"G2"}), ("joint", {"G1", "G2"})])
def test_the_average_follows_what_the_stage_trains_and_leaves_the_rest_alone(stage, moves, alone):
    ours = state(alone, "mscgan", stage=stage)
    fill(ours.networks["G"], 1.0)
    fill(ours.average, 0.0)
    ours.follow(8)
    generators = dict(ours.average["G"].named_children())
    assert {name for name, network in generators.items() if only_value(network) > 0} == moves


def test_a_stage_counts_its_pairs_from_its_start_and_goes_on_counting(alone):
    ours = state(alone, stage="I")
    ours.follow(8)
    tensors, facts = whole(ours)
    other = state(alone)
    other.restore(tensors, facts)
    assert other.seen == 8
    other.enter("II")
    assert other.seen == 0


def test_every_engine_steps_at_the_rate_of_the_batch_and_the_warm_up(alone):
    # tuned for 4 pairs, and a batch is 16: twice the rate; after 16 of 64 pairs of warm-up, half of that for the second
    ours = state(
        alone, "mscgan", "train.batch=16", "train.tuned_batch=4", "train.lr=1e-3", "train.warmup=64", stage="joint"
    )
    rates = []
    for number in range(5):
        ours.step([inputs(ours.config, number)])
        rates.append({group["lr"] for engine in ours.engines.values() for group in engine._optimizer.param_groups})
        ours.follow(16)
    assert [rate for (rate,) in rates] == pytest.approx([0.5e-3, 1e-3, 1.5e-3, 2e-3, 2e-3])


def test_without_a_halflife_the_average_is_the_weights_themselves(alone):
    ours = state(alone, "pg2", "train.ema_halflife=0", stage="I")
    fill(ours.networks["G1"], 3.0)
    ours.follow(1)
    assert torch.equal(
        ours.average["G1"].encoder["CONV1"].conv.weight, ours.networks["G1"].encoder["CONV1"].conv.weight
    )


@pytest.mark.parametrize(("family", "G1"), [("mscgan", "G.G1"), ("pg2", "G1")])
def test_what_follows_stage_I_stands_on_its_average_and_keeps_the_rest(family, G1, alone):
    ours = state(alone, family, stage="I")
    ours.step([inputs(ours.config, 0)])
    ours.follow(8)
    before = {name: tensor.clone() for name, tensor in ours.networks.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in ours.average.state_dict().items()}
    assert not torch.equal(before[f"{G1}.decoder.CONV1.conv.weight"], average[f"{G1}.decoder.CONV1.conv.weight"])
    ours.enter("II")
    for name, tensor in ours.networks.state_dict().items():
        assert torch.equal(tensor, average[name] if name.startswith(f"{G1}.") else before[name]), name


def test_after_stage_II_nothing_is_taken_from_the_average(alone):
    ours = state(alone, stage="II")
    fill(ours.average, 5.0)
    before = {name: tensor.clone() for name, tensor in ours.networks.state_dict().items()}
    ours.enter("joint")
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.networks.state_dict().items())


def test_a_share_is_a_copy_and_the_next_one_takes_its_memory(alone):
    ours, kept = state(alone, stage="II"), {}
    fill(ours.networks, 1.0)
    fill(ours.average, 1.0)
    first = ours.share(0, 1, kept)
    fill(ours.networks, 2.0)
    fill(ours.average, 2.0)
    for tensors in ({"w": first.pieces["D.D1.FC.weight"].tensor}, first.generator):
        assert all((tensor == 1).all() for tensor in tensors.values())
    memory = {name: tensor.data_ptr() for name, tensor in kept.items()}
    second = ours.share(0, 1, kept)
    assert (second.pieces["D.D1.FC.weight"].tensor == 2).all() and (
        second.generator["G.G2.decoder.CONV1.conv.bias"] == 2
    ).all()
    assert memory == {name: tensor.data_ptr() for name, tensor in kept.items()}
    ours.enter("I")
    third = ours.share(0, 1, kept)
    assert kept.keys() == third.pieces.keys() | {f"average.{name}" for name in third.generator}


@pytest.mark.parametrize("family", ["mscgan", "pg2"])
def test_the_export_is_the_average_of_what_makes_images(family, alone):
    ours = state(alone, family, stage="II")
    fill(ours.average, 0.25)
    exported = ours.share(0, 1).generator
    assert {name.partition(".")[0] for name in exported} == set(ours.family.MAKES)
    assert all((tensor == 0.25).all() for tensor in exported.values())
    assert exported.keys() == {name for name in ours.networks.state_dict() if not name.startswith("D.")}


def test_a_run_starts_from_an_export_with_its_average_and_fresh_discriminators(alone):
    ours, other = state(alone), state(alone, "mscgan", "train.seed=3")
    fresh = {name: tensor.clone() for name, tensor in ours.networks["D"].state_dict().items()}
    exported = other.average.state_dict()
    ours.start_from(exported)
    for name, tensor in exported.items():
        assert torch.equal(ours.networks.state_dict()[name], tensor)
        assert torch.equal(ours.average.state_dict()[name], tensor)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in ours.networks["D"].state_dict().items())


def test_weights_of_other_networks_are_refused(alone):
    with pytest.raises(UserError, match="of other networks .*set family, data and mscgan"):
        state(alone).start_from(state(alone, "pg2").average.state_dict())


def test_names_in_a_checkpoint_are_the_networks_places(alone):
    tensors, facts = whole(state(alone, stage="II"))
    assert {"G.G1.encoder.CONV1.conv.weight", "average.G.G2.decoder.CONV1.conv.bias", "D.D1.FC.weight"} <= set(tensors)
    assert (
        "exp_avg.G.G2.encoder.CONV1.conv.weight" in tensors and "exp_avg.G.G1.encoder.CONV1.conv.weight" not in tensors
    )
    assert facts == {"stage": "II", "seen": 0, "engines": {"G.G2.": {"step": 0}, "D.": {"step": 0}}}
