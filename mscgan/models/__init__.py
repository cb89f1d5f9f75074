"""The papers' methods, a file each: what differs from paper to paper, and nothing of how a run is run.

A family is a module with six names. It holds no state: mscgan/state.py builds the networks anew at each stage.

    MAKES                           names of the networks that make images (paf's: find poses): averaged, exported,
                                    evaluated
    build(options, height, width)   ModuleDict of every network by name, on the CPU, in float32, its weights drawn
    trains(stage, networks)         {name: module}: what the stage trains, an engine each; all else is frozen
    step(stage, engines, networks, inputs, options)
                                    one optimiser step of every engine; returns the mean loss terms. `inputs` holds a
                                    micro-batch an element; an engine is called, goes backward and steps once for each
    images(stage, networks, inputs)
                                    {title: (N, 3, H, W)} of what is shown and scored; the last is the answer. `stage`
                                    is the last that trained, `networks` are those of MAKES alone
    hand_over(before, networks, average)
                                    at a change of stage: sets what the next one takes from the one `before`

`options` is the family's dataclass in mscgan/keys.py, which also has the stages' names; `inputs` are of
mscgan/prepare.py, `engines` by name of mscgan/engine.py. A family imports neither data nor ranks nor a YAML file, and
nobody but this file and the tests imports a family by its name.
"""

from mscgan.models import mscgan, paf, pg2

FAMILIES = {"mscgan": mscgan, "pg2": pg2, "paf": paf}
