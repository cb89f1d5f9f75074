"""`python -m mscgan.paf` is `python -m mscgan.poses`, whose own estimator is this one."""

from mscgan.errors import run
from mscgan.poses import main

run(main)
