"""Scores of generated images against their targets, as the field's public code computes them.

Importing this package, or the scores in it that need no network, imports no network library. A score that cannot be
had here raises Unavailable when its network is made, before the first image; whoever asked for it leaves it out and
gives the reason.
"""

from mscgan.errors import UserError


class Unavailable(UserError):
    """A score cannot be had here: a package is not installed or does not load, or a file of weights is missing."""
