"""Whom a user's pictures show: by their folders, by a regular expression over their paths, or by a table."""

import csv
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from mscgan.data.annotations import text_lines
from mscgan.data.names import flat
from mscgan.data.tables import LONGEST
from mscgan.errors import UserError
from mscgan.paths import expanded

Row = TypeVar("Row")

BY_FOLDER = "folder"
TABLE = "name,person"


def persons(rule: str, paths: list[str]) -> dict[str, str]:
    """path -> person, of the paths (relative, with `/`) that the rule says somebody for.

    rule: "folder", the folder that a picture lies in; a regular expression, whose first group is the person, found
    anywhere in the path; or a table's file, lines `name,person`, in which a picture goes by its path or its name.

    Raises:
        UserError: no expression, one without a group, a broken table, or nobody found; shows some of the paths.
    """
    if rule == BY_FOLDER:
        found = {path: folder for path in paths if (folder := path.rpartition("/")[0])}
        advice = "put the pictures of each person in a folder of their own, or give --person REGEX or a table"
    elif os.path.isfile(rule) or rule.lower().endswith(".csv"):
        table = expanded(rule, f"--person {rule}")
        found = by_name(_table(Path(table)), paths, table)
        advice = "give the table of these pictures, with their paths in that folder or their names"
    else:
        found = _by_expression(rule, paths)
        advice = "mend the expression; the person is its first group, as in '([^/]+)/' or '^(.*?)_'"
    if not found:
        raise UserError(f"--person {rule} says nobody for the {len(paths):,} pictures, {some(paths)}; {advice}")
    return found


def by_name(rows: dict[str, Row], paths: list[str], table: Path | str) -> dict[str, Row]:
    """path -> the row of a table that names it: as its path, as DeepFashion's flat name of that, or as its last part;
    or so without the ending.

    Raises:
        UserError: a row stands for two pictures.
    """
    named = {_composed(name.removeprefix("./")): (name, row) for name, row in rows.items()}
    whole = set(map(_composed, paths))
    found: dict[str, Row] = {}
    first: dict[str, str] = {}  # of each name of the table, the path that took it
    for path in paths:
        names = [_composed(path), *(name for name in shorter(path) if name not in whole)]
        name = next((name for name in names if name in named), None)
        if name is None:
            continue
        if name in first:
            raise UserError(f"{table}: {named[name][0]} may be {first[name]} or {path}; give their paths in the table")
        first[name] = path
        found[path] = named[name][1]
    return found


def shorter(path: str) -> list[str]:
    """Other names by which a table may mean a picture, the best first."""
    last = path.rpartition("/")[2]
    return [_composed(name) for name in (flat(path), last, path.rpartition(".")[0], last.rpartition(".")[0])]


def some(names: Iterable[str]) -> str:
    """A few names, for a message."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _by_expression(rule: str, paths: list[str]) -> dict[str, str]:
    try:
        search: Callable = re.compile(rule).search
        groups = re.compile(rule).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(
            f"--person {rule}: no regular expression ({error}) and no file; give one, 'folder', or a table name,person"
        ) from error
    if not groups:
        raise UserError(
            f"--person {rule}: an expression without a group; put what names the person in (), as in '^(.*?)_', for "
            f"paths such as {some(paths)}"
        )
    matches = {path: search(path) for path in paths}
    return {path: match[1] for path, match in matches.items() if match and match[1]}


def _table(path: Path) -> dict[str, str]:
    """name -> person."""
    lines = text_lines(path)
    if not lines or lines[0].replace(" ", "") != TABLE:
        raise UserError(f"{path} line 1: {lines[0][:60] if lines else ''!r}; a table of persons begins with {TABLE}")
    rows: dict[str, str] = {}
    reader = csv.reader(lines[1:], skipinitialspace=True)
    try:
        for fields in reader:
            where = f"{path} line {reader.line_num + 1}"
            if fields and (len(fields) != 2 or not all(field.strip() for field in fields)):
                raise UserError(f"{where}: {','.join(fields)[:60]!r}; expected {TABLE}")
            if fields:
                name, person = (field.strip() for field in fields)
                if name in rows:
                    raise UserError(f"{where}: {name} is there twice; remove one")
                if not person.isprintable() or len(person.encode()) > LONGEST:
                    raise UserError(
                        f"{where}: {person[:60]!r} cannot be a person's name: it has a character that no list can "
                        f"have, or more than {LONGEST:,} bytes"
                    )
                rows[name] = person
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num + 1}: {error}; expected {TABLE}") from error
    return rows


def _composed(name: str) -> str:
    """Some file systems store an umlaut as two characters."""
    return unicodedata.normalize("NFC", name)
