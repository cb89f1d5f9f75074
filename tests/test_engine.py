"""The engines against one process of plain PyTorch that accumulates the micro-batches of both ranks.

Two ranks run every mode once (tests/engine_rank.py); the tests look at what they left. A third process is the one rank
in the middle of the run that changes its ranks.
"""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from mscgan import dist
from mscgan.engine import best_precision, make_engine
from mscgan.errors import UserError
from tests.engine_rank import (
    BACKENDS,
    BETAS,
    LR,
    MIXED,
    MODES,
    STEPS,
    images,
    loss_D,
    loss_G,
    networks,
    scales,
    whole_state,
)
from tests.ranks import ROOT, exit_codes, logged, start_ranks

MODE_NAMES = [f"{mode}/{variant}" for mode, variant in MODES]
# float32 sums in another order: measured up to 1.2e-7, where one update moves a weight by about lr = 1e-3.
WEIGHTS = 1e-6


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> dict:
    """The ranks' reports, and "weights": name -> tensor."""
    folder = tmp_path_factory.mktemp("engines")
    command = [sys.executable, ROOT / "tests/engine_rank.py", folder]
    processes = start_ranks([command] * 2, folder / "two") + start_ranks([command], folder / "alone")
    assert exit_codes(processes, seconds=600) == [0, 0, 0], logged(folder / "two") + logged(folder / "alone")
    report = json.loads((folder / "report-2.json").read_text())
    report["middle"] = json.loads((folder / "report-1.json").read_text())["changed_ranks"]
    return report | {"weights": load_file(folder / "weights.safetensors")}


def reference(variant: str, steps: int) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """Plain PyTorch in one process. Synchronised BatchNorm is BatchNorm over the whole batch."""
    G, D = networks(variant)
    optimisers = {name: torch.optim.Adam(m.parameters(), lr=LR, betas=BETAS) for name, m in (("G", G), ("D", D))}
    curve = []
    for step in range(steps):
        batches = [images(step, number) for number in range(4 if variant == "accumulate" else 2)]
        if variant == "sync_batch_norm":
            batches = [torch.cat(batches)]
        sums = [0.0, 0.0]
        made = [G(x) for x in batches]
        for x, (_, y) in zip(batches, made):
            total = loss_D(*D(scales(x), [image.detach() for image in scales(y)])) / len(batches)
            total.backward()
            sums[0] += total.item()
        optimisers["D"].step()
        for x, (y1, y) in zip(batches, made):
            total = loss_G(y1, y, x, D(scales(y))[0]) / len(batches)
            total.backward(inputs=list(G.parameters()))
            sums[1] += total.item()
        optimisers["G"].step()
        for optimiser in optimisers.values():
            optimiser.zero_grad()
        curve.append(sums)
    tensors = {}
    for name, module in (("G", G), ("D", D)):
        tensors |= {f"{name}/weights/{n}": parameter.detach() for n, parameter in module.named_parameters()}
        tensors |= {f"{name}/buffers/{n}": buffer for n, buffer in module.named_buffers()}
    return curve, tensors


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_two_ranks_train_as_one_process_of_plain_pytorch(left, mode):
    variant = mode.split("/")[1]
    curve, tensors = reference(variant, STEPS)
    torch.testing.assert_close(torch.tensor(left["losses"][mode]), torch.tensor(curve), rtol=2e-6, atol=1e-6)
    for name, expected in tensors.items():
        if "/buffers/" not in name or variant == "sync_batch_norm":
            torch.testing.assert_close(left["weights"][f"{mode}/{name}"], expected, rtol=0, atol=WEIGHTS, msg=name)


def test_every_group_gives_up_after_the_same_time(left):
    """DeepSpeed makes groups of its own."""
    assert len(left["timeouts"]) > 1
    assert set(left["timeouts"]) == {dist.timeout().total_seconds()}


def test_the_comparison_would_notice_a_step_that_is_missing():
    _, tensors = reference("plain", STEPS)
    _, fewer = reference("plain", STEPS - 1)
    assert all((tensors[name] - fewer[name]).abs().max() > 100 * WEIGHTS for name in tensors)


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_new_engines_go_on_from_a_state_bit_for_bit(left, mode):
    assert left["resumed"][mode] == {"restored": True, "ends_alike": True}


def test_a_run_goes_from_two_ranks_with_zero_1_over_one_with_ddp_to_two_with_zero_2(left):
    curve, tensors = reference("plain", 6)
    followed = left["changed_ranks"][:2] + left["middle"] + left["changed_ranks"][2:]
    torch.testing.assert_close(torch.tensor(followed), torch.tensor(curve), rtol=2e-6, atol=1e-6)
    for name, expected in tensors.items():
        torch.testing.assert_close(left["weights"][f"changed_ranks/{name}"], expected, rtol=0, atol=WEIGHTS, msg=name)


@pytest.mark.parametrize("mode", BACKENDS)
def test_weights_load_without_an_optimisers_state_and_can_be_read_whole(left, mode):
    assert left["weights_only"][mode] and left["gathered"][mode]


@pytest.mark.parametrize("mode", MIXED)
def test_bf16_stays_near_fp32(left, mode):
    curve, _ = reference("sync_batch_norm", STEPS)
    torch.testing.assert_close(torch.tensor(left["bf16"][mode]), torch.tensor(curve), rtol=2e-2, atol=0)


@pytest.mark.parametrize("mode", MIXED)
def test_an_fp16_overflow_on_one_rank_skips_the_step_on_all_and_halves_the_scale(left, mode):
    overflow = left["overflow"][mode]
    assert overflow["moved"][1:] == [False, True] and overflow["finite"]
    assert overflow["scales"][1] == overflow["scales"][0] / 2 == overflow["scales"][2]
    assert overflow["step"] == sum(overflow["moved"])
    assert overflow["resumed_scale"] == overflow["scales"][2]


@pytest.fixture
def one_process():
    yield dist.init("cpu")
    dist.shutdown()


def test_a_state_of_another_network_is_refused_by_name(one_process):
    engine = make_engine(torch.nn.Linear(3, 2), "ddp", precision="fp32")
    state = whole_state(engine)
    with pytest.raises(UserError, match="another network: 1 tensors differ, the first is 'bias'"):
        engine.load(state | {"weights": {"weight": state["weights"]["weight"]}})
    with pytest.raises(UserError, match="exp_avg_sq .* 'weight'"):
        engine.load(state | {"exp_avg_sq": state["exp_avg_sq"] | {"weight": torch.zeros(3, 3)}})


def test_fp16_without_cuda_is_the_users_mistake():
    with pytest.raises(UserError, match="fp16 needs a CUDA GPU"):
        make_engine(torch.nn.Linear(3, 2), precision="fp16")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t: fpu avx2 avx512f", ("fp32", "this CPU has no bf16 instructions")),
        ("flags\t: avx512f avx512_bf16 avx2", ("bf16", "this CPU has avx512_bf16")),
        ("flags\t: amx_bf16 avx512_bf16", ("bf16", "this CPU has amx_bf16")),
        ("flags\t: avx512_bf16_emulated", ("fp32", "this CPU has no bf16 instructions")),
    ],
)
def test_a_cpu_takes_bf16_where_it_has_the_instructions(flags, expected):
    assert best_precision(torch.device("cpu"), flags) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_takes_bf16_from_compute_capability_8_on(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    precision, why = best_precision(torch.device("cuda"))
    assert precision == expected and "A GPU" in why
