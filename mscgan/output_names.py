"""How public programs name the images that they make, and what else they put into the same file.

An image belongs to a pair (source, target), and its name says which. As the scripts write them (a: the source's name,
b: the target's, with its extension or without):
    a.jpg___b.jpg_vis.jpg       PATN, ADGAN (models/PATN.py, get_current_visuals): five panels, source | its pose |
                                target | its pose | generated; after tool/crop_market.py the last one alone
    a_2_b_vis.jpg               GFLA, DPTN, NTED, PIDM (GFLA model/pose_model.py, test); beside it, with save_input,
                                a_2_b_ref (the source), _gt (the target) and _all: source | generated | target
    a_b_vis.jpg, a_b_all.jpg    PISE (model/painet_model.py), likewise
    a.jpg_b.jpg.jpg             pose-gan (test.py, save_images) and PATN's save_images: source | target | generated, or
                                the generated image alone; SPGNet writes a_b.jpg, this project a.jpg_b.jpg.png
    b.png                       the target's name; PG2 (trainer.py, test) numbers source, target and generated image
                                alike in x/, x_target/ and G/
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mscgan.data.names import EXTENSION, key

EXAMPLES = "a.jpg_b.jpg.png, a.jpg___b.jpg_vis.jpg, a_2_b_vis.jpg or the target's own name"
COPIES = ("_ref", "_gt", "_all")  # of a pair's inputs, where a `_vis` stands beside them


@dataclass(frozen=True)
class Panels:
    """Images of equal width side by side: how many, and the place of each from the left; None where it is not there."""

    count: int
    source: int | None
    target: int | None
    generated: int


ALONE = Panels(1, None, None, 0)
FIVE = Panels(5, 0, 2, 4)
TRIPTYCH = Panels(3, 0, 1, 2)
ALL = Panels(3, 0, 2, 1)


@dataclass(frozen=True)
class Form:
    """join: between the two names, "" where only the target's is there; end: after them; panels: ways to lay it out."""

    join: str
    end: str
    panels: tuple[Panels, ...]


WHOLE = Form("", "", (ALONE, TRIPTYCH))
FORMS = (  # the first that fits is taken
    WHOLE,
    Form("___", "_vis", (ALONE, FIVE)),
    Form("___", "", (ALONE, TRIPTYCH)),
    Form("_2_", "_vis", (ALONE,)),
    Form("_2_", "_all", (ALL,)),
    Form("_2_", "", (ALONE,)),
    Form("_", "_vis", (ALONE,)),
    Form("_", "_all", (ALL,)),
    Form("_", "", (ALONE, TRIPTYCH)),
)


@dataclass(frozen=True)
class Reading:
    """One way to read a file's name. source is "" where it names the target alone."""

    source: str
    target: str
    form: Form


def readings(name: str) -> Iterator[list[Reading]]:
    """All ways to read a file's name (without its folder), a list a form, in the order of FORMS."""
    stem = EXTENSION.sub("", name)
    for form in FORMS:
        if stem.endswith(form.end):
            yield list(_divided(stem.removesuffix(form.end), form))


def evident(name: str) -> Reading | None:
    """How a name reads when no target is known, or None where that is open.

    Two names with `_` between must have their extensions, since `_` is in the names of both data sets too.
    """
    for found in readings(name):
        sure = [reading for reading in found if EXTENSION.search(reading.source) or reading.form.join in ("___", "_2_")]
        if sure:
            return sure[0] if len(sure) == 1 else None
    stem = EXTENSION.sub("", name)
    return None if stem.endswith(("_vis", "_all")) else Reading("", stem, WHOLE)


def is_copy(name: str, keys: set[str]) -> bool:
    """Whether it is an input of a pair whose answer stands beside it: `a_2_b_gt.jpg` where `a_2_b_vis` is in keys, the
    keys (data/names.py) of all files of its folder."""
    stem = key(name)
    return any(stem.endswith(end) and f"{stem.removesuffix(end)}_vis" in keys for end in COPIES)


def _divided(names: str, form: Form) -> Iterator[Reading]:
    """The two names at each place where they may be joined; without a join, all of it as the target's name."""
    if not form.join:
        yield Reading("", names, form)
        return
    at = names.find(form.join, 1)
    while 0 < at < len(names) - len(form.join):
        yield Reading(names[:at], names[at + len(form.join) :], form)
        at = names.find(form.join, at + 1)
