"""Trackers that clusters use, beside TensorBoard: `log.trackers=[wandb,mlflow]`; `pip install mscgan[wandb,mlflow]`.

A tracker follows the run's folder from a thread of its own: it is given what metrics.jsonl and samples/ hold beyond
what it has had. So neither a slow network nor a kill costs a point, and a run that goes on gives none twice. How far it
is, and in which run of the tracker, stands in RUN/tracker-NAME.json. wandb keeps the last of an offline run in memory;
so where a start was killed, its folder RUN/wandb/offline-run-... becomes unfinished-offline-run-..., and all that it
had is given again.
A tracker that fails is a warning, and is tried again with the next line; training goes on. Where they write to is
theirs to say: WANDB_MODE=offline and WANDB_PROJECT; MLFLOW_TRACKING_URI (without it RUN/mlruns) and
MLFLOW_EXPERIMENT_NAME. Neither package is imported unless asked for.
"""

import importlib.util
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mscgan import config as configuration
from mscgan import curve, files
from mscgan.errors import UserError
from mscgan.keys import Config
from mscgan.tolerance import Tolerance

CLOSE_SECONDS = 30.0  # that the end of training waits for a tracker
OPEN_SECONDS = 20.0  # that wandb looks for its server before it fails, to be tried again
AT_ONCE = 100  # parameters that mlflow takes in a call


def check(names: list[str]) -> None:
    """Refuses a tracker whose package is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"log.trackers names {name}, which is not installed; pip install 'mscgan[{name}]', or leave it out"
            )


def points(line: dict) -> dict[str, float]:
    """The values of a line of metrics.jsonl by the names that TensorBoard has: loss/L1_1, meters/data_wait."""
    values = {name: value for name, value in line.items() if isinstance(value, int | float)}
    losses = {f"loss/{name}": float(value) for name, value in values.items() if name not in curve.METERS}
    return losses | {f"meters/{name}": float(values[name]) for name in curve.MEASURED if name in values}


class Tracker:
    """One tracker of one start of a run.

    Args:
        name: wandb or mlflow.
        run: the run's folder, where metrics.jsonl has been cut to where this start begins.
        config: resolved.
        say: how a line reaches the user.
    """

    def __init__(self, name: str, run: Path, config: Config, say: Callable[[str], None]):
        self._name, self._run, self._config, self._say = name, run, config, say
        self._file, self._tolerance = run / f"tracker-{name}.json", Tolerance(say)
        self._sink: _Sink | None = None
        self._had = _Had()
        self._news, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, name=f"tracker {name}", daemon=True)
        self._thread.start()
        self.wake()

    def wake(self) -> None:
        """Says that the folder holds something new."""
        self._news.set()

    def close(self) -> None:
        """Waits until the tracker has all, for CLOSE_SECONDS at most."""
        self._closing = True
        self.wake()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._say(f"warning: {self._name} has not taken all in {CLOSE_SECONDS:.0f} seconds; training ends without")
        elif failed := self._tolerance.failed.get(self._name, 0):
            self._say(f"warning: {self._name} could not be given all; {failed} attempts failed")

    def _follow(self) -> None:
        closing = False
        while not closing:
            self._news.wait()
            self._news.clear()
            closing = self._closing
            with self._tolerance.trying(self._name, Exception):  # of a package that is not ours, anything
                self._give(closing)

    def _give(self, closing: bool) -> None:
        if self._sink is None:
            self._open()
        assert self._sink, "opened above"
        try:
            for line in curve.read(self._run / "metrics.jsonl"):
                if line["pairs"] > self._had.pairs:
                    self._sink.log(points(line), line["pairs"])
                    self._note(pairs=line["pairs"])
            for picture in sorted((self._run / "samples").glob("pairs-*.png")):
                if (pairs := int(picture.stem.removeprefix("pairs-"))) > self._had.picture:
                    self._sink.picture(picture, pairs)
                    self._note(picture=pairs)
            if closing:
                self._sink.end()
                self._note(unfinished="")
        except Exception:
            self._sink = None  # opened anew the next time
            raise

    def _open(self) -> None:
        if self._file.exists():
            self._had = _Had(**json.loads(self._file.read_text()))
        if self._had.unfinished:
            self._had = replace(self._had, pairs=self._had.sure_pairs, picture=self._had.sure_picture)
        self._sink = OPEN[self._name](self._run, self._had, self._config)
        if self._sink.had is not None:
            self._had = replace(self._had, pairs=self._sink.had)
        self._note(
            id=self._sink.id, unfinished=self._sink.unfinished,
            sure_pairs=self._had.pairs, sure_picture=self._had.picture,
        )  # fmt: skip

    def _note(self, **values) -> None:
        self._had = replace(self._had, **values)
        files.write(self._file, json.dumps(asdict(self._had)))


@dataclass(frozen=True)
class _Had:
    """What a tracker has had, as RUN/tracker-NAME.json holds it."""

    id: str = ""  # of its run; empty before the first
    pairs: int = -1  # of the last line
    picture: int = -1  # pairs of the last picture
    unfinished: str = ""  # folder of a start that may not be whole, and what the tracker had before it:
    sure_pairs: int = -1
    sure_picture: int = -1


@dataclass(frozen=True)
class _Sink:
    """An open run of a tracker."""

    id: str  # with which it is opened again
    log: Callable[[dict[str, float], int], None]  # values by name, at so many pairs
    picture: Callable[[Path, int], None]
    end: Callable[[], None]
    unfinished: str = ""  # the folder that is whole only after `end`
    had: int | None = None  # pairs of the last line that its server has, where one says so


def _open_wandb(run: Path, had: _Had, config: Config) -> _Sink:
    import wandb

    name = Path(had.unfinished).name
    if name and (folder := run / "wandb" / name).is_dir():
        folder.rename(folder.with_name(f"unfinished-{name}"))
    identity = had.id or secrets.token_hex(8)
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "mscgan"), id=identity, name=run.resolve().name, dir=str(run),
        resume="allow", reinit="finish_previous", config=configuration.leaves(config),
        settings=wandb.Settings(console="off", quiet=True, init_timeout=OPEN_SECONDS),
    )  # fmt: skip
    opened.define_metric("*", step_metric="pairs")  # its own count of steps takes no value at one that is past
    return _Sink(
        identity,
        lambda values, pairs: opened.log(values | {"pairs": pairs}),
        lambda picture, pairs: opened.log({"samples": wandb.Image(str(picture)), "pairs": pairs}),
        opened.finish,
        unfinished=Path(opened.dir).parent.name if opened.offline else "",
        had=opened.summary.get("pairs") if opened.resumed else None,
    )


def _open_mlflow(run: Path, had: _Had, config: Config) -> _Sink:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    where = os.environ.get("MLFLOW_TRACKING_URI")
    if not where:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # its databases trust a file lock, which NFS may lack
        where = (run / "mlruns").absolute().as_uri()
    client = MlflowClient(tracking_uri=where)
    if identity := had.id:
        client.update_run(identity, status="RUNNING")
    else:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mscgan")
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        identity = client.create_run(experiment, run_name=run.resolve().name).info.run_id
        parameters = [Param(key, str(value)) for key, value in configuration.leaves(config).items()]
        for start in range(0, len(parameters), AT_ONCE):
            client.log_batch(identity, params=parameters[start : start + AT_ONCE])
    client.log_text(identity, configuration.text(config), "config.yaml")

    def log(values: dict[str, float], pairs: int) -> None:
        now = int(time.time() * 1000)
        client.log_batch(identity, metrics=[Metric(name, value, now, pairs) for name, value in values.items()])

    return _Sink(
        identity,
        log,
        lambda picture, _: client.log_artifact(identity, str(picture), "samples"),
        lambda: client.set_terminated(identity),
    )


OPEN = {"wandb": _open_wandb, "mlflow": _open_mlflow}
