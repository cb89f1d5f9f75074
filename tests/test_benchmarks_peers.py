"""Shares of the matrix rate beside public implementations: on clones written here, of the networks' names alone."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import peers, record, report, step
from mscgan import costs, dist
from mscgan.config import load
from mscgan.errors import UserError

COMMAND = Path(__file__).resolve().parents[1] / "benchmarks" / "run_throughput.py"
CONFIG = load("demo", ["train.backend=ddp", "data.height=32", "data.width=16", "mscgan.base=8"])
PIXELS = 2 * 32 * 16  # of a batch of two

# Every network a convolution or two of one pixel, so that its FLOPs can be counted by hand.
PATN = """
import torch
from torch import nn
from models.variants import PATNetwork


def get_norm_layer(name):
    assert name == "batch"


class ResnetDiscriminator(nn.Module):
    def __init__(self, channels, width, norm, use_dropout, n_blocks, use_sigmoid):
        super().__init__()
        assert (width, use_dropout, n_blocks, use_sigmoid) == (4, True, 3, True)
        self.conv = nn.Conv2d(channels, 1, 1)

    def forward(self, image):
        return self.conv(image).sigmoid()
"""
VARIANTS = """
import torch
from torch import nn


class PATNetwork(nn.Module):
    def __init__(self, channels, out, width, norm, use_dropout, n_blocks):
        super().__init__()
        assert (width, use_dropout, n_blocks) == (4, True, 9)
        self.conv = nn.Conv2d(sum(channels), out, 1)

    def forward(self, given):
        return self.conv(torch.cat(given, 1)).tanh()
"""
PIX2PIXHD = """
from torch import nn


def get_norm_layer(name):
    assert name == "instance"


class GlobalGenerator(nn.Sequential):
    def __init__(self, channels, out, width, n_downsampling, n_blocks, norm_layer):
        assert (width, n_downsampling, n_blocks) == (4, 4, 9)
        super().__init__(nn.Conv2d(channels, out, 1), nn.Tanh())


class MultiscaleDiscriminator(nn.Module):
    def __init__(self, channels, width, n_layers, norm_layer, use_sigmoid, num_D, getIntermFeat):
        super().__init__()
        assert (width, n_layers, use_sigmoid, num_D, getIntermFeat) == (4, 3, False, 2, True)
        self.first, self.last = nn.Conv2d(channels, 1, 1), nn.Conv2d(1, 1, 1)

    def forward(self, image):
        features = self.first(image)
        return [[features, self.last(features)]]
"""
# 2 FLOPs a multiply-add and pixel. PATN: G of 39 -> 3 channels, forward and its weights' gradient; each D, of 6 and 21
# channels, forward, weights and input in G's update, twice forward and weights in its own.
# pix2pixHD: G of 21 -> 3, forward and weights. D of 24 -> 1 -> 1: three times forward; weights and input in G's update;
# in its own, twice the weights of both and the input of the last.
FLOP = {
    "PATN": 2 * PIXELS * (2 * 39 * 3 + 7 * (6 + 21)),
    "pix2pixHD": 2 * PIXELS * (2 * 21 * 3 + 3 * 25 + 2 * 25 + 2 * 26),
}


def write(folder: Path, **files: str) -> None:
    (folder / "models").mkdir(parents=True)
    for name, text in files.items():
        (folder / "models" / f"{name}.py").write_text(text)


@pytest.fixture
def clones(tmp_path):
    write(tmp_path / "Pose-Transfer", networks=PATN, variants=VARIANTS)
    write(tmp_path / "pix2pixHD", networks=PIX2PIXHD)
    return tmp_path


@pytest.fixture(scope="module")
def ranks():
    yield dist.init("cpu")
    dist.shutdown()


def case(way: str, stage: str, flop: int, wall: list[float], cpu: list[float]) -> peers.Case:
    device = torch.device("cpu")
    return peers.Case(way, stage, "32x16", 8, 2, device, flop=flop, seconds={"wall": wall, "cpu": cpu})


def test_a_share_is_the_flops_over_the_seconds_over_the_matrix_rate():
    theirs = case("PATN", "", 6_000_000_000, [2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    ours = case("ours", "joint", 2_000_000_000, [1.0, 1.0, 1.0], [0.5, 1.0, 0.25])
    of_ours, of_theirs = peers.rows([ours, theirs], {"wall": 1e10, "cpu": 2e10})
    metrics = of_theirs["metrics"]
    assert metrics["matrix_share"]["median"] == pytest.approx(0.2)  # 6e9 / 3 s / 1e10
    assert metrics["matrix_share"]["ci95"] == pytest.approx(
        0.2 * 4.303 / 3**0.5 / 3, rel=1e-3
    )  # Student's, of 3 rounds
    assert metrics["matrix_share_cpu"]["median"] == pytest.approx(0.3)  # 6e9 / 1 s / 2e10
    assert metrics["times_ours"]["median"] == pytest.approx(1.0)  # 1.5, 1 and 0.75: round by round
    assert metrics["times_ours"]["ci95"] == pytest.approx(4.303 * 0.381881 / 3**0.5, rel=1e-3)
    assert metrics["times_ours_cpu"]["median"] == pytest.approx(1.5)  # 1.5, 3 and 0.75
    assert of_theirs["gflop_per_pair"] == 3.0 and metrics["step_ms"]["median"] == 3000.0
    assert of_ours["metrics"]["times_ours"]["median"] == 1.0


def test_a_round_that_is_not_over_has_ratios_of_those_that_are():
    ours = case("ours", "joint", 2, [1.0], [1.0])
    (row,) = peers.rows([case("PATN", "", 2, [1.0, 3.0], [1.0, 3.0])], {"wall": 1.0, "cpu": 1.0})
    assert row["metrics"]["times_ours"] is None  # ours failed, or is not there yet
    _, row = peers.rows([ours, case("PATN", "", 2, [2.0, 9.0], [2.0, 9.0])], {"wall": 1.0, "cpu": 1.0})
    assert row["metrics"]["times_ours"] | {"std": 0} == row["metrics"]["times_ours"]
    assert row["metrics"]["times_ours"]["median"] == 0.5


def test_a_round_lasts_as_many_steps_as_were_asked_for_in_seconds(monkeypatch):
    clocks = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(peers, "CLOCKS", {name: lambda name=name: clocks[name] for name in clocks})
    losses = [1.0] * 5 + [float("nan")]

    def one() -> dict:
        clocks["wall"] += 0.3
        clocks["cpu"] += 0.2
        return {"total": torch.tensor(losses.pop(0))}

    measured = case("PATN", "", 0, [], [])
    measured.start(lambda: one, at_least=0.5)
    for finite in (True, False):
        measured.round()
        assert measured.finite == finite
    assert not losses  # one whose FLOPs are counted, one to see how long it takes, and two a round
    assert measured.seconds == {"wall": pytest.approx([0.3, 0.3]), "cpu": pytest.approx([0.2, 0.2])}


def test_each_clones_networks_are_its_own_though_both_have_the_same_name(clones):
    path = list(sys.path)
    found = {name: peers.networks_of(peer, clones) for name, peer in peers.PEERS.items()}
    assert hasattr(found["PATN"][0], "ResnetDiscriminator") and hasattr(found["pix2pixHD"][0], "GlobalGenerator")
    assert found["PATN"][1].keys() == {"models/networks.py", "models/variants.py"}
    assert found["pix2pixHD"][1] == {"models/networks.py": hashlib.sha256(PIX2PIXHD.encode()).hexdigest()}
    assert sys.path == path and not [name for name in sys.modules if name.split(".")[0] == "models"]


@pytest.mark.parametrize("name", ["PATN", "pix2pixHD"])
def test_an_adapter_trains_all_networks_and_makes_the_flops_counted_by_hand(ranks, clones, name, monkeypatch):
    made, own = [], peers._adam
    monkeypatch.setattr(peers, "_adam", lambda network: made.append(network) or own(network))
    module, _ = peers.networks_of(peers.PEERS[name], clones)
    given = peers.inputs(step.random_batch(CONFIG, 2, ranks.device, 0), CONFIG)
    measured = peers.Case(name, "", "32x16", 8, 2, ranks.device)
    measured.start(lambda: peers.PEERS[name].build(module, 4, given), 0.0)
    assert measured.flop == FLOP[name]
    assert len(made) == {"PATN": 3, "pix2pixHD": 2}[name]
    before = [[value.clone() for value in network.parameters()] for network in made]
    assert measured.step()["total"].isfinite()
    for network, values in zip(made, before, strict=True):
        assert all(bool((now != old).any()) for now, old in zip(network.parameters(), values, strict=True))


def test_the_peers_inputs_are_images_and_heatmaps(ranks):
    batch = step.random_batch(CONFIG, 2, ranks.device, 0)
    given = peers.inputs(batch, CONFIG)
    shapes = [tuple(tensor.shape) for tensor in given]
    assert shapes == [(2, 3, 32, 16), (2, 18, 32, 16)] * 2
    assert torch.equal(given.y[~batch.flip], batch.y.permute(0, 3, 1, 2).float()[~batch.flip] / 127.5 - 1)
    assert -1 <= given.x.min() < -0.9 < 0.9 < given.x.max() <= 1
    assert given.x_pose.min() >= 0 and given.y_pose.max() <= 1 and not torch.equal(given.x_pose, given.y_pose)


def test_ours_and_theirs_are_measured_in_one_run_and_what_is_missing_is_skipped_in_a_line(ranks, clones, capsys):
    (clones / "pix2pixHD" / "models" / "networks.py").unlink()
    kept = []
    found = peers.measure(
        ranks, clones, clones, [CONFIG], [2], 2, 0.001, keep=lambda now: kept.append(len(now["rows"]))
    )
    peer = peers.PEERS["pix2pixHD"]
    clone = f"git clone {peer.url} {clones}/pix2pixHD && git -C {clones}/pix2pixHD checkout {peer.commit}"
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("SKIPPED")]
    assert said == [f"SKIPPED: the networks of pix2pixHD: not there; {clone}"]
    assert found["status"] == "incomplete" and found["failures"] == [
        {"way": "pix2pixHD", "error": f"not there; {clone}"}
    ]
    ways = [(row["stage"], row["way"]) for row in found["rows"]]
    assert ways == [("II", "ours"), ("II", "plain-1"), ("joint", "ours"), ("joint", "plain-1"), ("", "PATN")]
    assert kept == [1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5]  # the matrix product has no row
    mask = 2 * 5 * 5 * 32 * 16 / 1e9  # a step dilates the body by discs of radius 2, which mscgan.costs does not draw
    for row in found["rows"]:
        wanted = costs.step_gflop(CONFIG, row["stage"]) + mask if row["stage"] else FLOP["PATN"] / 2e9
        assert row["gflop_per_pair"] == pytest.approx(wanted, rel=1e-9)
        assert row["finite"] and row["rounds"] == 2 and 0 < row["metrics"]["matrix_share"]["median"]
    text = "\n".join(report._table(report._peers(found)))
    assert f"| 32x16 | PATN |  | 2 | {FLOP['PATN'] / 2e9:.2f} |" in text and "| matrix product |" in text


def test_a_clone_that_cannot_be_imported_says_why(ranks, clones, capsys, monkeypatch):
    (clones / "pix2pixHD" / "models" / "networks.py").write_text("import no_such_package\n")
    (clones / "Pose-Transfer" / "models" / "networks.py").write_text("print 'of another Python'\n")
    peers.measure(ranks, clones, clones, [], [], 1, 0.001)
    said = capsys.readouterr().err
    assert "SKIPPED: the networks of pix2pixHD: No module named 'no_such_package'\n" in said
    assert "SKIPPED: the networks of PATN: Missing parentheses in call to 'print'" in said


def test_a_peer_of_another_version_is_noted_and_the_others_are_measured(ranks, clones):
    (clones / "Pose-Transfer" / "models" / "networks.py").write_text(PATN.replace("class ResnetD", "class OtherD"))
    found = peers.measure(ranks, clones, clones, [CONFIG], [2], 1, 0.001)
    (failure,) = found["failures"]
    assert failure["way"] == "PATN" and "has no attribute 'ResnetDiscriminator'" in failure["error"]
    assert found["rows"][-1]["way"] == "pix2pixHD" and found["rows"][-1]["gflop_per_pair"] == FLOP["pix2pixHD"] / 2e9


def test_several_ranks_are_refused():
    with pytest.raises(UserError, match="by one process, and there are 2"):
        peers.measure(SimpleNamespace(world=2), Path(), Path(), [], [], 1, 1.0)


def test_the_command_leaves_a_record_and_a_table(clones):
    command = [sys.executable, COMMAND, "peers", "--peers", clones, "--out", clones / "out", "--configs", "demo"]
    command += ["--set", "mscgan.base=8", "data.height=32", "data.width=16"]
    command += ["--batch", "2", "--rounds", "1", "--seconds", "0.001"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (clones / "out").glob("*/record.json")
    assert [row["way"] for row in record.read(path)["sections"]["peers"]["rows"]][-2:] == ["PATN", "pix2pixHD"]
    assert "| 32x16 | pix2pixHD |" in (path.parent / "report.md").read_text()
