"""The stages of a run, where a checkpoint stands in them, and whether it may go on as it is now asked to.

It costs no torch: the launcher asks before it starts or queues anything, and training asks again.
"""

import shlex
from dataclasses import dataclass

from mscgan.config import STAGES, Config
from mscgan.errors import UserError

# Of a checkpoint. 1 had the weights of convolutions in another order; 2 was called images-000012345; 3 did not say
# where its stage began.
SCHEMA = 4


@dataclass(frozen=True)
class Stage:
    name: str
    start: int  # pairs consumed when the stage begins
    end: int  # pairs consumed when it is over; its last step may go a little beyond


def schedule(family: str, pairs: dict[str, int]) -> list[Stage]:
    """The stages of a run in the family's order, those without pairs left out.

    Raises:
        UserError: no stage has pairs.
    """
    stages, end = [], 0
    for name in STAGES[family]:
        start, end = end, end + pairs.get(name, 0)
        if end > start:
            stages.append(Stage(name, start, end))
    if not stages:
        raise UserError("train.pairs gives no stage any pairs: there is nothing to train")
    return stages


def made_with(config: Config) -> dict:
    """What has to stay for a run to go on as the same run: all but the schedule, rates and weights of losses."""
    data, options = config.data, vars(config.options())
    return {
        "family": config.family,
        "train.seed": config.train.seed,
        "data.flip": data.flip,
        "data.heatmap": [data.heatmap, data.sigma, data.radius],
        "data.mask": [data.mask, data.radius],
    } | {f"{config.family}.{key}": value for key, value in options.items() if not key.startswith("lambda_")}


def check(config: Config, facts: dict, checkpoint: str, shards: str = "") -> None:
    """Refuses to go on from a checkpoint as another run, or with stages that moved under it.

    Stages that are over keep their pairs, and the one in which it stands gets no fewer than it has had. Otherwise a
    run could train I, II, I, II. All that lies ahead may change.

    Args:
        facts: of the checkpoint, as training wrote them.
        checkpoint: its path, for the messages.
        shards: fingerprint of the shards; not compared where it is empty.

    Raises:
        UserError: what differs, and what to do.
    """
    asked = made_with(config) | ({"shards": shards} if shards else {})
    for name, now in asked.items():
        if (before := facts["made_with"].get(name)) != now:
            raise UserError(
                f"{checkpoint} was made with {name} {before}, now it is {now}; set it as it was, or another run=FOLDER"
            )
    name, pairs = facts["stage"], facts["pairs"]
    stage = next((stage for stage in schedule(config.family, config.train.pairs) if stage.name == name), None)
    began, ends = facts["began"], facts["ends"]
    if stage is None or stage.start != began or pairs <= stage.start or (pairs > stage.end and stage.end != ends):
        where = f"would reach from {stage.start} to {stage.end} pairs" if stage else "would have no pairs"
        raise UserError(
            f"{checkpoint} is in stage {name}, which with the train.pairs given now {where}; keep the pairs of the "
            f"stages before it ({began} in all), let train.pairs.{name} be {pairs - began} or more, or set another "
            "run=FOLDER"
        )


def complete(config: Config, facts: dict) -> bool:
    """Whether a checkpoint (its facts; none: empty) is the run's last."""
    return bool(facts) and facts["pairs"] >= schedule(config.family, config.train.pairs)[-1].end


def ending(run: str, said: str) -> str:
    """What a run that is complete says last: that it is, and the two commands that come next."""
    folder = shlex.quote(run)
    return (
        f"{said}; next:\n"
        f"    python -m mscgan.evaluate --run {folder}\n"
        f"    python -m mscgan.generate --run {folder} --pairs 8"
    )
