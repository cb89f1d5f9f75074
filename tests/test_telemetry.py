"""What telemetry writes: one line a call, one curve over restarts, nothing on other ranks."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mscgan import dist, telemetry
from mscgan.telemetry import Telemetry


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_line_holds_position_terms_and_meters_as_soon_as_it_is_logged(tmp_path, monkeypatch):
    clock = iter([100.0, 100.5, 104.0, 104.0])  # start; two steps; log
    monkeypatch.setattr(telemetry, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    meter = Telemetry(tmp_path, 0, 1000, 0, start_steps=5)
    meter.step(32, 0.5, "I", 1.0)
    meter.step(32, 0.5, "I", 2.0)
    meter.log(meter.pace(), 64, 0, "I", {"L1_1": 0.25, "bg_1": float("nan")}, replaced_pairs=3)
    (line,) = lines(tmp_path)
    assert line.pop("memory_bytes") > 1e6
    assert {name: line[name] for name in ("pairs", "steps", "epoch", "stage", "L1_1", "bg_1", "replaced_pairs")} == {
        "pairs": 64, "steps": 7, "epoch": 0, "stage": "I", "L1_1": 0.25, "bg_1": None, "replaced_pairs": 3,
    }  # fmt: skip
    assert (line["pairs_per_second"], line["data_wait"], line["step_seconds"], line["seconds"]) == (16, 0.25, 1.5, 4)
    assert not [name for name in line if name.endswith(("_rank", "_host"))]
    meter.close()


def test_a_restart_drops_the_lines_beyond_it_and_goes_on_with_the_seconds(tmp_path):
    first = Telemetry(tmp_path, 0, 1000, 0)
    for pairs in (100, 200, 300):
        first.log(first.pace(), pairs, 0, "I", {"L1_1": pairs / 1000})
    first.close()
    before = lines(tmp_path)[:2]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"pairs": 400, "ep')  # killed while writing
    second = Telemetry(tmp_path, 0, 1000, 250)
    assert lines(tmp_path) == before
    second.log(second.pace(), 300, 0, "I", {"L1_1": 7.0})
    second.close()
    after = lines(tmp_path)
    assert after[:2] == before and after[2]["pairs"] == 300 and after[2]["L1_1"] == 7.0
    assert after[2]["seconds"] > after[1]["seconds"]
    assert not list(tmp_path.glob(".*"))


def test_tensorboard_shows_one_curve_over_a_restart_and_the_pictures(tmp_path):
    first = Telemetry(tmp_path, 0, 1000, 0)
    for pairs in (100, 200, 300):
        first.log(first.pace(), pairs, 0, "I", {"L1_1": 1.0})
    first.close()
    second = Telemetry(tmp_path, 0, 1000, 200)
    second.log(second.pace(), 300, 0, "I", {"L1_1": 2.0})
    second.pictures(300, Image.new("RGB", (8, 6), (10, 20, 30)))
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/L1_1")] == [(100, 1.0), (200, 1.0), (300, 2.0)]
    assert "meters/pairs_per_second" in events.Tags()["scalars"]
    (image,) = events.Images("samples")
    for source in (io.BytesIO(image.encoded_image_string), tmp_path / "samples" / "pairs-000000300.png"):
        with Image.open(source) as picture:
            assert (np.array(picture) == (10, 20, 30)).all() and picture.size == (8, 6)


def test_other_ranks_write_and_say_nothing(tmp_path, capfd):
    meter = Telemetry(tmp_path / "run", 1, 1000, 0)
    meter.step(32, 0.1, "I")
    meter.log(meter.pace(), 32, 0, "I", {"L1_1": 1.0})
    meter.say("compiling")
    meter.pictures(32, Image.new("RGB", (8, 8)))
    meter.close()
    assert not (tmp_path / "run").exists()
    assert capfd.readouterr() == ("", "")


def test_a_file_gets_plain_lines_now_and_then_and_always_the_last(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(telemetry.torch.cuda, "is_available", lambda: False)
    meter = Telemetry(tmp_path, 0, 1000, 0)
    for pairs in (100, 200, 300):
        meter.step(100, 0.0, "I")
        meter.log(meter.pace(), pairs, 0, "I", {"L1_1": 0.5})
    meter.close()
    said = capfd.readouterr().err
    assert "\r" not in said
    gpu, first, last = said.splitlines()
    assert gpu.startswith("no CUDA device")
    assert first.startswith("stage I: 100/1000 pairs, ") and "data wait 0%, L1_1 0.5" in first
    assert last.startswith("stage I: 300/1000 pairs, ")


@pytest.fixture
def clock(monkeypatch):
    """The time that telemetry sees, in seconds: [now]."""
    now = [100.0]
    monkeypatch.setattr(telemetry, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(telemetry.torch.cuda, "is_available", lambda: False)
    return now


def test_progress_is_said_after_the_first_step_however_rare_the_log_is(tmp_path, capfd, clock):
    meter = Telemetry(tmp_path, 0, 576_000, 0, batch=16)
    clock[0] += 8.0
    meter.step(16, 2.0, "I")
    assert capfd.readouterr().err.splitlines()[1:] == [
        "stage I: 16/576000 pairs, step 1 of 36000, 2.0 pairs/s, 79:59:52 left, data wait 25%"
    ]
    for _ in range(5):
        clock[0] += 5.0
        meter.step(16, 0.0, "I")
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("stage I: 80/576000 pairs, step 5 of 36000, ")
    assert lines(tmp_path) == []


def test_quick_steps_get_their_first_line_after_a_second(tmp_path, capfd, clock):
    meter = Telemetry(tmp_path, 0, 1000, 0, batch=10)
    for _ in range(20):
        clock[0] += 0.25
        meter.step(10, 0.0, "I")
    said = capfd.readouterr().err.splitlines()[1:]
    assert said == ["stage I: 40/1000 pairs, step 4 of 100, 40.0 pairs/s, 00:24 left, data wait 0%"]


def test_what_is_left_is_counted_in_steps_of_the_batch_there_is_now(tmp_path, capfd, clock):
    """500 steps of 8 are done; 6,010 pairs are left, in steps of 20 from now on."""
    meter = Telemetry(tmp_path, 0, 10_010, 4_000, start_steps=500, batch=20)
    clock[0] += 4.0
    meter.step(20, 0.0, "I")
    meter.log(meter.pace(), 4020, 0, "I", {})
    assert "4020/10010 pairs, step 501 of 801, " in capfd.readouterr().err
    assert lines(tmp_path)[0]["steps"] == 501


@pytest.mark.parametrize(
    ("others", "said", "named"),
    [
        ({"data_wait": 0.4, "step_seconds": 2.0}, "data wait 40% (rank 1 on n1), L1_1", {"data_wait": 1}),
        ({"data_wait": 0.2, "step_seconds": 3.0}, "data wait 25% (rank 0 on n0), steps of 3 s (rank 1 on n1), L1_1",
         {"data_wait": 0, "step_seconds": 1}),
        ({"data_wait": 0.25, "step_seconds": 2.1}, "data wait 25%, L1_1", {}),
    ],
)  # fmt: skip
def test_the_slowest_rank_is_told_not_rank_0(tmp_path, capfd, clock, monkeypatch, others, said, named):
    def gather(out, own):
        out[:] = [("n0", own[1]), ("n1", others)]

    monkeypatch.setattr(dist.torch_dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist.torch_dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist.torch_dist, "all_gather_object", gather)
    meter = Telemetry(tmp_path, 0, 1000, 0)
    clock[0] += 8.0
    meter.step(16, 2.0, "I", 2.0)
    meter.log(meter.pace(), 16, 0, "I", {"L1_1": 1.0})
    meter.close()
    assert said in capfd.readouterr().err
    (line,) = lines(tmp_path)
    assert line["data_wait"] == max(0.25, others["data_wait"]) and line["step_seconds"] == max(
        2, others["step_seconds"]
    )
    assert {name.removesuffix("_rank"): line[name] for name in line if name.endswith("_rank")} == named
    assert all(line[f"{name}_host"] == f"n{rank}" for name, rank in named.items())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_bar_with_losses_and_the_share_of_waiting(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    meter = Telemetry(tmp_path, 0, 1000, 400)
    meter.step(100, 0.0, "II")
    meter.log(meter.pace(), 500, 0, "II", {"L1_2": 0.125})
    meter.close()
    bar = terminal.getvalue().split("\r")[-1]
    assert "stage II" in bar and "500/1.00k" in bar and "L1_2 0.125" in bar and "data wait 0%" in bar
    assert "step 1 of 501" in bar


def test_the_launchers_terminal_gets_a_bar_of_its_width_through_the_log(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("MSCGAN_COLUMNS", "150")
    meter = Telemetry(tmp_path, 0, 1000, 0, batch=100)
    meter.step(100, 0.0, "I")
    meter.say("a line of its own")
    meter.log(meter.pace(), 100, 0, "I", {"L1_1": 0.5})
    meter.close()
    said = capfd.readouterr().err
    assert "\ra line of its own\n" in said.replace(" " * 150, "").replace("\r\r", "\r")
    bar = said.rstrip("\n").split("\r")[-1]
    assert "stage I, step 1 of 10: " in bar and "L1_1 0.5" in bar and len(bar) == 150


def test_gpu_meters_have_their_units_and_one_that_is_lacking_is_left_out(monkeypatch):
    def lacking(handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: 312_500)  # milliwatts
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lacking)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=5 << 30))
    assert telemetry._read_gpu(object()) == {"power_watts": 312.5, "gpu_memory_bytes": 5 << 30}


def test_nvml_that_is_missing_is_said_once_and_stops_nothing(tmp_path, capfd, monkeypatch):
    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(telemetry.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    meter = Telemetry(tmp_path, 0, 1000, 0)
    meter.log(meter.pace(), 100, 0, "I", {})
    meter.log(meter.pace(), 200, 0, "I", {})
    meter.close()
    assert capfd.readouterr().err.count("no NVML (NVML Shared Library Not Found)") == 1
    assert "power_watts" not in lines(tmp_path)[0]


@pytest.mark.parametrize("start", [0, 100])
def test_a_run_without_earlier_lines_starts_an_empty_file(tmp_path, start):
    Telemetry(tmp_path, 0, 1000, start).close()
    assert lines(tmp_path) == []
