"""The launcher's options: one table for the command line, launch/cluster.yaml and ~/.config/mscgan/cluster.yaml.

Most of them are sbatch's and go to it as they came: `sbatch --test-only` knows its own rules best. The launcher reads
of them what it has to know, the number of processes. No value may hold a control character: submitit's quoting keeps
a newline, and a newline in an #SBATCH line is a command on the node.

    the defaults below  <  launch/cluster.yaml  <  ~/.config/mscgan/cluster.yaml  <  SBATCH_... of the shell  <
    the command line

An empty value unsets what stands below it. The options that may be given several times add up.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from launch import notations
from mscgan.errors import UserError
from mscgan.paths import expanded

COUNT, NUMBER = r"[1-9]\d{0,5}", "a number above 0"
Settings = dict[str, str | list[str]]


@dataclass(frozen=True)
class Option:
    help: str
    pattern: str = ""  # of the launcher's own; empty: sbatch judges the value
    expected: str = ""  # for the message, after "expected"
    default: str = ""
    short: str = ""  # sbatch's letter
    flag: bool = False  # may stand without a value
    many: bool = False  # may be given several times
    sbatch: bool = True  # an option of sbatch by the same name


def _own(help: str, pattern: str, expected: str, default: str = "", many: bool = False) -> Option:
    return Option(help, pattern, expected, default, many=many, sbatch=False)


OPTIONS = {
    "on": _own("where to run; auto: SLURM where it is installed", "slurm|here|auto", "slurm, here or auto", "auto"),
    "nodes": Option("nodes, or a range such as 2-4", default="1", short="N"),
    "gpus_per_node": Option(
        "GPUs of a node, one process each: 8, a100:8, or auto for all that a node of the partition has", default="auto"
    ),
    "gres": Option("generic resources of a node; gpu:8 is --gpus-per-node 8"),
    "tasks_per_node": Option("processes of a node without GPUs", COUNT, NUMBER, sbatch=False),
    "cpus_per_task": Option("CPUs of a process", COUNT, NUMBER, "4", short="c"),
    "mem": Option("memory of a node"),
    "mem_per_cpu": Option("memory of a CPU"),
    "mem_per_gpu": Option("memory of a GPU"),
    "time": Option("time limit; training saves and requeues itself at it", default="24:00:00", short="t"),
    "partition": Option("partition", short="p"),
    "account": Option("account", short="A"),
    "qos": Option("quality of service", short="q"),
    "constraint": Option("features that the nodes must have", short="C"),
    "exclude": Option("nodes to keep away from", short="x"),
    "nodelist": Option("nodes that must be among those used", short="w"),
    "exclusive": Option("share the nodes with no other job", flag=True),
    "switches": Option("switches at most"),
    "reservation": Option("reservation"),
    "licenses": Option("licences", short="L"),
    "job_name": Option("what squeue calls the job; of a training one name a run by default", short="J"),
    "comment": Option("comment shown by squeue and sacct"),
    "mail_user": Option("where SLURM writes to"),
    "mail_type": Option("on which occasions; by default END, FAIL, REQUEUE and TIME_LIMIT"),
    "dependency": Option("jobs to wait for, for example afterok:123", short="d"),
    "begin": Option("when to start at the earliest", short="b"),
    "nice": Option("lower the priority", flag=True),
    "hold": Option("queue the job held; scontrol release JOB lets it go", short="H", flag=True),
    "output": Option("file of what the batch script says; each rank's log lies in the launch folder", short="o"),
    "sbatch": _own(
        "any other option of sbatch, KEY or KEY=VALUE", r"[a-z][a-z0-9-]+(=.*)?",
        "KEY or KEY=VALUE, such as wckey=a or contiguous", many=True,
    ),
    "srun": _own(
        "an argument for srun, KEY or KEY=VALUE", r"(-[a-zA-Z]|[a-z][a-z0-9-]+)(=.*)?",
        "KEY or KEY=VALUE, such as mpi=pmix", many=True,
    ),
    "array_parallelism": _own("runs of a sweep at the same time", COUNT, NUMBER, "16"),
    "container": _own(
        "image that holds Python and all packages", r"[\w./:@#+=~-]+", "a pyxis image or the path of a .sif file"
    ),
    "mount": _own(
        "folder that the container sees too, DIR or DIR:ITS_NAME_THERE",
        r"[\w ./@=+~(){}$-]+(:[\w ./@=+()-]+){0,2}", "a folder without , and : in its name, or FOLDER:NAME", many=True,
    ),
    "setup": _own(
        "command for the sbatch script before the start; one that fails ends the job", r"[\w./:=@+%, ~-]+",
        "one plain command such as 'module load cuda/13.0'; put more into a file and give 'source FILE'", many=True,
    ),
    "signal_seconds": _own("time before the limit at which training is told to save", COUNT, "seconds", "120"),
    "crash_retries": _own("how often a crashed job runs again", r"\d{1,3}", "a number", "10"),
    "stalled_tries": _own("attempts without a new checkpoint after which the job stops (exit 93)", COUNT, NUMBER, "3"),
    "hang_seconds": _own("silence of a rank after which the job is ended and requeued", COUNT, "seconds", "900"),
    "preflight": _own("check the nodes before training", "true|false", "true or false", "true"),
}  # fmt: skip

# The variables of the shell by which sbatch takes these options too.
VARIABLES = {
    "SBATCH_ACCOUNT": "account", "SBATCH_COMMENT": "comment", "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_EXCLUSIVE": "exclusive", "SBATCH_GPUS_PER_NODE": "gpus_per_node", "SBATCH_GRES": "gres",
    "SBATCH_JOB_NAME": "job_name", "SBATCH_MEM_PER_CPU": "mem_per_cpu", "SBATCH_MEM_PER_GPU": "mem_per_gpu",
    "SBATCH_MEM_PER_NODE": "mem", "SBATCH_OUTPUT": "output", "SBATCH_PARTITION": "partition", "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation", "SBATCH_TIMELIMIT": "time",
}  # fmt: skip

# Options of sbatch and srun that the launcher sets, and what to give instead.
TAKEN = {
    "array": "give --sweep", "ntasks": "give --tasks-per-node", "ntasks-per-node": "give --tasks-per-node",
    "ntasks-per-gpu": "there is one process a GPU", "gpus": "give --gpus-per-node",
    "gpus-per-task": "give --gpus-per-node", "gpus-per-socket": "give --gpus-per-node",
    "signal": "give --signal-seconds", "requeue": "the launcher requeues its jobs itself",
    "no-requeue": "the launcher requeues its jobs itself; --crash-retries says how often", "open-mode": "logs grow",
    "chdir": "start submit.py in that folder", "wrap": "give --setup", "wait": "give --follow",
    "test-only": "give --dry-run", "parsable": "it reads what sbatch prints", "quiet": "it reads what sbatch prints",
    "clusters": "set SLURM_CONF to that cluster's",
}  # fmt: skip
TAKEN_VARIABLES = {f"SBATCH_{name.upper().replace('-', '_')}": name for name in TAKEN} | {"SBATCH_ARRAY_INX": "array"}
TAKEN_OF_SRUN = {
    "output": "each rank's log lies in the launch folder", "error": "each rank's log lies in the launch folder",
    "open-mode": "logs grow", "ntasks": "give --tasks-per-node", "nodes": "give --nodes", "multi-prog": "all ranks run "
    "the same", "pty": "a batch job has no terminal", "jobid": "it is the job's own step", "cpus-per-task": "give "
    "--cpus-per-task", "test-only": "give --dry-run",
}  # fmt: skip
PATHS_OF_SBATCH = ("error", "input")
SHORT_OF_SRUN = {"-o": "output", "-e": "error", "-n": "ntasks", "-N": "nodes", "-c": "cpus-per-task"}
RIVALS = ({"mem", "mem_per_cpu", "mem_per_gpu"},)  # one of them unsets the others that stand below it
SITE = Path(__file__).with_name("cluster.yaml")


def user_file() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mscgan" / "cluster.yaml"


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds every option as --with-dashes, and by sbatch's letter."""
    group = parser.add_argument_group(
        "where and how it runs (defaults: launch/cluster.yaml, ~/.config/mscgan/cluster.yaml)"
    )
    for name, option in OPTIONS.items():
        text = option.help + "; may be repeated" * option.many + f" (default: {option.default})" * bool(option.default)
        names = [f"--{name.replace('_', '-')}", *([f"-{option.short}"] if option.short else [])]
        action = "append" if option.many else "store"
        group.add_argument(*names, dest=name, metavar="X", help=text.replace("%", "%%"), action=action)


def joined(arguments: list[str]) -> list[str]:
    """The arguments in the form that argparse reads as sbatch does: `--exclusive` takes no word after it for its
    value, and `--srun --label` takes it although it looks like an option."""
    flags = {f"--{name}": name for name, option in OPTIONS.items() if option.flag}
    flags |= {f"-{OPTIONS[name].short}": name for name in flags.values() if OPTIONS[name].short}
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] in ("--sbatch", "--srun"):
            found[-1] += f"={argument}"
        else:
            found.append(f"--{flags[argument]}=true" if argument in flags else argument)
    return found


def resolve(given: argparse.Namespace) -> Settings:
    """The settings, each value checked; of those that may be given several times a list. What is not set has no key.

    Raises:
        UserError: an unknown key, a file that cannot be read, a value that the launcher cannot use.
    """
    settings: Settings = {}
    for layer in (_of_file(SITE), _of_file(user_file()), _of_shell(), _of_command(given)):
        _lay(settings, list(layer))
    return {name: option.default for name, option in OPTIONS.items() if option.default} | settings


def _lay(settings: Settings, layer: list[tuple[str, str, str]]) -> None:
    """Puts a layer's values (name, value, where it stands) over the settings."""
    own: dict[str, str] = {}
    for name, value, where in layer:
        if OPTIONS[name].many:
            before = settings.get(name, [])
            assert isinstance(before, list)
            settings[name] = [*before, _checked(name, value, where)] if value else []
            if not settings[name]:
                del settings[name]
        elif not value or (OPTIONS[name].flag and value == "false"):
            settings.pop(name, None)
        else:
            own[name] = _checked(name, value, where)
    for rivals in RIVALS:
        for name in rivals if rivals & set(own) else ():
            settings.pop(name, None)
    if "gres" in own and notations.gpus_of_gres(own["gres"]) is not None:
        if "gpus_per_node" in own:
            raise UserError(f"gres={own['gres']} and gpus_per_node={own['gpus_per_node']} both ask for GPUs; give one")
        settings.pop("gpus_per_node", None)
    elif "gpus_per_node" in own and (gres := settings.get("gres")):
        assert isinstance(gres, str)
        settings["gres"] = notations.with_gpus(gres, 0)
        if not settings["gres"]:
            del settings["gres"]
    settings |= own


def _of_command(given: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    for name in OPTIONS:
        value = getattr(given, name)
        if value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            yield from _named(name, one, f"--{name.replace('_', '-')}")


def _of_shell() -> Iterator[tuple[str, str, str]]:
    """What sbatch itself would take from the shell. Inside a job these are that job's, not the user's wish."""
    for variable, name in VARIABLES.items() if "SLURM_JOB_ID" not in os.environ else ():
        if value := os.environ.get(variable):
            yield name, value, variable


def _of_file(file: Path) -> Iterator[tuple[str, str, str]]:
    try:
        text = file.read_bytes().decode()
        # BaseLoader: every scalar stays a string. YAML would read an unquoted 24:00:00 as the number 86400.
        values = yaml.load(text, Loader=yaml.BaseLoader) or {}
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{file} cannot be read: {reason}; mend it, or remove it") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected lines of the form `key: value`")
    for key, value in values.items():
        if key not in OPTIONS:
            raise UserError(f"{file}: unknown key {key!r}; known are {', '.join(OPTIONS)}")
        if isinstance(value, dict) and key in ("sbatch", "srun"):
            value = [f"{name}={setting}" for name, setting in value.items()]
        if isinstance(value, dict) or (isinstance(value, list) and not OPTIONS[key].many):
            raise UserError(f"{file}: {key} is {value!r}; expected one value")
        for one in value or [""] if isinstance(value, list) else [value]:
            if not isinstance(one, str):
                raise UserError(f"{file}: {key} holds {one!r}; expected plain values")
            yield from _named(key, _plain_of_yaml(key, one), f"{file}: {key}")


def _plain_of_yaml(name: str, value: str) -> str:
    """YAML's spellings of nothing, and of true, false and numbers where the option is one of these."""
    option = OPTIONS[name]
    if value in ("~", "null", "Null", "NULL"):
        return ""
    if option.flag or "true" in option.pattern:
        return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower(), value.lower())
    if option.pattern in (COUNT, r"\d{1,3}"):
        number = yaml.safe_load(value) if re.fullmatch(r"[\w.+-]+", value) else value
        if isinstance(number, int | float) and number == number // 1:
            return str(int(number))
    return value


def _named(name: str, value: str, where: str) -> Iterator[tuple[str, str, str]]:
    """`--sbatch partition=main` is `--partition main`."""
    key, equals, text = value.partition("=")
    option = key.lstrip("-").replace("-", "_")
    if name == "sbatch" and option in OPTIONS and OPTIONS[option].sbatch:
        if not (equals or OPTIONS[option].flag):
            raise UserError(f"{where} is {value!r}; expected {key}=VALUE")
        yield option, text if equals else "true", f"{where} {key}"
    else:
        yield name, value, where


def plain(text: str, what: str) -> str:
    """`text`, refused if it holds a control character (newline, tab, escape)."""
    if any(not character.isprintable() for character in text):
        raise UserError(f"{what} is {text!r}: control characters are not accepted; give one plain line")
    return text


def _checked(name: str, value: str, where: str) -> str:
    option = OPTIONS[name]
    value = plain(value.strip(), where)
    if name in ("sbatch", "srun"):
        value = value.removeprefix("--")
    if not value or (option.pattern and not re.fullmatch(option.pattern, value, re.ASCII)):
        raise UserError(f"{where} is {value!r}; expected {option.expected or 'a value'}")
    check = CHECKS.get(name)
    return check(value, where) if check else value


def _sbatch(value: str, where: str) -> str:
    key, equals, text = value.partition("=")
    _refuse_taken(key, TAKEN, where)
    return f"{key}={expanded(text, where)}" if key in PATHS_OF_SBATCH and equals else value


def _srun(value: str, where: str) -> str:
    key = value.partition("=")[0]
    if key in SHORT_OF_SRUN or key[:2] in SHORT_OF_SRUN:
        key = SHORT_OF_SRUN[key[:2]]
    _refuse_taken(key, TAKEN_OF_SRUN, where)
    return value


def _refuse_taken(key: str, taken: dict[str, str], where: str) -> None:
    """sbatch and srun understand a name's beginning too."""
    for name, instead in taken.items():
        if len(key) > 1 and name.startswith(key):
            raise UserError(f"{where} {key}: the launcher sets {name} itself; {instead}")


def gpus_asked(settings: Settings) -> int | None:
    """GPUs of a node as the settings ask for them; None: auto."""
    of_gres = notations.gpus_of_gres(str(settings.get("gres", "")))
    if of_gres is not None:
        return of_gres
    return None if settings["gpus_per_node"] == "auto" else notations.gpus(str(settings["gpus_per_node"]))


def _parsed(read: Callable[[str, str], object]) -> Callable[[str, str], str]:
    """A check that keeps the value which `read` understands."""

    def check(value: str, where: str) -> str:
        read(value, where)
        return value

    return check


CHECKS: dict[str, Callable[[str, str], str]] = {
    "nodes": _parsed(notations.node_counts),
    "time": _parsed(notations.minutes),
    "gpus_per_node": _parsed(lambda value, where: value == "auto" or notations.gpus(value, where)),
    "gres": _parsed(notations.gpus_of_gres),
    "mem": notations.size,
    "mem_per_cpu": notations.size,
    "mem_per_gpu": notations.size,
    "sbatch": _sbatch,
    "srun": _srun,
    "container": expanded,
    "mount": expanded,
    "output": expanded,
}


def say_not_used() -> None:
    """A line on each variable of the shell whose option the launcher sets itself."""
    for variable, name in TAKEN_VARIABLES.items() if "SLURM_JOB_ID" not in os.environ else ():
        if variable in os.environ:
            print(f"note: {variable} of your shell is not used: the launcher sets {name} itself; {TAKEN[name]}",
                  file=sys.stderr)  # fmt: skip
