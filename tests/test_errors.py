"""What the user sees of a mistake, whatever the environment says of ranks."""

import pytest

from mscgan.errors import UserError, run


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({}, ""),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ""),
        ({"RANK": "3", "WORLD_SIZE": "4"}, "[rank 3] "),
        ({"WORLD_SIZE": "4"}, ""),  # half an environment is itself a mistake that is reported this way
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(environment, where, monkeypatch, capsys):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def main():
        raise UserError("the file is broken (line 1\n  column 2); mend it")

    with pytest.raises(SystemExit) as left:
        run(main)
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {where}the file is broken (line 1 column 2); mend it\n"


@pytest.mark.parametrize("code", [None, 0, 85])
def test_what_main_returns_is_the_exit_code(code):
    with pytest.raises(SystemExit) as left:
        run(lambda: code)
    assert left.value.code == code
