"""Paths as people write them: `~` and `$VAR` stand for folders, whether a shell has filled them in or not.

bash does it neither in `run=~/x` nor in a YAML file, and a folder that is called `~` helps nobody. Standard library
only.
"""

import argparse
import os
import re
from pathlib import Path

from mscgan.errors import UserError

LONGEST = 255  # bytes of a file's name, on every file system that runs are kept on
VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def expanded(text: str, what: str, later: bool = False) -> str:
    """The text with `~`, `~user` and `$VAR` filled in.

    what: what the text is, for the message, such as "run=$SCRATCH/a". later: variables are left as they are, for the
    node to fill in.

    Raises:
        UserError: a variable that is not set, a user who has no home, a name that no file can have.
    """
    if "\0" in text or any(len(os.fsencode(name)) > LONGEST for name in text.split("/")):
        raise UserError(f"{what[:40]}...: a name in a path has {LONGEST} bytes at most, and no zero byte; give another")
    found = os.path.expanduser(text)
    if found.startswith("~"):
        raise UserError(f"{what}: {found.split('/')[0]} is nobody's home here; for a folder of that name give ./{text}")
    if later:
        return found
    for variable in VARIABLE.findall(found):
        if variable.strip("{}") not in os.environ:
            raise UserError(f"{what}: the variable {variable.strip('{}')} is not set; set it, or give the path itself")
    return os.path.expandvars(found)


def a_path(text: str) -> Path:
    """For argparse, as `type=a_path`: of every option that is a path."""
    return Path(path_text(text))


def path_text(text: str) -> str:
    """As `a_path`, and a text: where a name may stand too, as in `--estimator movenet`."""
    if not text:  # Path("") would be the folder one stands in
        raise argparse.ArgumentTypeError("it is empty, as an unset variable of the shell leaves it; give a path")
    try:
        return expanded(text, repr(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
