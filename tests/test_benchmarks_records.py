"""Records, comparisons, reports and bars, on records written here by hand and on a tiny run."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks import compare, facts, gpu_checks, gpu_run, projection, record, report
from mscgan.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "benchmarks" / "run_throughput.py"
CHECKS = ROOT / "benchmarks" / "gpu_checks.py"


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
    sections = {section: {"status": "ok", "rows": list(rows), "method": {"rounds": 3}}}
    return {"schema_version": "2.0", "system": system, "sections": sections}


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


@pytest.mark.parametrize(("after", "worse"), [(0.02, False), (0.0205, False), (0.0225, True), (None, True)])
def test_a_wait_for_data_that_grows_is_a_regression(after, worse):
    rows = [_row("a", 100.0, data_wait_share=share) for share in (0.012, after)]
    flags = {line.metric: line.regression for line in compare.compare(_record(rows[0]), _record(rows[1]), 0.05)}
    assert flags == {"pairs_per_second": False, "data_wait_share": worse}


@pytest.mark.parametrize("what", ["finite", "restored_equal"])
def test_what_must_hold_fails_a_comparison_though_it_did_not_hold_before(tmp_path, capsys, what):
    good, bad = (_record(_row("a", 100.0) | {what: holds}) for holds in (True, False))
    good, bad = (_write(tmp_path / f"{i}.json", document) for i, document in enumerate((good, bad)))
    assert compare.main(good, good, 0.05) == 0
    assert compare.main(bad, good, 0.05) == 0
    for before in (good, bad):
        assert compare.main(before, bad, 0.05) == 1
        assert re.search(rf"a +{what} .*REGRESSION", capsys.readouterr().out)


def test_an_interval_that_one_round_does_not_have_widens_nothing():
    before, after = _record(_row("a", 100.0, 1.0)), _record(_row("a", 93.0))
    after["sections"]["step"]["rows"][0]["metrics"]["pairs_per_second"]["ci95"] = None
    assert compare.compare(before, after, 0.05)[0].regression


def test_another_machine_is_named():
    before, after = _record(), _record()
    after["system"]["gpus"], after["system"]["packages"] = [{"name": "NVIDIA A100"}], {"torch": "2.14.0"}
    assert compare.differences(before, after) == ["gpus: ['NVIDIA H200'] -> ['NVIDIA A100']", "torch: 2.13.0 -> 2.14.0"]
    assert compare.differences(before, copy.deepcopy(before)) == []


def test_compare_exits_1_on_a_regression_0_without_and_2_on_another_schema(tmp_path, capsys):
    good, bad = _record(_row("a", 100.0)), _record(_row("a", 50.0))
    other = _record() | {"schema_version": "1.1"}
    good, bad, other = (_write(tmp_path / f"{i}.json", document) for i, document in enumerate((good, bad, other)))
    assert compare.main(good, good, 0.05) == 0
    assert compare.main(good, bad, 0.05) == 1
    assert "REGRESSION" in capsys.readouterr().out
    done = _compare(good, other)
    assert done.returncode == 2
    assert "schema 1.1" in done.stderr and "Traceback" not in done.stderr


def test_a_newer_minor_version_with_unknown_fields_is_read(tmp_path):
    document = _record(_row("a", 100.0)) | {"schema_version": "2.7", "news": True}
    assert record.read(_write(tmp_path / "record.json", document))["news"]
    assert record.read(tmp_path)["schema_version"] == "2.7"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": "3.0"}'])
def test_what_is_no_record_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError) as error:
        record.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_section_that_fails_is_noted_and_the_others_go_on():
    document = record.new({}, 0)

    def broken() -> dict:
        raise RuntimeError("no such device\nsecond line")

    def broken_late(keep) -> dict:
        keep({"rows": [_row("a", 1.0)]})
        broken()

    nothing = lambda: None  # noqa: E731
    record.add(document, "ops", lambda keep: broken(), alone=True, written=nothing)
    record.add(document, "step", broken_late, alone=True, written=nothing)
    record.add(document, "data", lambda keep: {"rows": [_row("a", 1.0)]}, alone=True, written=nothing)
    assert document["sections"]["ops"]["error"] == "RuntimeError: no such device"
    assert document["sections"]["step"]["status"] == "failed"
    assert document["sections"]["step"]["rows"] == [_row("a", 1.0)]
    assert document["sections"]["data"]["status"] == "ok"
    assert not record.finish(document)
    assert document["status"] == "failed"


def test_a_failure_among_several_ranks_ends_the_run():
    with pytest.raises(ZeroDivisionError):
        record.add(record.new({}, 0), "step", lambda keep: 1 / 0, alone=False, written=lambda: None)


def test_a_record_on_disk_has_whatever_was_kept(tmp_path):
    document = record.new({}, 0)
    written = lambda: record.write(document, tmp_path)  # noqa: E731
    seen = []

    def measure(keep) -> dict:
        for count in (1, 2):
            rows = [_row(str(number), 1.0) for number in range(count)]
            keep({"rows": rows})
            section = record.read(tmp_path)["sections"]["step"]
            seen.append((section["status"], len(section["rows"])))
        return {"rows": rows}

    record.add(document, "step", measure, alone=True, written=written)
    assert seen == [("running", 1), ("running", 2)]
    assert record.read(tmp_path)["sections"]["step"]["status"] == "ok"


def test_the_system_facts_say_where_and_with_what_but_no_names():
    found = facts.system() | facts.identity()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert re.fullmatch("[0-9a-f]{12}", found["host"])
    assert {"torch", "deepspeed", "triton", "webdataset"} <= found["packages"].keys()
    assert os.uname().nodename not in json.dumps({"host": found["host"], "gpus": found["gpus"]})
    json.dumps(found)


LIMITS = {name: limit for name, (limit, _) in gpu_checks.LIMITS.items()}


def _checked(
    ours: float, plain: float, plain_1: float, compiled: float, ddp: float, wait: float, share: float
) -> list[dict]:
    def row(way, rate, **more):
        return {"key": way, "way": way, "stage": "joint", "rounds": 3} | {
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
    return [
        _record(*ops, section="ops"),
        _record(row("zero1", ours), row("ddp", ddp), row("plain-1", plain_1)),
        _record(row("zero1", 2 * ours), row("ddp", 3 * ddp), row("compiled", 2 * compiled)),
        _record(row("ddp", ours), row("plain", plain), row("loader", ours, data_wait_share=wait)),
    ]


def test_bars_are_met_at_what_the_project_promises():
    records = _checked(ours=100, plain=40, plain_1=50, compiled=103, ddp=105, wait=0.01, share=0.5)
    found = gpu_checks.bars(records, LIMITS)
    assert len(found) == 24
    assert all(bar.met for bar in found)
    assert [bar.measured for bar in found[-5:]] == pytest.approx([2.0, 2.5, 100 / 103, 0.01, 100 / 105])
    assert "zero1: times torch.compile" in found[-3].name


def test_bars_are_missed_one_by_one():
    records = _checked(ours=100, plain=41, plain_1=53, compiled=104, ddp=106, wait=0.011, share=0.49)
    missed = [bar.name for bar in gpu_checks.bars(records, LIMITS) if not bar.met]
    assert len(missed) == 6
    assert all(name.startswith("joint step") for name in missed)


def test_a_bars_limit_is_the_command_lines(tmp_path):
    (tmp_path / "a").mkdir()
    records = _checked(ours=100, plain=40, plain_1=50, compiled=103, ddp=105, wait=0.01, share=0.5)
    for number, document in enumerate(records):
        (tmp_path / str(number)).mkdir()
        _write(tmp_path / str(number) / "record.json", document)
    for given, code in ((), 0), (("--compiled", "1.15"), 1):
        done = subprocess.run([sys.executable, CHECKS, tmp_path, *given], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert done.stdout == (tmp_path / "bars.md").read_text()
    assert "| 0.971 | >= 1.15 | NO |" in done.stdout


def test_without_deepspeed_ours_is_ddp_and_the_bars_say_so():
    records = _checked(ours=100, plain=40, plain_1=50, compiled=103, ddp=105, wait=0.01, share=0.5)
    for document in records:
        for section in document["sections"].values():
            section["rows"] = [row for row in section["rows"] if row["key"] != "zero1"]
    found = {bar.name: bar.measured for bar in gpu_checks.bars(records, LIMITS)}
    assert found["joint step, ddp: times eager fp32 NCHW, one generator forward"] == pytest.approx(2.1)
    assert found["joint step: ZeRO-1, times DDP"] is None


def test_what_was_not_measured_is_not_met():
    found = gpu_checks.bars([_record(section="ops")], LIMITS)
    assert not any(bar.met for bar in found)
    assert gpu_checks.table(found).count("not measured") == len(found)


def test_a_record_of_a_killed_run_says_how_far_it_came():
    row = {"key": "a", "rounds": 1, "metrics": {}}
    section = {"status": "running", "rows": [row], "method": {"rounds": 3}}
    section["failures"] = [{"way": "zero1", "error": "deepspeed: not installed"}]
    lines = gpu_checks.states([{"sections": {"step": section}}])
    assert lines == ["- step: not over, 1 rows, 1 of 3 rounds", "  - zero1: deepspeed: not installed"]


def test_the_parts_of_the_gpu_script_fit_nine_minutes_and_begin_with_the_most_valuable():
    assert [part.name for part in gpu_run.PARTS] == ["ops", "step", "compiled", "profile", "plain", "data"]
    assert gpu_run.plan(gpu_run.PARTS, 9 * 60) == ([*gpu_run.PARTS], [])
    fit, left_out = gpu_run.plan(gpu_run.PARTS, 5 * 60)
    assert [part.name for part in fit] == ["ops", "step", "profile"]
    assert [part.name for part in left_out] == ["compiled", "plain", "data"]


# In run_throughput.py's place: leaves a record like a run's, and then does what its first argument says.
FAKE = """\
import json, os, signal, sys, time
from pathlib import Path
what, out = sys.argv[1], Path(sys.argv[sys.argv.index("--out") + 1]) / str(os.getpid())
row = {"key": "ddp", "way": "ddp", "stage": "joint", "rounds": 1}
row["metrics"] = {"pairs_per_second": {"median": 1.0, "ci95": None}, "matrix_share": 0.125, "data_wait_share": None}
section = {"status": "running", "rows": [row], "method": {"rounds": 3}}
out.mkdir()
document = {"schema_version": "2.0", "system": {"gpus": []}, "sections": {"step": section}}
(out / "record.json").write_text(json.dumps(document))
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while what in ("hangs", "stubborn"):
    time.sleep(0.1)
sys.exit(1 if what == "fails" else 0)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(gpu_run, "COMMAND", tmp_path / "fake.py")
    monkeypatch.setattr(gpu_run, "GRACE", 0.3)
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("what", "said"),
    [("done", "done after"), ("fails", "exit code 1"), ("killed", "exit code -9"), ("hangs", "its time was over"),
     ("stubborn", "its time was over")],
)  # fmt: skip
def test_whatever_becomes_of_a_part_a_table_follows_and_then_the_next_part(fake, capsys, what, said):
    parts = (gpu_run.Part("first", 1, (what,)), gpu_run.Part("second", 1, ("done",)))
    assert not gpu_run.measure(parts, fake, 60, LIMITS)
    first, second = capsys.readouterr().out.split("== second")
    assert said in first and "done after" in second
    assert "| joint step, ddp: share of the bf16 matrix rate | 0.125 |" in first
    assert "- step: not over, 1 rows, 1 of 3 rounds" in first
    assert not [path for path in fake.glob("*/record.json") if Path(f"/proc/{path.parent.name}").exists()]


def test_a_part_for_which_no_time_is_left_is_left_out(fake, capsys):
    parts = (gpu_run.Part("first", 2, ("hangs",)), gpu_run.Part("second", 60, ("done",)))
    gpu_run.measure(parts, fake, 2, LIMITS)
    assert "second is left out" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_running_part_and_prints_the_table(fake, tmp_path, number):
    program = (
        "import signal, sys; from pathlib import Path; from benchmarks import gpu_run; "
        "[signal.signal(number, signal.SIG_DFL) for number in gpu_run.SIGNALS]; "
        "gpu_run.COMMAND = Path(sys.argv.pop(1)); gpu_run.PARTS = (gpu_run.Part('ops', 60, ('hangs',)),); "
        "sys.exit(gpu_run.main())"
    )
    command = [sys.executable, "-c", program, tmp_path / "fake.py", tmp_path / "runs"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        for _ in range(300):
            if found := list((tmp_path / "runs").glob("*/*/record.json")):
                break
            time.sleep(0.1)
        started.send_signal(number)
        out, _ = started.communicate(timeout=30)
    assert started.returncode == 128 + number
    assert "| joint step, ddp: share of the bf16 matrix rate | 0.125 |" in out
    assert not Path(f"/proc/{found[0].parent.name}").exists()


def test_the_gpu_script_is_sound_bash_and_starts():
    script = ROOT / "benchmarks" / "run_gpu_checks.sh"
    environment = os.environ | {"MSCGAN_PYTHON": sys.executable}
    done = subprocess.run([script, "--minutes", "0.5"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: --minutes 0.5 are 30 s, and the shortest part takes 40 s; give more\n"


@pytest.fixture
def bare(tmp_path):
    """The environment of a Python that has torch, Triton and numpy, and what they ask for, and nothing else."""
    if sys.prefix == sys.base_prefix:
        pytest.skip("this Python is in no virtual environment, so there is none beside it without its packages")
    (tmp_path / "bare").mkdir()
    wanted, seen = ["torch", "triton", "numpy"], set()
    while wanted:
        if (name := wanted.pop()) in seen:
            continue
        seen.add(name)
        package = distribution(name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            link = tmp_path / "bare" / top
            if not link.exists():
                link.symlink_to(package.locate_file(top))
        asked = map(Requirement, package.requires or ())
        wanted += [one.name for one in asked if not one.marker or one.marker.evaluate({"extra": ""})]
    base = getattr(sys, "_base_executable", sys.executable)  # outside of the virtual environment
    return os.environ | {"PYTHONPATH": str(tmp_path / "bare"), "OMP_NUM_THREADS": "1", "MSCGAN_PYTHON": base}


def test_the_gpu_script_in_a_bare_environment_ends_with_a_table_whatever_is_killed(bare, tmp_path):
    """The whole path at a size for a CPU; its first part is killed as soon as it has measured one way."""
    script = ROOT / "benchmarks" / "run_gpu_checks.sh"
    command = [script, tmp_path / "runs", "--tiny", "--parts", "step", "profile"]
    with subprocess.Popen(command, env=bare, stdout=subprocess.PIPE, text=True) as started:
        killed = _kill_when_a_row_is_there(started, tmp_path / "runs")
        out, _ = started.communicate(timeout=120)
    step, profile = out.split("== profile")
    assert killed and "exit code -9" in step
    assert re.search(r"joint step, ddp: share of the bf16 matrix rate \| 0\.\d+ \|", step)
    assert "- step: not over" in step and "zero1: deepspeed: not installed" in step
    assert "done after" in profile and "- profile: ok, 26 rows" in profile
    assert started.returncode == 1  # no bar of a GPU is met here


def _kill_when_a_row_is_there(started: subprocess.Popen, out: Path) -> bool:
    """Kills the part that is running, once it has measured something; False if the script ends before."""
    while started.poll() is None:
        for path in out.glob("*/*/record.json"):
            if record.read(path)["sections"].get("step", {}).get("rows"):
                children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
                os.kill(int(children[0]), signal.SIGKILL)
                return True
        time.sleep(0.1)
    return False


def test_what_needs_a_package_that_is_missing_is_skipped_in_a_line(bare, tmp_path):
    command = [bare["MSCGAN_PYTHON"], COMMAND, "data", "--out", tmp_path / "out"]
    done = subprocess.run(command, env=bare, capture_output=True, text=True)
    assert done.returncode == 1
    assert "SKIPPED: the section 'data' needs pillow, tqdm: not installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Skipped: pillow, tqdm: not installed" in done.stdout


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
        "plain-1",
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
    assert (ours["way"], plain["way"]) == ("ddp", "plain-1")
    assert ours["finite"] and plain["finite"]
    for row in (ours, plain):
        assert set(row["phases_ms"]) >= {"D", "G forward", "G backward", "optimizer"}
    # pairs/s, GFLOP a pair and TFLOP/s of a device are one another's products
    rate = ours["metrics"]["pairs_per_second"]["median"]
    assert ours["counted"] == "torch.utils.flop_counter over one step"
    assert ours["metrics"]["teraflops"] == pytest.approx(rate * ours["gflop_per_pair"] / 1000)
    text = (path.parent / "report.md").read_text()
    assert "these are figures of a CPU" in text or found["system"]["gpus"]
    assert "| joint | 32x16 | fp32 | ddp | 2 |" in text or found["system"]["gpus"]
    assert text.count("| yes |") == 2  # finite
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
