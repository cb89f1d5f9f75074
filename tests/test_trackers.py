"""Trackers, in the packages themselves and without a network: the same points as TensorBoard's, over restarts, and
no failure of theirs that ends training."""

import json
import os
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mscgan import config as configuration
from mscgan import telemetry, trackers
from mscgan.errors import UserError
from mscgan.telemetry import Telemetry
from tests.ranks import ROOT


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No GPU's meters, no network, and nobody's settings."""
    monkeypatch.setattr(telemetry.torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def config(*names: str):
    return configuration.load("demo", [f"log.trackers=[{','.join(names)}]"])


def meter(run, *names: str, start: int = 0) -> Telemetry:
    return Telemetry(run, 0, 1000, start, config=config(*names))


def log(one: Telemetry, *pairs: int) -> None:
    for seen in pairs:
        one.log(one.pace(), seen, 0, "I", {"L1_1": seen / 1000})


def board(run) -> dict[str, list[int]]:
    """The pairs of TensorBoard's points, by their names."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


# wandb's file is a log of LevelDB's kind: after a head of 7 bytes blocks of 32 KiB, in them pieces of records with a
# head of (crc 4, length 2, kind 1: whole 1, first 2, middle 3, last 4).
def wandb_records(file):
    from wandb.proto import wandb_internal_pb2 as protocol

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield protocol.Record.FromString(record)
            record = b""


def wandb_history(run) -> list[dict]:
    """All that was logged, over all starts of the run, in order."""
    found = []
    for file in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                found.append(items)
    return found


def test_wandb_gets_tensorboards_points_and_the_pictures_and_the_configuration(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    run = tmp_path / "a run"
    one = meter(run, "wandb")
    log(one, 100, 200)
    one.pictures(200, Image.new("RGB", (40, 40)))
    log(one, 300)
    one.close()
    history = wandb_history(run)
    curves = [line for line in history if "loss/L1_1" in line]
    assert [(line["pairs"], line["loss/L1_1"]) for line in curves] == [(100, 0.1), (200, 0.2), (300, 0.3)]
    assert {name for name in curves[0] if not name.startswith("_")} == {*board(run), "pairs"}
    assert [line["pairs"] for line in history if any(name.startswith("samples") for name in line)] == [200]
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    (told,) = [record.run for record in wandb_records(file) if record.WhichOneof("record_type") == "run"][:1]
    values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in told.config.update}
    assert values["train.lr"] == config().train.lr and told.display_name == "a run" and told.project == "mscgan"


def test_wandb_goes_on_in_the_same_run_with_no_point_twice_and_none_lost(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    first = meter(tmp_path, "wandb")
    log(first, 100, 200, 300)
    first.close()
    second = meter(tmp_path, "wandb", start=200)
    log(second, 300, 400)
    second.close()
    assert [line["pairs"] for line in wandb_history(tmp_path) if "loss/L1_1" in line] == [100, 200, 300, 400]
    starts = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert {file.name for file in starts} == {
        f"run-{json.loads((tmp_path / 'tracker-wandb.json').read_text())['id']}.wandb"
    }


def test_wandb_has_every_point_once_although_starts_were_killed(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    code = """
import json, os, signal, sys, time
from pathlib import Path
from tests.test_trackers import log, meter, wait_for
file = Path(sys.argv[1]) / "tracker-wandb.json"
log(meter(Path(sys.argv[1]), "wandb", start=int(sys.argv[2])), *map(int, sys.argv[3:]))
wait_for(lambda: file.exists() and json.loads(file.read_text())["pairs"] == int(sys.argv[-1]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    alone = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # else it is this process's
    for start, *pairs in ((0, 100, 200, 300), (200, 300, 400)):
        told = [sys.executable, "-c", code, tmp_path, *map(str, (start, *pairs))]
        done = subprocess.run(told, cwd=ROOT, env=alone, capture_output=True, text=True)
        assert done.returncode == -9, done.stderr
    last = meter(tmp_path, "wandb", start=300)
    log(last, 400, 500)
    last.close()
    assert [line["pairs"] for line in wandb_history(tmp_path) if "loss/L1_1" in line] == [100, 200, 300, 400, 500]
    folders = [folder.name.split("-run-")[0] for folder in sorted((tmp_path / "wandb").glob("*offline-run-*"))]
    assert folders == ["offline", "unfinished-offline", "unfinished-offline"]  # `wandb sync` takes the first alone


def test_mlflow_gets_the_same_and_goes_on_in_the_same_run(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    first = meter(tmp_path, "mlflow")
    log(first, 100, 200, 300)
    first.pictures(300, Image.new("RGB", (40, 40)))
    first.close()
    second = meter(tmp_path, "mlflow", start=200)
    log(second, 300, 400)
    second.pictures(400, Image.new("RGB", (40, 40)))
    second.close()
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("mscgan").experiment_id])
    identity = run.info.run_id
    for name, steps in board(tmp_path).items():
        assert [point.step for point in client.get_metric_history(identity, name)] == steps == [100, 200, 300, 400]
    assert set(run.data.metrics) == set(board(tmp_path)) and run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.003" and run.info.run_name == tmp_path.name
    pictures = [file.path for file in client.list_artifacts(identity, "samples")]
    assert pictures == ["samples/pairs-000000300.png", "samples/pairs-000000400.png"]
    kept = client.download_artifacts(identity, "config.yaml", str(tmp_path))
    assert yaml.safe_load(open(kept).read())["log"]["trackers"] == ["mlflow"]


class Fake:
    """A tracker's run that notes what it is given, and fails while it is told to."""

    def __init__(self, monkeypatch, failure: Exception | None = None):
        self.had, self.opened, self.ended, self.failure = [], [], 0, failure
        self.unfinished, self.at_server = "", None
        monkeypatch.setitem(trackers.OPEN, "wandb", self.open)

    def open(self, run, had, config):
        self.opened.append(had.id)
        return SimpleNamespace(
            id="id-1", log=self.log, picture=self.log, end=self.end, unfinished=self.unfinished, had=self.at_server
        )

    def log(self, what, pairs):
        if self.failure:
            raise self.failure
        self.had.append(pairs)

    def end(self):
        self.ended += 1


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "nothing came within 30 seconds"
        time.sleep(0.01)


@pytest.mark.parametrize("failure", [ConnectionError("no route"), RuntimeError(""), KeyError("x")])
def test_a_tracker_that_fails_is_said_once_and_has_all_when_it_works_again(tmp_path, monkeypatch, capfd, failure):
    fake = Fake(monkeypatch, failure)
    one = meter(tmp_path, "wandb")
    tracker = one._trackers[0]
    for pairs in (100, 200, 300):
        log(one, pairs)
        wait_for(lambda: not tracker._news.is_set())
    fake.failure = None
    log(one, 400)
    one.close()
    assert fake.had == [100, 200, 300, 400] and fake.ended == 1
    said = [line for line in capfd.readouterr().err.splitlines() if "wandb" in line]
    assert "warning: wandb cannot be written (" in said[0] and "training goes on" in said[0]
    assert len(said) == 2 and "wandb is written again" in said[1]


def test_a_tracker_that_never_works_is_said_at_the_end_too(tmp_path, monkeypatch, capfd):
    Fake(monkeypatch, ConnectionError("no route"))
    one = meter(tmp_path, "wandb")
    log(one, 100)
    one.close()
    said = [line for line in capfd.readouterr().err.splitlines() if "wandb" in line]
    assert said[0].startswith("warning: wandb cannot be written (no route)") and "could not be given all" in said[-1]


def test_a_tracker_that_hangs_does_not_hold_the_end_for_long(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.2)
    waiting = trackers.threading.Event()
    monkeypatch.setitem(trackers.OPEN, "wandb", lambda *_: waiting.wait(60))
    one = meter(tmp_path, "wandb")
    log(one, 100)
    one.close()
    assert "wandb has not taken all in 0 seconds; training ends without" in capfd.readouterr().err
    waiting.set()


def test_what_a_killed_start_could_not_give_is_given_by_the_next(tmp_path, monkeypatch):
    log(meter(tmp_path), 100, 200)  # the tracker was down, or is new to the run
    fake = Fake(monkeypatch)
    one = meter(tmp_path, "wandb", start=200)
    log(one, 300)
    one.close()
    assert fake.had == [100, 200, 300] and fake.opened == [""]
    again = meter(tmp_path, "wandb", start=300)
    again.close()
    assert fake.had == [100, 200, 300] and fake.opened == ["", "id-1"]


def test_what_a_start_may_not_have_kept_is_given_again_and_what_a_server_has_is_not(tmp_path, monkeypatch):
    fake = Fake(monkeypatch)
    fake.unfinished = "folder"
    log(first := meter(tmp_path, "wandb"), 100, 200)
    first.close()
    log(meter(tmp_path, "wandb", start=200), 300)  # and is killed
    file = tmp_path / "tracker-wandb.json"
    wait_for(lambda: json.loads(file.read_text())["pairs"] == 300)
    assert fake.had == [100, 200, 300]
    log(second := meter(tmp_path, "wandb", start=300), 400)
    second.close()
    assert fake.had == [100, 200, 300, 300, 400]
    fake.at_server = 300
    log(third := meter(tmp_path, "wandb", start=400), 500)
    third.close()
    assert fake.had == [100, 200, 300, 300, 400, 400, 500]


def test_a_file_of_a_tracker_that_is_broken_is_a_warning(tmp_path, monkeypatch, capfd):
    fake = Fake(monkeypatch)
    (tmp_path / "tracker-wandb.json").write_text("{")
    one = meter(tmp_path, "wandb")
    log(one, 100)
    one.close()
    assert fake.had == [] and "warning: wandb cannot be written (Expecting" in capfd.readouterr().err


def test_other_ranks_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(telemetry, "Tracker", lambda *_: pytest.fail("a tracker on rank 1"))
    Telemetry(tmp_path, 1, 1000, 0, config=config("wandb")).close()


def test_a_package_that_is_not_installed_is_refused_with_the_command(monkeypatch):
    trackers.check([])
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"names mlflow, which is not installed; pip install 'mscgan\[mlflow\]'"):
        trackers.check(["mlflow"])


@pytest.mark.parametrize("names", ["[wandb,wandb]", "[tensorboard]", "[wandb,mlflow,x]"])
def test_the_configuration_takes_the_two_names_each_once(names):
    assert config("mlflow", "wandb").log.trackers == ["mlflow", "wandb"]
    with pytest.raises(UserError, match="log.trackers is .*; give some of wandb, mlflow, each once"):
        configuration.load("demo", [f"log.trackers={names}"])


def test_nothing_is_imported_that_was_not_asked_for():
    code = "import sys, mscgan.train; print(sorted({'wandb', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_line_of_metrics_has_no_name_that_is_neither_a_term_nor_known(tmp_path):
    one = Telemetry(tmp_path, 0, 1000, 0)
    log(one, 100)
    one.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert set(line) - trackers.curve.METERS == {"L1_1"}
    assert set(trackers.points(line)) == set(board(tmp_path))
