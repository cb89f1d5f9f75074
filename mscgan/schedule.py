"""The stages of a run, where a checkpoint stands in them, and whether it may go on as it is now asked to.

It costs no torch: the launcher asks before it starts or queues anything, and training asks again.
"""

import math
import shlex
from dataclasses import dataclass

from mscgan.errors import UserError
from mscgan.keys import FIND_POSES, STAGES, Config

# Of a checkpoint. 1 had the weights of convolutions in another order; 2 was called images-000012345; 3 did not say
# where its stage began; 4 had no digests.
SCHEMA = 5

MEANING = (
    "family data.flip data.heatmap data.sigma data.radius data.mask train.batch train.lr train.stage_lr "
    "train.tuned_batch train.warmup train.decay train.betas train.ema_halflife train.seed train.precision"
).split()


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


def beginning(config: Config) -> tuple[int, int, int]:
    """Where a run without a checkpoint begins: pairs and steps before it, and pairs of them in stage train.init_after.

    The last step of a stage may go a little beyond its end, as in a run that trains it itself.

    Raises:
        UserError: the stage has no pairs, or nothing comes after it.
    """
    if not config.train.init_after:
        return 0, 0, 0
    name, stages = config.train.init_after, schedule(config.family, config.train.pairs)
    stage = next((stage for stage in stages[:-1] if stage.name == name), None)
    if stage is None:
        raise UserError(
            f"train.init_after={name}: let train.pairs.{name} be the pairs that it trained on, and give a stage after "
            f"it some; they are {config.train.pairs}"
        )
    began, steps = (math.ceil(pairs / config.train.batch) for pairs in (stage.start, stage.end))
    return steps * config.train.batch, steps, (steps - began) * config.train.batch


def made_with(config: Config) -> dict:
    """What a run is: it goes on as the same run while these stay. Beside them there is the schedule; all other keys say
    where and how it runs."""
    return {key: _value(config, key) for key in MEANING} | {
        f"{config.family}.{key}": value for key, value in vars(config.options()).items()
    }


def _value(config: Config, key: str):
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def check(config: Config, facts: dict, checkpoint: str, shards: str = "") -> list[str]:
    """Refuses to go on from a checkpoint as another run, or with stages that moved under it.

    What a run is may change where `allow` names the key. Stages that are over keep their pairs, and the one in which it
    stands gets no fewer than it has had. Otherwise a run could train I, II, I, II. All that lies ahead may change.

    Args:
        facts: of the checkpoint, as training wrote them.
        checkpoint: its path, for the messages.
        shards: fingerprint of the shards; not compared where it is empty.

    Returns:
        What changed with leave, a line each.

    Raises:
        UserError: what differs, and what to do.
    """
    asked, before = made_with(config) | ({"shards": shards} if shards else {}), facts["made_with"]
    if config.train.precision == "auto":
        del asked["train.precision"]  # training takes the one that the run has
    differ = [key for key, now in asked.items() if before.get(key, now) != now]
    changed = {key: f"{key} {before[key]}, now it is {asked[key]}" for key in differ}
    if refused := [key for key in differ if key not in config.allow]:
        raise UserError(
            f"{checkpoint} was made with {'; with '.join(changed[key] for key in refused)}; set it as it was, or "
            f"another run=FOLDER, or allow=[{','.join(refused)}] to go on all the same"
        )
    _check_stages(config, facts, checkpoint)
    return list(changed.values())


def _check_stages(config: Config, facts: dict, checkpoint: str) -> None:
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


def ending(config: Config, said: str) -> str:
    """What a run that is complete says last: that it is, and the commands that come next, with the report's path."""
    folder = shlex.quote(config.run)
    commands = [f"evaluate --run {folder}", f"generate --run {folder} --pairs 8"]
    if config.family in FIND_POSES:
        find = f"poses --estimator {folder}"
        commands = [f"{find} --score {shlex.quote(config.data.root)}", f"{find} --image a.jpg --picture pose.png"]
    commands.append(f"report {folder}    # writes {shlex.quote(f'{config.run}/report.html')}")
    return f"{said}; next:" + "".join(f"\n    python -m mscgan.{command}" for command in commands)
