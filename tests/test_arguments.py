"""What a mistyped option gets for an answer: one line, the same from every program."""

import re
from pathlib import Path

import pytest

from mscgan.arguments import Parser
from tests.ranks import ROOT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rnu", "a"], "no option --rnu; did you mean --run?"),  # and not that --run is missing
        (["--run", "a", "build", "--hieght=64"], "no option --hieght; did you mean --height?"),
        (["--run", "a", "build", "--colour"], "no option --colour; --help lists all"),
        (["--run", "a", "bild"], "argument what: invalid choice: 'bild' (choose from"),
        (["build"], "the following arguments are required: --run; --help lists all"),
        (["--ru", "a", "build", "--heig", "low"], "argument --height: invalid int value: 'low'; --help lists all"),
    ],
)
def test_a_mistake_is_one_line_that_names_what_was_meant(words, said, capsys):
    parser = Parser()
    parser.add_argument("--run", required=True)
    parser.add_subparsers(dest="what").add_parser("build").add_argument("--height", type=int)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(words)
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.root=a"], "no option --data.root; a key is given without dashes, data.root=VALUE"),
        (["--foll"], "no option --foll; did you mean --follow? What is for the job's program stands after --"),
    ],
)
def test_the_launcher_says_how_keys_and_the_programs_options_are_given(words, said, capsys):
    parser = Parser(allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--job")
    parser.add_argument("--follow", action="store_true")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_intermixed_args(words)
    assert capsys.readouterr().err == f"error: {said}\n"


def test_every_program_has_this_parser():
    programs = [
        path for folder in ("mscgan", "launch", "shards", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    others = {path.name for path in programs if re.search(r"argparse\.ArgumentParser\(", Path(path).read_text())}
    assert others == {"stage_in.py", "stage_together.py", "preflight.py", "table2_result.py"}  # no user's commands
