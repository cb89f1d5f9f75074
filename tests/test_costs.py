"""Costs against numbers that were computed by hand, layer by layer, before anything counted them."""

import re
import sys
from math import prod

import pytest

from mscgan import config, costs

# Parameters, and GFLOP of one image's forward.
TOTALS = {
    ("market1501", "mscgan"): {
        "G1": (74_605_891, 53.696),
        "G2": (18_381_699, 42.583),
        "D1": (11_058_817, 1.661),
        "D2": (11_034_241, 0.415),  # without the 1,792 biases that BatchNorm makes idle
    },
    ("deepfashion", "mscgan"): {
        "G1": (297_963_843, 545.008),
        "G2": (75_272_579, 471.658),
        "D1": (44_715_649, 17.583),
        "D2": (44_617_345, 4.396),
    },
    ("market1501", "paf"): {"PAF": (52_311_446, 148.011)},  # enlarged to 384x192
    ("market1501", "pg2"): {"G1": 70_795_075, "G2": 6_058_883, "D": 4_324_737},
    ("deepfashion", "pg2"): {"G1": 122_103_235, "G2": 12_696_067, "D": 10_896_257},
}


def totals(printed: str) -> dict[str, tuple[int, float]]:
    """{network: (parameters, GFLOP)} of the command's tables."""
    found = re.findall(r"^(\w+) +kernel .*?^  total +([\d,]+) +([\d.]+)$", printed, re.MULTILINE | re.DOTALL)
    return {network: (int(parameters.replace(",", "")), float(gflop)) for network, parameters, gflop in found}


@pytest.mark.parametrize(("preset", "family"), TOTALS)
def test_the_command_prints_each_networks_total_and_each_stages_step(preset, family, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["costs", "--config", preset, f"family={family}"])
    costs.main()
    printed = capsys.readouterr().out
    found = totals(printed)
    if family == "pg2":
        found = {network: parameters for network, (parameters, _) in found.items()}
    assert found == TOTALS[preset, family]
    assert re.findall(r"^a step of stage (\w+): ", printed, re.MULTILINE) == list(config.STAGES[family])


def test_a_variants_discriminators_are_those_of_its_scales(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["costs", "variant=single-scale-2"])
    costs.main()
    assert list(totals(capsys.readouterr().out)) == ["G1", "G2", "D2"]


def test_rows_are_as_table_4_prints_them():
    rows = {row.layer: (row.kind, row.output) for row in costs.layers(config.load("deepfashion"))["G1"]}
    assert rows["encoder.CONV1"] == ("3*3 / 1", (128, 256, 256))
    assert rows["encoder.DOWN3"] == ("3*3 / 2", (1024, 32, 32))
    assert rows["encoder.Res_BLOCK5.conv2"] == ("3*3 / 1", (2048, 16, 16))
    assert rows["code.FC1"] == ("FC", (64,)) and rows["code.FC2"] == ("FC", (4096,))
    assert rows["decoder.UP5"] == ("3*3 / 2", (1024, 32, 32))
    assert rows["decoder.Res_BLOCK1.conv1"] == ("3*3 / 1", (128, 256, 256))
    assert rows["decoder.CONV1"] == ("3*3 / 1", (3, 256, 256))


def test_a_layer_multiplies_and_adds_each_weight_once_a_pixel():
    """PG2, whose D runs on several images at once; it has no deconvolution, where the pixels would be the input's."""
    for network, rows in costs.layers(config.load("market1501", ["family=pg2"])).items():
        for row in rows:
            channels, *pixels = row.output
            normed = network == "D" and row.kind != "FC" and row.layer != "convs.CONV1"
            weights = row.parameters - channels * (3 if normed else 1)  # bias; BatchNorm's weight and bias
            assert row.gflop == pytest.approx(2e-9 * weights * prod(pixels)), (network, row)


def test_a_step_costs_what_its_passes_do():
    """Backward is twice the forward, less what nobody asks for: the gradients of data and of frozen weights."""
    settings = config.load("market1501")
    rows = costs.layers(settings)
    gflop = {network: sum(row.gflop for row in of) for network, of in rows.items()}
    first = {network: of[0].gflop for network, of in rows.items()}
    # D: forward and backward of real and fake, of no gradient of images; then of the fake alone, of no weight's.
    D = sum(8 * gflop[name] - 2 * first[name] for name in ("D1", "D2"))
    assert costs.step_gflop(settings, "I") == pytest.approx(3 * gflop["G1"] - first["G1"])
    expected = gflop["G1"] + 3 * gflop["G2"] - first["G2"] + D
    assert costs.step_gflop(settings, "II") == pytest.approx(expected)
    expected = 3 * gflop["G1"] - first["G1"] + 3 * gflop["G2"] + D
    assert costs.step_gflop(settings, "joint") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("I", {"G": 74_605_891}),
        ("II", {"G": 18_381_699, "D": 11_058_817 + 11_034_241}),
        ("joint", {"G": 74_605_891 + 18_381_699, "D": 11_058_817 + 11_034_241}),
    ],
)
def test_ranks_exchange_the_gradients_of_what_the_stage_trains(stage, expected):
    assert costs.trained_parameters(config.load("market1501"), stage) == expected
