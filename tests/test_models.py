"""What every family must do, over all FAMILIES: who trains when, which weight moves which loss, ranks, a restart."""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from mscgan import dist
from mscgan.keys import STAGES
from mscgan.models import FAMILIES
from mscgan.paf.network import as_input
from mscgan.paf.targets import targets
from mscgan.recovery import choose
from mscgan.saving import Saver
from mscgan.state import State
from tests import pg2_reference
from tests.model_rank import BACKENDS, MICRO_BATCHES, RANKS, config, inputs
from tests.ranks import ROOT, exit_codes, logged, start_ranks
from tests.whole_state import whole

EVERY_STAGE = [(family, stage) for family, stages in STAGES.items() for stage in stages]
BOTH = ["stage I", "stage II"]
TITLES = {  # of the images, after each stage
    "mscgan": {"I": ["stage I"], "II": BOTH, "joint": BOTH},
    "pg2": {"I": ["stage I"], "II": BOTH},
    "paf": {"pose": ["confidence maps", "pose found"]},
}


@pytest.fixture
def alone() -> Iterator[dist.Ranks]:
    yield dist.init("cpu")
    dist.shutdown()


def build(family: str) -> nn.ModuleDict:
    settings = config(family)
    torch.manual_seed(settings.train.seed)
    return FAMILIES[family].build(settings.options(), 32, 32)


class NotingEngine:
    """Notes the losses that it is to go backward with, and does not."""

    def __init__(self, module: nn.Module):
        self.module, self.losses = module, []

    def __call__(self, *args):
        return self.module(*args)

    def autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.losses.append(loss.item())

    def step(self) -> None:
        pass


def losses(family: str, stage: str, options) -> tuple[dict[str, float], dict[str, float]]:
    """Each engine's loss in a step, and the step's terms."""
    networks = build(family)
    engines = {name: NotingEngine(module) for name, module in FAMILIES[family].trains(stage, networks).items()}
    terms = FAMILIES[family].step(stage, engines, networks, [inputs(config(family), 0)], options)
    return {name: sum(engine.losses) for name, engine in engines.items()}, {n: t.item() for n, t in terms.items()}


def test_the_configurations_stages_are_the_families():
    assert FAMILIES.keys() == STAGES.keys() == TITLES.keys()
    for family, stages in STAGES.items():
        networks = build(family)
        assert all(FAMILIES[family].trains(stage, networks) for stage in stages)
        with pytest.raises(KeyError):
            FAMILIES[family].trains("no such stage", networks)
        assert set(FAMILIES[family].MAKES) <= set(networks.keys())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_trains_in_some_stage_and_nothing_else_moves(family, alone):
    moved = set()
    for stage in STAGES[family]:
        state = State(config(family, "train.backend=ddp"), alone.device, 4)
        state.enter(stage)
        before = {name: tensor.clone() for name, tensor in state.networks.named_parameters()}
        trained = {id(weight) for engine in state.engines.values() for weight in engine.module.parameters()}
        state.step([inputs(state.config, 0, 1)])
        for name, weight in state.networks.named_parameters():
            # A bias before BatchNorm has no gradient but rounding.
            idle = family == "pg2" and name.startswith("D.convs") and name.endswith("conv.bias")
            assert idle or torch.equal(weight, before[name]) == (id(weight) not in trained), name
            moved |= {name} if id(weight) in trained else set()
        assert all(weight.requires_grad == (id(weight) in trained) for weight in state.networks.parameters())
    assert moved == {name for name, _ in state.networks.named_parameters()}


# (stage, engine): the terms whose weights' change is the change of that engine's loss. Nothing else may change.
EFFECTS = {
    "mscgan": {
        "lambda_bg_1": {("I", "G"): ["bg_1"], ("joint", "G"): ["bg_1"]},
        "lambda_L1_2": {("II", "G"): ["L1_2"], ("joint", "G"): ["L1_2"]},
        "lambda_bg_2": {("II", "G"): ["bg_2"], ("joint", "G"): ["bg_2"]},
        "lambda_D.0": {
            (stage, engine): terms
            for stage in ("II", "joint")
            for engine, terms in (("D", ["D1_real", "D1_fake"]), ("G", ["G_D1"]))
        },
        "lambda_D.1": {
            (stage, engine): terms
            for stage in ("II", "joint")
            for engine, terms in (("D", ["D2_real", "D2_fake"]), ("G", ["G_D2"]))
        },
    },
    "pg2": {
        "lambda_bg_1": {("I", "G1"): ["bg_1"]},
        "lambda_L1_2": {("II", "G2"): ["L1_2"]},
        "lambda_bg_2": {("II", "G2"): ["bg_2"]},
    },
    "paf": {"lambda_paf": {("pose", "PAF"): ["paf"]}},
}


@pytest.mark.parametrize(("family", "weight"), [(family, weight) for family in EFFECTS for weight in EFFECTS[family]])
def test_a_weight_changes_the_loss_that_it_should_and_no_other(family, weight):
    options, effects = config(family).options(), EFFECTS[family][weight]
    name, _, place = weight.partition(".")
    value = getattr(options, name)
    changed = [v + 2 * (str(i) == place) for i, v in enumerate(value)] if place else value + 2
    for stage in STAGES[family]:
        before, terms = losses(family, stage, options)
        after, _ = losses(family, stage, replace(options, **{name: changed}))
        for engine in before:
            moved = 2 * sum(terms[term] for term in effects.get((stage, engine), []))
            assert after[engine] - before[engine] == pytest.approx(moved, abs=1e-5), (stage, engine)
            assert moved == 0 or moved > 0.01


def test_no_weight_is_left_out():
    for family, effects in EFFECTS.items():
        weights = {field.name for field in fields(config(family).options()) if field.name.startswith("lambda_")}
        assert weights == {weight.partition(".")[0] for weight in effects}


@pytest.mark.parametrize(("family", "stage"), EVERY_STAGE)
def test_images_have_their_titles_and_sizes_and_show_no_untrained_network(family, stage):
    networks = build(family)
    makers = nn.ModuleDict({name: networks[name] for name in FAMILIES[family].MAKES})
    with torch.no_grad():
        images = FAMILIES[family].images(stage, makers, inputs(config(family), 0))
    assert list(images) == TITLES[family][stage]
    assert all(image.shape == (2, 3, 32, 32) for image in images.values())
    for one, other in itertools.combinations(images.values(), 2):
        assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize(("family", "stage"), EVERY_STAGE)
def test_restored_in_each_stage_it_ends_with_the_same_bits(family, stage, alone, tmp_path):
    settings = config(family, "train.backend=ddp", "train.ema_halflife=16")

    def go(state: State, steps: range) -> dict[str, float]:
        for number in steps:
            terms = state.step([inputs(settings, number)])
            state.follow(8)
        return {name: value.item() for name, value in terms.items()}

    first = State(settings, alone.device, 2)
    first.enter(stage)
    go(first, range(3))
    saver = Saver(tmp_path, alone, 0, 24, 0.0, 2, lambda: None)
    saver.save(first, {"pairs": 24}, last=True)
    second, start = State(settings, alone.device, 2), choose(tmp_path, alone)
    second.restore(start.tensors, start.facts)
    assert second.stage == stage
    assert go(first, range(3, 5)) == go(second, range(3, 5))
    (expected, facts), (got, other_facts) = whole(first), whole(second)
    assert facts == other_facts and expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, ROOT / "tests/model_rank.py", folder / "left.safetensors"]
    codes = exit_codes(start_ranks([command] * RANKS, folder / "logs", CUDA_VISIBLE_DEVICES=""))
    assert codes == [0] * RANKS, logged(folder / "logs")
    return load_file(Path(folder / "left.safetensors"))


def bce(logits: torch.Tensor, real: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))


def reconstruction(image: torch.Tensor, batch, L1: float, bg: float) -> torch.Tensor:
    return L1 * (image - batch.y).abs().mean() + bg * ((image - batch.y) * batch.mask).abs().mean()


def plain_mscgan(stage: str, networks: nn.ModuleDict, batches: list) -> None:
    """One step in plain PyTorch, by equations 1 to 4; leaves the gradients in the networks."""
    settings = config("mscgan")
    G, D, options = networks["G"], networks["D"], settings.options()
    joint = stage == "joint"

    def discriminate(image: torch.Tensor, batch) -> list[torch.Tensor]:
        pair = torch.cat([batch.x, image], 1)
        return [D.D1(pair), D.D2(F.avg_pool2d(pair, 2))]

    made = []
    for batch in batches:
        y1 = G.G1(batch.condition)
        made.append((batch, y1, G.G2(batch.x, y1 if joint else y1.detach())))
    if stage == "I":
        loss = sum(reconstruction(y1, batch, 1, options.lambda_bg_1) for batch, y1, _ in made) / len(made)
        loss.backward(inputs=list(G.G1.parameters()))
        return

    total = 0.0
    for batch, _, y_hat in made:
        logits = zip(options.lambda_D, discriminate(batch.y, batch), discriminate(y_hat.detach(), batch), strict=True)
        total += sum(weight * (bce(real, 1.0) + bce(fake, 0.0)) for weight, real, fake in logits) / len(made)
    total.backward(inputs=list(D.parameters()))
    train = settings.train
    torch.optim.Adam(D.parameters(), lr=train.lr, betas=tuple(train.betas)).step()

    total = 0.0
    for batch, y1, y_hat in made:
        loss = reconstruction(y_hat, batch, options.lambda_L1_2, options.lambda_bg_2)
        loss = loss + sum(w * bce(fake, 1.0) for w, fake in zip(options.lambda_D, discriminate(y_hat, batch)))
        total += (loss + reconstruction(y1, batch, 1, options.lambda_bg_1) * joint) / len(made)
    total.backward(inputs=list((G if joint else G.G2).parameters()))


def plain_pg2(stage: str, networks: nn.ModuleDict, batches: list) -> None:
    """One step by the independent reference, with these networks; leaves the gradients in them."""
    settings = config("pg2")
    options, edition = settings.options(), settings.pg2.edition
    made = []
    for batch in batches:
        y1 = networks["G1"](batch.condition)
        if stage == "I":
            made.append(reconstruction(y1, batch, 1, options.lambda_bg_1))
        else:
            y1 = y1.detach()
            made.append((batch, y1, networks["G2"](y1, batch.x)))
    if stage == "I":
        (sum(made) / len(made)).backward(inputs=list(networks["G1"].parameters()))
        return
    for name, image_of in (("G2", lambda y_hat: y_hat), ("D", lambda y_hat: y_hat.detach())):
        total = 0.0
        for batch, y1, y_hat in made:
            logits = networks["D"](pg2_reference.judged(edition, batch.y, batch.x, y1, image_of(y_hat)))
            if name == "D":
                total += pg2_reference.loss_D(logits, edition) / len(made)
            else:
                fake = logits.chunk(4)[3]  # of y, x, y1, y_hat
                total += bce(fake, 1.0) / len(made)
                total += reconstruction(y_hat, batch, options.lambda_L1_2, options.lambda_bg_2) / len(made)
        total.backward(inputs=list(networks[name].parameters()))


def plain_paf(stage: str, networks: nn.ModuleDict, batches: list) -> None:
    """The squared error of each of the network's stages, in sums over what is known, divided by how much there is."""
    options, total = config("paf").options(), 0.0
    for batch in batches:
        made = networks["PAF"](as_input(torch.cat([batch.x, batch.y]), options.enlarge))
        keypoints = torch.cat([batch.x_keypoints, batch.y_keypoints])
        large = torch.where(keypoints == -1, -1.0, (keypoints + 0.5) * options.enlarge - 0.5)
        true = targets(large[:, None], 32 * options.enlarge, 32 * options.enlarge, options.sigma, options.missing)
        fields = ((made[:, :, :38] - true.fields).square() * true.field_weights).sum()
        maps = ((made[:, :, 38:] - true.maps).square() * true.map_weights).sum()
        total += (options.lambda_paf * fields / true.fields.numel() + maps / true.maps.numel()) / len(batches)
    total.backward(inputs=list(networks.parameters()))


PLAIN_STEP = {"mscgan": plain_mscgan, "pg2": plain_pg2, "paf": plain_paf}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("family", "stage"), EVERY_STAGE)
def test_two_ranks_with_two_micro_batches_go_as_one_process_of_plain_pytorch(family, stage, backend, two_ranks):
    """By Adam's first moment, which after a step is (1 - beta) times the gradient."""
    networks, settings = build(family), config(family)
    # The micro-batches of both ranks are one batch for BatchNorm.
    batches = [inputs(settings, RANKS * i, RANKS * i + 1) for i in range(MICRO_BATCHES)]
    PLAIN_STEP[family](stage, networks, batches)
    compared = 0
    for name, weight in networks.named_parameters():
        moment = two_ranks.get(f"{family}/{stage}/{backend}/exp_avg.{name}")
        assert (moment is None) == (weight.grad is None), name
        if moment is not None:
            expected = (1 - settings.train.betas[0]) * weight.grad
            # Measured: 1e-6 of the norm, and 2e-3 where rounding puts an activation on the other side of ReLU's kink. A
            # bias before BatchNorm has no gradient but rounding.
            assert (moment - expected).norm() <= 5e-3 * expected.norm() + 2e-6, name
            compared += 1
    assert compared
