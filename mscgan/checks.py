"""What a command can refuse before its work begins. No torch and no numpy, for the launcher's sake."""

import argparse
import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mscgan.errors import UserError
from mscgan.keys import FIND_POSES, Config

LONGEST = 180  # bytes of a name: while it is written it is part of a longer one, and 255 is the most that disks take


def beside(folder: Path | str, holding: str) -> str:
    """Which folders beside one that is not there have a like name and hold the file: "did you mean A or B?", or ""."""
    folder = Path(folder)
    names = [found.parent.name for found in folder.parent.glob(f"*/{holding}")]
    near = difflib.get_close_matches(folder.name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(str(folder.with_name(name)) for name in near)}?" if near else ""


def check_place(path: Path, option: str) -> None:
    """Looks, before the work, whether the file `path` can be written; folders that are missing may be made.

    Raises:
        UserError: it cannot; `option` is what to change.
    """
    if len(os.fsencode(path.name)) > LONGEST:
        raise UserError(f"the name {path.name[:40]}... has more than {LONGEST} bytes; give a shorter one with {option}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file with {option}")
    if not folder.is_dir():
        raise UserError(f"cannot write {path} ({folder} is no folder); give another file with {option}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path} (no permission to write to {folder}); give another file with {option}")


def check_apart(path: Path, option: str, inputs: Iterable[Path | str]) -> None:
    """Refuses to write over what the same command reads.

    Args:
        path: what will be written.
        inputs: files that are read; those that are not there, or are no files but texts, are passed over.

    Raises:
        UserError: it is one of them; `option` is what to change.
    """
    for given in inputs:
        if path.exists() and os.path.exists(given) and os.path.samefile(path, given):
            raise UserError(f"{path} would be written over, which this command reads; give another place with {option}")


def check_together(options: argparse.Namespace, needs: dict[str, tuple[object, tuple[str, ...]]]) -> None:
    """Refuses an option that was given where it would do nothing.

    Args:
        options: of argparse; what was not given is None, False, "" or [].
        needs: what has to be there too, in words -> (whether it is, names of the options that go with it).

    Raises:
        UserError: names the first such option and what it goes with.
    """
    for what, (there, names) in needs.items():
        for name in names:
            value = getattr(options, name)
            if not there and value is not None and value is not False and value not in ("", []):
                raise UserError(f"--{name.replace('_', '-')} does nothing here: it goes with {what}; leave it away")


def check_trained(run: Path) -> None:
    """Looks whether the folder holds a trained run: its configuration and its weights.

    Raises:
        UserError: it does not.
    """
    if not run.is_dir():
        raise UserError(f"no run folder {str(run)!r}; {beside(run, 'config.yaml') or 'give the folder of a run'}")
    for name in ("config.yaml", "generator.safetensors"):
        if not (run / name).is_file():
            raise UserError(
                f"{run} has no {name}; give the folder of a run whose training has finished or saved (where the file "
                "was lost, the command that trained the run writes it again)"
            )


def check_makes_images(run: Path, config: Config) -> None:
    """Refuses a run of a family that finds poses, for commands that want images."""
    if config.family in FIND_POSES:
        raise UserError(
            f"{run} is a run of the family {config.family}, which makes no images but finds poses: "
            f"`python -m mscgan.poses --estimator {run}` scores it (--score SHARDS) and uses it (--image, --folder)"
        )


def check_weights(path: Path, stage: str = "", seen: int = 0) -> None:
    """Looks whether train.init is a safetensors file that can be read; not whether it fits the networks.

    Args:
        stage: train.init_after, the stage that must have made the file; empty: any.
        seen: pairs that it must have trained on.

    Raises:
        UserError: it is not, or another stage made it, or that one before its end.
    """
    try:
        with safe_open(path, framework="np") as file:
            found, _, pairs = (file.metadata() or {}).get("stage", "none").partition(":")
    except (OSError, SafetensorError) as error:
        raise UserError(f"train.init={path}: {error}; give a run's generator.safetensors") from error
    if stage and (found, pairs) != (stage, str(seen)):
        raise UserError(
            f"train.init={path} was made after {pairs or 'an unknown number of'} pairs of stage {found}, and "
            f"train.init_after={stage} with these train.pairs expects {seen} of {stage}; train that stage to its end "
            "first"
        )
