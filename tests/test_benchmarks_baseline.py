"""The other side of the benchmarks computes what this project computes, so that their ratio is one of speed alone."""

from dataclasses import replace

import pytest
import torch

from benchmarks import baseline, ops, step
from benchmarks.timing import Laps
from mscgan import dist
from mscgan.config import load
from mscgan.errors import UserError
from mscgan.models import FAMILIES
from mscgan.models.mscgan import Discriminators, Generators
from mscgan.prepare import prepare
from mscgan.rates import learning_rate

SMALL = "train.backend=ddp data.height=32 data.width=16".split()
CONFIG = load("demo", [*SMALL, "mscgan.base=8", "mscgan.lambda_D=[0.7,0.3]"])
PG2 = load("demo", [*SMALL, "family=pg2", "pg2.base=8"])


@pytest.fixture(scope="module")
def ranks():
    yield dist.init("cpu")
    dist.shutdown()


def ordinary(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """The convolutions' among our weights, or gradients of them, in the order of torch's."""
    return [weight.permute(0, 3, 1, 2) if weight.dim() == 4 else weight for weight in weights]


def test_plain_networks_give_the_result_and_the_gradients_of_ours():
    torch.manual_seed(0)
    G, D = Generators(32, 16, 8), Discriminators(32, 16, 8)
    given = torch.randn(3, 21, 32, 16)
    pairs = [torch.randn(3, 6, 32, 16), torch.randn(3, 6, 16, 8)]
    for ours, inputs in ((G, [given]), (D, [pairs])):
        plain = baseline.plain(ours)
        assert plain.state_dict().keys() == ours.state_dict().keys()
        results = []
        for network in (ours, plain):
            outputs = torch.utils._pytree.tree_leaves(network(*inputs))
            sum(x.square().sum() for x in outputs).backward()
            results.append((outputs, [parameter.grad for parameter in network.parameters()]))
        (outputs, grads), (their_outputs, their_grads) = results
        for mine, theirs in zip(outputs + ordinary(grads), their_outputs + their_grads, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_no_layer_of_ours_is_left_in_a_plain_network():
    network = baseline.plain(Generators(32, 16, 8))
    assert not any(isinstance(module, baseline.Layer) for module in network.modules())


@pytest.mark.parametrize("name", ops.table(torch.float32))
def test_the_eager_version_of_an_op_gives_its_result_and_gradients(name):
    op = ops.table(torch.float32)[name]
    torch.manual_seed(1)
    inputs = op.inputs(2, 32, 16, torch.float32, torch.device("cpu"))
    found = []
    for call in (op.ours, op.plain):
        own = [x.clone().requires_grad_(i in op.differentiated) for i, x in enumerate(inputs)]
        outputs = call(*own)
        trained = [x for x in outputs if x.requires_grad]
        if trained:
            sum(x.square().sum() for x in trained).backward()
        found.append(([x.detach() for x in outputs], [own[i].grad for i in op.differentiated]))
    for mine, theirs in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("forwards", [1, 2])
@pytest.mark.parametrize("stage", ["I", "II", "joint"])
def test_a_plain_step_moves_the_weights_as_a_step_of_training_does(ranks, stage, forwards):
    batch = step.random_batch(CONFIG, 4, ranks.device, 0)
    plain = baseline.PlainStep(CONFIG, stage, ranks.device, forwards=forwards)
    state = step.State(CONFIG, ranks.device, 4)
    G, D = state.networks["G"], state.networks["D"]
    for name, weight in plain.D.state_dict().items():
        assert torch.equal(*ordinary([D.state_dict()[name]]), weight), name
    plain(batch)
    state.enter(stage)
    start = {name: weight.clone() for name, weight in G.state_dict().items()}
    state.step([prepare(batch, CONFIG.data)])
    theirs = {f"{name}.{key}": w for name in ("G1", "G2") for key, w in getattr(plain, name).state_dict().items()}
    lr = learning_rate(CONFIG.train, stage, seen=0)
    weights = G.state_dict()
    for name, weight, before in zip(weights, *map(ordinary, (weights.values(), start.values())), strict=True):
        # Adam's first step is lr * sign(gradient): where a gradient is all but 0 rounding decides its sign.
        differs = (weight - theirs[name]).abs() > 0.1 * lr
        assert differs.float().mean() < 0.02, name
        assert torch.equal(weight, before) == torch.equal(theirs[name], before), name


def test_a_way_that_fails_leaves_the_others_measured(ranks, tmp_path, monkeypatch):
    def build(way, *given):
        if way == "zero1":
            raise RuntimeError("no such library\nand more")
        return own(way, *given)

    own = step.build
    monkeypatch.setattr(step, "build", build)
    found = step.measure(ranks, tmp_path, CONFIG, "I", ["zero1", "ddp"], 2, 1, 1, warm_up=1)
    assert [row["way"] for row in found["rows"]] == ["ddp"]
    assert found["failures"] == [{"way": "zero1", "error": "RuntimeError: no such library"}]


def test_a_way_whose_packages_are_missing_is_skipped_aloud(ranks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(step, "missing", lambda imports: "deepspeed" if "deepspeed" in imports else "")
    found = step.measure(ranks, tmp_path, CONFIG, "I", ["zero1", "ddp"], 2, 1, 1, warm_up=1)
    assert [row["way"] for row in found["rows"]] == ["ddp"]
    assert found["failures"] == [{"way": "zero1", "error": "deepspeed: not installed"}]
    assert "SKIPPED: the way 'zero1' of a step needs deepspeed" in capsys.readouterr().err


def test_what_is_measured_is_kept_after_each_window_of_each_way(ranks, tmp_path):
    kept = []
    keep = lambda found: kept.append([(row["way"], row["rounds"]) for row in found["rows"]])  # noqa: E731
    step.measure(ranks, tmp_path, CONFIG, "I", ["ddp", "plain-1"], 2, 2, 1, warm_up=1, keep=keep)
    assert kept == [
        [("ddp", 1)],
        [("ddp", 1), ("plain-1", 1)],
        [("ddp", 1), ("plain-1", 2)],
        [("ddp", 2), ("plain-1", 2)],
    ]


def test_a_loss_that_is_not_finite_is_in_the_row_whichever_window_it_came_in(ranks, tmp_path, monkeypatch):
    losses = iter([1.0, 1.0, float("nan"), 1.0])
    make = lambda *_: lambda: {"total": torch.tensor(next(losses))}  # noqa: E731
    run = step.Run("ddp", ranks, lambda laps: make(), 1)
    monkeypatch.setattr(run.laps, "seconds", lambda: [{"step": 1.0}])
    finite = []
    for _ in range(3):
        run.window(1)
        finite.append(run.finite)
    assert finite == [True, False, False]


@pytest.mark.parametrize("way", ["ddp", "plain-1"])
def test_first_weights_are_drawn_on_the_device(ranks, tmp_path, monkeypatch, way):
    drawn = set()

    def draw(weight, *given, **named):
        drawn.add(weight.device.type)
        return weight

    monkeypatch.setattr(torch.nn.init, "xavier_uniform_", draw)
    monkeypatch.setattr(torch.nn.init, "normal_", draw)
    meta = torch.device("meta")  # no GPU, but no CPU either
    if way == "ddp":
        monkeypatch.setattr(step.State, "enter", lambda state, stage: drawn.add("entered"))
        step.our_step(CONFIG, "I", 2, replace(ranks, device=meta), Laps(ranks.device), lambda: None)
        drawn.remove("entered")
    else:
        plain = baseline.PlainStep(CONFIG, "I", meta)
        assert {parameter.device.type for parameter in plain.G1.parameters()} == {"meta"}
    assert drawn == {"meta"}


@pytest.mark.parametrize(
    ("config", "way"), [(PG2, "plain"), (load("demo", ["mscgan.scales=[2]"]), "compiled")], ids=["pg2", "scales"]
)
def test_what_the_plain_step_does_not_compute_is_refused(ranks, tmp_path, config, way):
    with pytest.raises(UserError, match="give --ways without them"):
        step.build(way, config, "II", 2, ranks, Laps(ranks.device), tmp_path, 1)


def test_a_network_whose_convolutions_pad_lopsidedly_has_no_plain_copy():
    with pytest.raises(AssertionError, match="pad all sides alike"):
        baseline.plain(FAMILIES["pg2"].build(PG2.pg2, 32, 16))


@pytest.mark.parametrize("way", step.PLAIN)
def test_beside_several_ranks_the_plain_ways_exchange_gradients_too(ranks, tmp_path, monkeypatch, way):
    wrapped = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: None)
    monkeypatch.setattr(baseline.torch_dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(baseline, "DistributedDataParallel", lambda network, **_: wrapped.append(network) or network)
    step.build(way, CONFIG, "joint", 2, ranks, Laps(ranks.device), tmp_path, 1)
    assert len(wrapped) == 3


@pytest.mark.parametrize("way", step.PLAIN)
@pytest.mark.parametrize("stage", ["I", "II", "joint"])
def test_the_plain_ways_have_phases_too_and_they_add_up(ranks, tmp_path, monkeypatch, way, stage):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: None)  # whose minutes have no part in it
    laps = Laps(ranks.device)
    run_step = step.build(way, CONFIG, stage, 2, ranks, laps, tmp_path, 1)
    run_step()
    (phases,) = laps.seconds()
    own = {"prepare", "G forward", "G backward", "optimizer"} | ({"D"} if stage != "I" else set())
    assert set(phases) == {"step", *own} and own < set(step.PHASES)
    assert sum(seconds for name, seconds in phases.items() if name != "step") == pytest.approx(phases["step"])


@pytest.mark.parametrize(("config", "stage"), [(CONFIG, "joint"), (PG2, "II")], ids=["mscgan", "pg2"])
def test_the_laps_of_a_step_add_up_to_it_and_have_its_phases(ranks, config, stage):
    laps = Laps(ranks.device)
    batch = step.random_batch(config, 2, ranks.device, 0)
    run_step = step.our_step(config, stage, 2, ranks, laps, lambda: batch)
    run_step()
    run_step()
    found = laps.seconds()
    assert len(found) == 2
    for phases in found:
        assert set(phases) == {"step", *step.PHASES}
        assert sum(seconds for name, seconds in phases.items() if name != "step") == pytest.approx(phases["step"])
