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
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        rank = f"[rank {os.environ['RANK']}] " if several else ""
        print(f"error: {rank}{error}", file=sys.stderr)
        sys.exit(2)
