"""The command line of every program: argparse's, with a mistake as one line that names the option which was meant."""

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from mscgan.errors import MISTAKE
from mscgan.keys import Config


class Parser(argparse.ArgumentParser):
    """As argparse's; only its last word before it exits is another."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        self._words = [*(sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exits with MISTAKE. An option that is not known is named first, whatever argparse misses beside it."""
        self.exit(MISTAKE, f"error: {self._unknown() or f'{message}; --help lists all'}\n")

    def _unknown(self) -> str:
        """What is wrong with the first option that is not known; empty: all are."""
        known = list(_options(self))
        for word in self._words:
            name = word.partition("=")[0]
            if name == "--":
                break
            if not name.startswith("--") or name in known:
                continue
            if self.allow_abbrev and any(option.startswith(name) for option in known):
                continue
            if name[2:].split(".")[0] in vars(Config()) and any(one.dest == "overrides" for one in self._actions):
                return f"no option {name}; a key is given without dashes, {name[2:]}=VALUE"
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else "--help lists all."
            if "--job" not in known:
                return f"no option {name}; {hint.rstrip('.')}"
            return f"no option {name}; {hint} What is for the job's program stands after --"
        return ""


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The names of a parser's options, and of its commands'."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _options(command)
