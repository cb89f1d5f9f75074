"""`python -m mscgan.checkpoint {ls,verify,export,diff} RUN`: a run's checkpoints, looked at and never changed.

ls       each one: position, stage, size, what is in it
verify   reads every file and compares it with its digest; exit code 1 where one is damaged
export   a checkpoint's generator as a file, verified: --to FILE
diff     two checkpoints: which facts and settings differ, and how far the weights are apart
"""

import argparse
import shutil
from pathlib import Path

from mscgan import checkpoint, files
from mscgan.arguments import Parser
from mscgan.checks import check_place
from mscgan.errors import DONE, FAILED, UserError
from mscgan.paths import a_path


def main() -> int:
    parser = Parser(prog="python -m mscgan.checkpoint", description="A run's checkpoints.")
    parser.add_argument("what", choices=sorted(COMMANDS), help="see the head of mscgan/inspection.py")
    parser.add_argument("run", type=a_path, metavar="RUN", help="the run's folder")
    parser.add_argument("at", type=int, nargs="*", metavar="PAIRS", help="positions; the newest, where none is given")
    parser.add_argument("--to", type=a_path, metavar="FILE", help="of export")
    arguments = parser.parse_args()
    return COMMANDS[arguments.what](arguments)


def _ls(arguments: argparse.Namespace) -> int:
    for path in _chosen(arguments, every=True):
        try:
            found = checkpoint.document(path)
        except checkpoint.Damaged as error:
            print(f"{path.name}  DAMAGED: {error}")
            continue
        size = sum(entry["bytes"] for entry in found["files"].values())
        facts = found["state"]
        print(
            f"{path.name}  stage {facts['stage']}, {facts.get('steps', '?')} steps, {size / 1e6:,.1f} MB in "
            f"{len(found['files'])} files, {len(found['tensors'])} tensors, mscgan {found['version']}"
        )
    for path in checkpoint.set_aside_in(arguments.run):
        print(f"{path.name}  set aside: it was found damaged")
    return DONE


def _verify(arguments: argparse.Namespace) -> int:
    damaged = 0
    for path in _chosen(arguments, every=True):
        try:
            _verified(path)
            print(f"{path.name}  as it was written")
        except checkpoint.Damaged as error:
            if path.exists():
                print(f"{path.name}  DAMAGED: {error}")
                damaged += 1
            else:
                print(f"{path.name}  removed meanwhile: training goes on")
        except OSError as error:
            print(f"{path.name}  CANNOT BE READ: {error}")
            damaged += 1
    return FAILED if damaged else DONE


def _export(arguments: argparse.Namespace) -> int:
    if arguments.to is None:
        raise UserError("export needs --to FILE, for example --to generator.safetensors")
    check_place(arguments.to, "--to")
    (path,) = _chosen(arguments, count=1)
    try:
        _verified(path)
    except checkpoint.Damaged as error:
        raise UserError(f"checkpoint {path} is damaged ({error}); export another, by its PAIRS") from error
    with files.whole(arguments.to) as temporary:
        shutil.copyfile(path / checkpoint.GENERATOR, temporary)
    print(f"{arguments.to}: the generator of {path}")
    return DONE


def _diff(arguments: argparse.Namespace) -> int:
    one, other = _chosen(arguments, count=2)
    try:
        (facts, tensors), (other_facts, other_tensors) = _verified(one), _verified(other)
    except checkpoint.Damaged as error:
        raise UserError(f"one of {one.name} and {other.name} is damaged ({error}); verify says which") from error
    before, after = _flat(facts), _flat(other_facts)
    for key in sorted(before | after):
        if before.get(key) != after.get(key):
            print(f"{key}: {before.get(key)} -> {after.get(key)}")
    for name in sorted(tensors.keys() ^ other_tensors.keys()):
        print(f"{name}: only in {one.name if name in tensors else other.name}")
    for name in sorted(tensors.keys() & other_tensors.keys()):
        a, b = tensors[name].double(), other_tensors[name].double()
        if a.shape != b.shape:
            print(f"{name}: {list(a.shape)} -> {list(b.shape)}")
        elif not a.equal(b):
            print(f"{name}: |difference| at most {(a - b).abs().max():.3g}, on average {(a - b).abs().mean():.3g}")
    return DONE


COMMANDS = {"ls": _ls, "verify": _verify, "export": _export, "diff": _diff}


def _verified(path: Path):
    found = checkpoint.document(path)
    checkpoint.verify(path, found["files"], found)
    return found["state"], checkpoint.load(path, found)


def _chosen(arguments: argparse.Namespace, count: int = 0, every: bool = False) -> list[Path]:
    """The checkpoints of the positions given; without any the newest `count`, or all."""
    there = checkpoint.all_of(arguments.run)
    if not there:
        raise UserError(f"{arguments.run} has no checkpoints; give the folder of a run")
    by_position = {checkpoint.position(path): path for path in there}
    if missing := [pairs for pairs in arguments.at if pairs not in by_position]:
        raise UserError(f"no checkpoint at {missing[0]} pairs; there are some at {', '.join(map(str, by_position))}")
    chosen = [by_position[pairs] for pairs in arguments.at] or (there if every else there[-count:])
    if count and len(chosen) != count:
        raise UserError(f"{arguments.what} takes {count} checkpoints, and these are {len(chosen)}; give PAIRS of each")
    return chosen


def _flat(value: object, name: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, object] = {}
    for key, part in value.items():
        flat |= _flat(part, f"{name}.{key}" if name else key)
    return flat
