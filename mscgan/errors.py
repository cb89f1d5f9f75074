"""How every command of this project reports a mistake of its user: one line on stderr and exit code 2."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(ValueError):
    """Something the user can mend. The message says what came, what was expected and what to do."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Exits with main's return code, or with 2 and one line `error: ...` when it raises UserError."""
    try:
        sys.exit(main())
    except UserError as error:
        rank, several = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "1") != "1"
        where = f"[rank {rank}] " if rank and several else ""
        print(f"error: {where}{' '.join(str(error).split())}", file=sys.stderr)  # a cause quoted in it may have lines
        sys.exit(2)
