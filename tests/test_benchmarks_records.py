"""Records, comparisons, reports and bars, on records written here by hand and on a tiny run."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare, facts, gpu_checks, projection, record, report
from mscgan.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "benchmarks" / "run_throughput.py"


def _row(key: str, rate: float, ci95: float = 0.0, **more) -> dict:
    return {"key": key, "metrics": {"pairs_per_second": {"median": rate, "ci95": ci95}} | more}


def _record(*rows: dict, section: str = "step") -> dict:
    gpus = [{"name": "NVIDIA H200"}]
    system = {
        "cpu": "a CPU",
        "cores": 2,
        "threads": 2,
        "gpus": gpus,
        "packages": {"torch": "2.13.0"},
        "cuda": "13.0",
        "world": 1,
    }
    sections = {section: {"status": "ok", "rows": list(rows)}}
    return {"schema_version": "1.0", "system": system, "sections": sections}


def _write(path: Path, document: dict) -> Path:
    path.write_text(json.dumps(document))
    return path


def _compare(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, COMMAND, "compare", *arguments], capture_output=True, text=True)


def test_a_slower_run_is_a_regression_and_a_faster_one_is_not():
    before = _record(_row("a", 100.0), _row("b", 100.0), _row("c", 100.0))
    after = _record(_row("a", 94.0), _row("b", 96.0), _row("c", 150.0))
    lines = compare.compare(before, after, tolerance=0.05)
    assert [(line.key, line.ratio, line.regression) for line in lines] == [
        ("a", 0.94, True), ("b", 0.96, False), ("c", 1.5, False)
    ]  # fmt: skip


def test_for_seconds_and_joules_more_is_worse():
    before = _record(_row("a", 100.0, joules_per_pair=10.0, peak_memory_bytes=100))
    after = _record(_row("a", 100.0, joules_per_pair=12.0, peak_memory_bytes=90))
    flags = {line.metric: line.regression for line in compare.compare(before, after, 0.05)}
    assert flags == {"pairs_per_second": False, "joules_per_pair": True, "peak_memory_bytes": False}


def test_noise_widens_the_tolerance():
    lines = compare.compare(_record(_row("a", 100.0, ci95=4.0)), _record(_row("a", 90.0, ci95=1.8)), 0.05)
    assert not lines[0].regression  # 5 % + 4 % + 2 %
    lines = compare.compare(_record(_row("a", 100.0, ci95=1.0)), _record(_row("a", 90.0, ci95=0.9)), 0.05)
    assert lines[0].regression


def test_a_row_that_is_gone_is_a_regression_but_a_section_not_run_again_is_not():
    before = _record(_row("a", 100.0))
    assert compare.compare(before, _record(), 0.05)[0].regression
    assert compare.compare(before, _record(section="data"), 0.05) == []


def test_another_machine_is_named():
    before, after = _record(), _record()
    after["system"]["gpus"], after["system"]["packages"] = [{"name": "NVIDIA A100"}], {"torch": "2.14.0"}
    assert compare.differences(before, after) == ["gpus: ['NVIDIA H200'] -> ['NVIDIA A100']", "torch: 2.13.0 -> 2.14.0"]
    assert compare.differences(before, copy.deepcopy(before)) == []


def test_compare_exits_1_on_a_regression_0_without_and_2_on_another_schema(tmp_path, capsys):
    good, bad = _record(_row("a", 100.0)), _record(_row("a", 50.0))
    other = _record() | {"schema_version": "2.0"}
    good, bad, other = (_write(tmp_path / f"{i}.json", document) for i, document in enumerate((good, bad, other)))
    assert compare.main(good, good, 0.05) == 0
    assert compare.main(good, bad, 0.05) == 1
    assert "REGRESSION" in capsys.readouterr().out
    done = _compare(good, other)
    assert done.returncode == 2
    assert "schema 2.0" in done.stderr and "Traceback" not in done.stderr


def test_a_newer_minor_version_with_unknown_fields_is_read(tmp_path):
    document = _record(_row("a", 100.0)) | {"schema_version": "1.7", "news": True}
    assert record.read(_write(tmp_path / "record.json", document))["news"]
    assert record.read(tmp_path)["schema_version"] == "1.7"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": "2.0"}'])
def test_what_is_no_record_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError) as error:
        record.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_section_that_fails_is_noted_and_the_others_go_on():
    document = record.new({}, 0)

    def broken() -> dict:
        raise RuntimeError("no such device\nsecond line")

    record.add(document, "ops", broken, alone=True)
    record.add(document, "data", lambda: {"rows": [_row("a", 1.0)]}, alone=True)
    assert document["sections"]["ops"]["error"] == "RuntimeError: no such device"
    assert document["sections"]["data"]["status"] == "ok"
    assert not record.finish(document)
    assert document["status"] == "failed"


def test_a_failure_among_several_ranks_ends_the_run():
    with pytest.raises(ZeroDivisionError):
        record.add(record.new({}, 0), "step", lambda: 1 / 0, alone=False)


def test_the_system_facts_say_where_and_with_what_but_no_names():
    found = facts.system() | facts.identity()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert re.fullmatch("[0-9a-f]{12}", found["host"])
    assert {"torch", "deepspeed", "triton", "webdataset"} <= found["packages"].keys()
    assert os.uname().nodename not in json.dumps({"host": found["host"], "gpus": found["gpus"]})
    json.dumps(found)


def _checked(ours: float, plain: float, compiled: float, ddp: float, wait: float, share: float) -> list[dict]:
    def row(way, rate, **more):
        return {"key": way, "way": way, "stage": "joint"} | {
            "metrics": {
                "pairs_per_second": {"median": rate, "ci95": 0.0},
                "matrix_share": share,
                "data_wait_share": None,
            }
            | more
        }

    ops = [
        {"key": f"{op} {which} ours", "metrics": {"copy_share": 0.9, "times_compiled": 1.1}}
        for op, passes in gpu_checks.OPS.items()
        for which in passes
    ]
    step = [row("zero1", ours), row("ddp", ddp), row("plain", plain), row("loader", ours, data_wait_share=wait)]
    return [
        _record(*ops, section="ops"),
        _record(*step),
        _record(row("zero1", 2 * ours), row("compiled", 2 * compiled)),
    ]


def test_bars_are_met_at_what_the_project_promises():
    found = gpu_checks.bars(_checked(ours=100, plain=40, compiled=80, ddp=105, wait=0.01, share=0.5))
    assert len(found) == 23
    assert all(bar.met for bar in found)
    assert [bar.measured for bar in found[-4:]] == pytest.approx([2.5, 1.25, 0.01, 100 / 105])


def test_bars_are_missed_one_by_one():
    found = gpu_checks.bars(_checked(ours=100, plain=41, compiled=90, ddp=106, wait=0.011, share=0.49))
    missed = [bar.name for bar in found if not bar.met]
    assert len(missed) == 5
    assert all(name.startswith("joint step") for name in missed)


def test_what_was_not_measured_is_not_met():
    found = gpu_checks.bars([_record(section="ops")])
    assert not any(bar.met for bar in found)
    assert gpu_checks.table(found).count("not measured") == len(found)


def test_the_gpu_script_is_sound_bash():
    script = ROOT / "benchmarks" / "run_gpu_checks.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    limits = [int(limit) for limit in re.findall(r"^section \S+ (\d+) ", script.read_text(), re.MULTILINE)]
    assert len(limits) == 4 and sum(limits) <= 520  # nine minutes with what is between them


def test_a_run_leaves_a_record_a_report_and_plots(tmp_path):
    command = [
        sys.executable,
        COMMAND,
        "step",
        "--out",
        tmp_path,
        "--quick",
        "--stages",
        "joint",
        "--ways",
        "ddp",
        "plain",
    ]
    command += [
        "--set",
        "mscgan.base=8",
        "data.height=32",
        "data.width=16",
        "--batch",
        "2",
        "--rounds",
        "1",
        "--steps",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*/record.json")
    found = record.read(path)
    ours, plain = found["sections"]["step"]["rows"]
    assert found["status"] == "ok" and found["system"]["cpu_only"] == (not found["system"]["gpus"])
    assert (ours["way"], plain["way"]) == ("ddp", "plain")
    assert ours["finite"] and plain["finite"]
    assert set(ours["phases_ms"]) >= {"D", "G forward", "G backward", "optimizer"}
    # pairs/s, GFLOP a pair and TFLOP/s of a device are one another's products
    rate = ours["metrics"]["pairs_per_second"]["median"]
    assert ours["counted"] == "torch.utils.flop_counter over one step"
    assert ours["metrics"]["teraflops"] == pytest.approx(rate * ours["gflop_per_pair"] / 1000)
    text = (path.parent / "report.md").read_text()
    assert "these are figures of a CPU" in text or found["system"]["gpus"]
    assert "| joint | 32x16 | fp32 | ddp | 2 |" in text or found["system"]["gpus"]
    assert (path.parent / "phases.png").stat().st_size > 1000


def test_the_report_marks_the_projection_as_calculated():
    row = {"kind": "weak", "ranks": 1, "key": "weak joint", "batch": 4, "phases_ms": {"G backward": 50.0, "D": 10.0}}
    row["metrics"] = {"step_ms": {"median": 100.0}}
    found = projection.of_section({"rows": [row]}, {"G": 10_000_000, "D": 1_000_000}, 2, [1, 2], 8, 10.0)
    assert found["calculated"] and found["gradient_bytes"] == {"G": 20_000_000, "D": 2_000_000}
    text = "\n".join(report._projection(found))
    assert "calculated, not measured" in text
    assert "| 2 | 16 | 4.1 |" in text  # 2 * 15 / 16 * 22 MB / 10 GB/s = 4.125 ms


def test_a_wrong_way_of_a_step_is_a_mistake_of_the_users(tmp_path):
    command = [sys.executable, COMMAND, "step", "--out", tmp_path, "--ways", "magic", "--stages", "I"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "magic" in done.stderr and "Traceback" not in done.stderr


def test_the_figures_of_a_page_are_replaced_and_its_text_stays(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"# Page\n\nText\n\n{report.MARKER}\nold figures\n")
    for _ in range(2):
        report.put_into(page, "# Throughput\n\n## step\n\n| a |\n")
    assert page.read_text() == f"# Page\n\nText\n\n{report.MARKER}\n### Throughput\n\n#### step\n\n| a |\n"
    (tmp_path / "other.md").write_text("no marker\n")
    with pytest.raises(UserError, match="no line"):
        report.put_into(tmp_path / "other.md", "")
