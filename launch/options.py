"""The launcher's options: one table for the command line, launch/cluster.yaml and ~/.config/mscgan/cluster.yaml.

Every value is checked against a strict pattern before it goes anywhere near a script: submitit's quoting keeps a
newline, and a newline in an #SBATCH line is a command on the node.
"""

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from mscgan.errors import UserError

COUNT = r"[1-9]\d{0,5}"
NAME = r"[\w.,@+-]+"
HOSTS = r"[\w.,\[\]-]+"


@dataclass(frozen=True)
class Option:
    pattern: str
    expected: str  # for the message, after "expected"
    help: str


OPTIONS = {
    "nodes": Option(COUNT, "a number above 0", "nodes"),
    "gpus_per_node": Option(r"\d{1,4}|auto", "a number or auto", "GPUs of a node, one process each; auto: all it has"),
    "tasks_per_node": Option(COUNT, "a number above 0", "processes of a node without GPUs"),
    "cpus_per_task": Option(COUNT, "a number above 0", "CPUs of a process"),
    "mem": Option(r"\d+[KMGT]?B?", "a size such as 64G", "memory of a node"),
    "time": Option(
        r"(\d+-)?\d+(:\d\d){0,2}", "minutes, H:MM:SS or D-HH:MM:SS", "time limit; training requeues itself at it"
    ),
    "partition": Option(NAME, "a partition's name", "partition"),
    "account": Option(NAME, "an account's name", "account"),
    "qos": Option(NAME, "a name", "quality of service"),
    "constraint": Option(
        r"[\w.,&|()\[\]*:-]+", "node features such as a100&nvlink", "features that the nodes must have"
    ),
    "exclude": Option(HOSTS, "node names such as n[1-3],n7", "nodes to keep away from"),
    "nodelist": Option(HOSTS, "node names such as n[1-3],n7", "nodes that must be among those used"),
    "reservation": Option(NAME, "a name", "reservation"),
    "comment": Option(r"[\w .,:@%=+/\[\]()-]+", "plain words", "comment shown by squeue and sacct"),
    "mail_user": Option(
        r"[\w.+-]+@[\w.-]+", "an e-mail address", "where SLURM writes at end, failure, requeue and time limit"
    ),
    "dependency": Option(r"singleton|[a-z]+:[\w:+,?]+", "for example afterok:123", "jobs to wait for"),
    "array_parallelism": Option(COUNT, "a number above 0", "runs of a sweep at the same time"),
    "container": Option(
        r"[\w./:@#+=-]+", "a pyxis image or the path of a .sif file", "image that holds Python and all packages"
    ),
    "setup": Option(
        r"[\w./:=@%+, ~-]+",
        "one plain command such as 'module load cuda/13.0'; put more into a file and give 'source FILE'",
        "command for the sbatch script before the start; may be given several times",
    ),
    "signal_seconds": Option(COUNT, "seconds", "time before the limit at which training is told to save"),
    "crash_retries": Option(r"\d{1,3}", "a number", "how often a crashed job runs again"),
    "stalled_tries": Option(
        COUNT, "a number above 0", "attempts without a new checkpoint after which the job stops (exit 93)"
    ),
    "hang_seconds": Option(COUNT, "seconds", "silence of a rank after which the job is ended and requeued"),
    "preflight": Option("true|false", "true or false", "check the nodes before training"),
}
SITE = Path(__file__).with_name("cluster.yaml")


def user_file() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mscgan" / "cluster.yaml"


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds every option as --with-dashes."""
    group = parser.add_argument_group(
        "where and how it runs (defaults: launch/cluster.yaml, ~/.config/mscgan/cluster.yaml)"
    )
    for name, option in OPTIONS.items():
        action, text = "append" if name == "setup" else "store", option.help.replace("%", "%%")
        group.add_argument(f"--{name.replace('_', '-')}", metavar="X", help=text, action=action)


def resolve(given: argparse.Namespace) -> dict[str, str | list[str]]:
    """The settings: the site's file, then the user's, then the command line, each value checked; `setup` is a list.

    Raises:
        UserError: an unknown key or a value that its pattern refuses.
    """
    settings: dict[str, str | list[str]] = {}
    for file in (SITE, user_file()):
        settings |= _read(file)
    for name in OPTIONS:
        value = getattr(given, name)
        if value is not None:
            settings[name] = _checked(name, value, f"--{name.replace('_', '-')}")
    return settings


def plain(text: str, what: str) -> str:
    """`text`, refused if it holds a control character (newline, tab, escape)."""
    if any(not character.isprintable() for character in text):
        raise UserError(f"{what} is {text!r}: control characters are not accepted; give one plain line")
    return text


def minutes(time: str) -> int:
    """SLURM's notations of a time: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if not dash and len(parts) < 3:
        parts = [0, *parts]  # minutes come first
    hours, mins, seconds = parts + [0] * (3 - len(parts))
    return max(1, int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0))


def _read(file: Path) -> dict[str, str | list[str]]:
    if not file.is_file():
        return {}
    try:
        # BaseLoader: every scalar stays a string. YAML would read an unquoted 24:00:00 as the number 86400.
        values = yaml.load(file.read_text(), Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected lines of the form `key: value`")
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise UserError(f"{file}: unknown key {unknown[0]!r}; known are {', '.join(OPTIONS)}")
    return {name: _checked(name, value, f"{file}: {name}") for name, value in values.items() if value not in ("", [])}


def _checked(name: str, value: str | list[str], where: str) -> str | list[str]:
    if name == "setup":
        return [_match(name, line, where) for line in ([value] if isinstance(value, str) else value)]
    return _match(name, value, where)


def _match(name: str, value, where: str) -> str:
    option = OPTIONS[name]
    if not isinstance(value, str) or not re.fullmatch(option.pattern, value, re.ASCII):
        raise UserError(f"{where} is {value!r}; expected {option.expected}")
    return value
