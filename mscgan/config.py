"""The configuration: the defaults of mscgan/keys.py, then YAML files, then key=value from the command line.

    defaults  <  configs/family/FAMILY.yaml  <  the preset or file of --config  <  configs/variant/VARIANT.yaml  <
    key=value

A variant that the file itself names stands below the file, so that a run's saved config.yaml reads back as it was.
Importing this file costs no torch, so that the submit path stays quick. Unknown keys are refused, and so are keys of
another family than the chosen one; only the files in configs/ speak of several.
"""

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from mscgan import files
from mscgan.errors import UserError
from mscgan.keys import PAF, SCALES, STAGES, TRACKERS, Config, MsCGAN, Train
from mscgan.paths import expanded

PRESETS = Path(__file__).parent / "configs"
ONE_VALUE = (str, int, float)
IN_WORDS = {int: "a whole number, in digits alone", float: "a number", bool: "true or false", str: "a text"}
CHOICES = {
    "resume": ("auto", "never"),
    "data.decode": ("auto", "cpu", "mixed"),
    "data.heatmap": ("gaussian", "disc", "disc_pg2"),
    "data.mask": ("pg2", "pose-gan"),
    "mscgan.pool": ("mean2", "mean3"),
    "pg2.edition": ("market1501", "deepfashion"),
    "paf.stages": (1, 2, 3, 4, 5, 6),
    "paf.missing": ("ignore", "absent"),
    "train.backend": ("deepspeed", "ddp"),
    "train.zero": (0, 1, 2, 3),
    "train.precision": ("auto", "bf16", "fp16", "fp32"),
}
POSITIVE = (
    "data.height data.width data.sigma data.radius train.batch train.tuned_batch train.accumulate train.lr "
    "log.every log.samples log.checkpoint log.keep paf.enlarge paf.sigma"
).split()
NOT_NEGATIVE = (
    "train.ema_halflife train.warmup train.decay train.least_steps train.seed data.max_corrupt data.flip data.threads "
    "log.checkpoint_minutes "
    "mscgan.lambda_bg_1 mscgan.lambda_L1_2 mscgan.lambda_bg_2 pg2.lambda_bg_1 pg2.lambda_L1_2 pg2.lambda_bg_2 "
    "paf.lambda_paf"
).split()
MOST = 2**63  # torch and numpy have no whole numbers from here on

# What reading and merging raise. TypeError: a list where keys are expected, or keys where a list is. ValueError: text
# that is no UTF-8, or a number of more digits than Python reads.
MISTAKES = (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError)


def load(preset: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a preset's name or a YAML file's path, then `key=value` overrides, checked.

    Raises:
        UserError: an unknown preset, family, variant, key or value.
    """
    path = Path(expanded(preset, f"configuration {preset}"))
    shipped = PRESETS / f"{preset}.yaml"
    path = shipped if shipped.exists() else path
    if not path.is_file():
        raise UserError(f"no configuration {preset!r}; give one of {_names(PRESETS)}, or the path of a YAML file")
    for override in overrides:
        if "=" not in override or override.startswith("-") or not all(override.partition("=")[0].split(".")):
            raise UserError(f"{override!r} is not of the form key=value, for example train.batch=32")
        if override.endswith("=") and override.count("=") == 1:
            raise UserError(f"{override} is empty, as an unset variable of the shell leaves it; give {override}VALUE")
        if override.endswith("=~"):
            raise UserError(f"{override}: a ~ by itself is YAML's word for nothing; give {override}/ for your home")
    file_is, command_is = f"configuration {path.name}", "command line"
    with _blamed(file_is):
        file = _read(path)
        family = cast(str, file.get("family") or Config.family)
    with _blamed(command_is):
        command = OmegaConf.from_dotlist(list(overrides))
        family = cast(str, command.get("family") or family)
    layers = [("", _part_of(family, _read(_named("family", family))))]
    for source, layer in ((file_is, _part_of(family, file) if path == shipped else file), (command_is, command)):
        with _blamed(source):
            _refuse_others(family, layer, source)
            _refuse_shapes(family, layer, Config(), source)
            if layer.get("variant"):
                variant = _read(_named("variant", layer.variant))
                if variant.get("family", family) != family:
                    raise UserError(f"variant={layer.variant} is one of {variant.family}, and family is {family}")
                layers.append(("", _part_of(family, variant)))
        layers.append((source, layer))
    try:
        config = _merged([layer for _, layer in layers])
    except MISTAKES:
        for count, (source, _) in enumerate(layers, 1):  # whose it is: that of the first layer with which it shows
            with _blamed(source, family, overrides if source == command_is else ()):
                _merged([layer for _, layer in layers[:count]])
        raise
    _check(config)
    _expand(config)
    return config


def _expand(config: Config) -> None:
    """Fills in `~` and `$VAR` in every path; the variables of data.stage_to are the node's."""
    config.run = expanded(config.run, f"run={config.run}")
    config.data.root = expanded(config.data.root, f"data.root={config.data.root}")
    config.data.stage_to = expanded(config.data.stage_to, f"data.stage_to={config.data.stage_to}", later=True)
    config.train.init = expanded(config.train.init, f"train.init={config.train.init}")


def _merged(layers: list[DictConfig]) -> Config:
    config = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), *layers)))
    OmegaConf.structured(config)  # to_object lets keys below a stage's pairs through
    return config


@contextmanager
def _blamed(source: str, family: str = Config.family, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turns what a layer's reading or merging raises into a UserError that names the layer."""
    try:
        yield
    except UserError:
        raise
    except ConfigKeyError as error:
        key, value = error.full_key or "", ""
        for override in overrides:
            given = override.partition("=")[0]
            if f"{given}.".startswith(f"{key}."):
                key, value = given, override.removeprefix(given)
        meant = _meant(key, family)
        hint = f" did you mean {meant}{value}?" if meant else ""
        raise UserError(f"{source}: there is no key {key!r};{hint} mscgan/keys.py lists every key") from error
    except ValidationError as error:
        value = "null" if error.value is None else repr(error.value)
        raise UserError(f"{source}: {error.full_key} is {value}; give {IN_WORDS[_type_of(error)]}") from error
    except MISTAKES as error:
        text = str(error).split("\n")[0] if isinstance(error, OmegaConfBaseException) else str(error)
        reason = " ".join(text.split())
        if where := getattr(error, "full_key", None):
            reason = f"{where}: {reason}"
        raise UserError(f"{source}: {reason}; mscgan/keys.py lists every key") from error


def _type_of(error: ValidationError) -> type:
    """The type of the value that the key, or the item of a list or of keys, would take."""
    if is_dataclass(error.object_type):
        return get_type_hints(error.object_type)[error.key]
    return get_args(error.ref_type)[-1]


def _meant(key: str, family: str) -> str:
    """The dotted key whose last word is the unknown key's, or is spelled much like it; "" where none is."""
    leaves = {stage: f"train.pairs.{stage}" for stage in STAGES[family]}
    for name, part in vars(Config()).items():
        if name == family or name not in STAGES:
            leaves |= {name: name} | ({leaf: f"{name}.{leaf}" for leaf in vars(part)} if is_dataclass(part) else {})
    near = difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1, cutoff=0.65)
    return leaves[near[0]] if near else ""


def _read(path: Path) -> DictConfig:
    values = yaml.safe_load(path.read_text()) or {}
    if not isinstance(values, dict):
        raise TypeError(f"a {type(values).__name__} where keys are expected")
    return OmegaConf.create(values)


def _names(folder: Path) -> str:
    return ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))


def _named(kind: str, name: str) -> Path:
    """The file of a family or a variant."""
    path = PRESETS / kind / f"{name}.yaml"
    if path.parent != PRESETS / kind or not path.is_file():
        raise UserError(f"no {kind} {name!r}; choose one of {_names(PRESETS / kind)}")
    return path


def _part_of(family: str, layer: DictConfig) -> DictConfig:
    """What a file of configs/ says for this family."""
    keys = [key for key in layer if key == family or key not in STAGES]
    layer = OmegaConf.masked_copy(layer, cast(list[str], keys))
    for of_stages in ("pairs", "stage_lr"):
        values = layer.get("train", {}).get(of_stages, {})
        for stage in set(values) - set(STAGES[family]):
            del values[stage]
    return layer


def _refuse_others(family: str, layer: DictConfig, source: str) -> None:
    for other in STAGES:
        if other in layer and other != family:
            keys = ", ".join(f"{other}.{key}" for key in layer[other]) if OmegaConf.is_dict(layer[other]) else other
            raise UserError(
                f"{source}: {keys} is of the family {other}, and this run's is {family}; set family={other}"
            )


def _refuse_shapes(family: str, layer: DictConfig, defaults: object, source: str, of: str = "") -> None:
    """Says how a list is given, and what has keys of its own. of: the keys above, "train." for those of train."""
    for key, default in vars(defaults).items():
        if key not in layer or isinstance(default, ONE_VALUE):
            continue
        name, value = f"{of}{key}", layer[key]
        if isinstance(default, list):
            if not OmegaConf.is_config(value):
                raise UserError(f"{source}: {name} is {value!r}; it is a list, so give {name}=[{value}]")
        elif not OmegaConf.is_dict(value):
            keys = {} if isinstance(default, dict) else vars(default)
            first = next((key for key, one in keys.items() if isinstance(one, ONE_VALUE)), STAGES[family][0])
            raise UserError(f"{source}: {name} is {value!r}; it has keys of its own, for example {name}.{first}=VALUE")
        elif is_dataclass(default):
            _refuse_shapes(family, value, default, source, f"{name}.")


def text(config: Config) -> str:
    """The resolved configuration as YAML that `load` reads back."""
    values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))
    return OmegaConf.to_yaml({key: value for key, value in values.items() if key == config.family or key not in STAGES})


def save(config: Config, run: Path, pairs: int) -> list[str]:
    """Writes the resolved configuration to RUN/config.yaml, and for the history to RUN/config-000012345.yaml, which is
    never overwritten; `pairs` is where this start goes on from.

    Returns:
        The keys that differ from RUN/config.yaml as it was, "log.every 100 -> 50" each.
    """
    now, path = text(config), run / "config.yaml"
    before = path.read_text(errors="replace") if path.is_file() else now
    name, number = f"config-{pairs:09d}", 1
    while (kept := run / f"{name}.yaml").exists() and kept.read_text(errors="replace") != now:
        number += 1
        name = f"config-{pairs:09d}-{number}"
    files.write(kept, now)
    files.write(path, now)
    try:
        old, new = _leaves(yaml.safe_load(before)), _leaves(yaml.safe_load(now))
    except yaml.YAMLError as error:
        return [f"config.yaml, which was no YAML ({' '.join(str(error).split())})"]
    return [f"{key} {old.get(key)} -> {new.get(key)}" for key in new | old if old.get(key) != new.get(key)]


def leaves(config: Config) -> dict[str, object]:
    """The keys of a resolved configuration, dotted, and their values; of the families the chosen one's."""
    return _leaves(yaml.safe_load(text(config)))


def _leaves(values: object, before: str = "") -> dict[str, object]:
    """The keys of a document, dotted, and their values."""
    if not isinstance(values, dict):
        return {before: values}
    leaves: dict[str, object] = {}
    for key, value in values.items():
        leaves |= _leaves(value, f"{before}.{key}" if before else str(key))
    return leaves


def micro_batch(batch: int, world: int, accumulate: int) -> int:
    """Pairs a rank takes at once, from the pairs of an optimiser step.

    Raises:
        UserError: the batch does not divide.
    """
    share = world * accumulate
    if batch % share:
        below, above = batch // share * share, -(-batch // share) * share
        better = f"{below} or {above}" if below else f"{above}"
        raise UserError(f"batch {batch} is not a multiple of {world} ranks x {accumulate}; set train.batch to {better}")
    return batch // share


def takes(height: int, width: int) -> bool:
    """Whether the networks take images of this size. Their lowest maps are 16 high (MsCGAN) and 8 high (PG2), and fully
    connected layers of a power of two units make them: at 256x176 they would be 11 and 5.5 wide."""
    return height >= 32 and not height & (height - 1) and width in (height, height // 2)


def check_compile(train: Train, world: int) -> None:
    """Refuses compiled networks in DeepSpeed over several ranks.

    A compiled network's gradients are all there at the end of its backward, at 93 % of its time where eager ones begin
    at 2 %, so that nothing of their reduction overlaps it. Under DDP torch cuts the graph where DDP's buckets end.

    Raises:
        UserError: it is that.
    """
    if (train.compile or train.cuda_graphs) and train.backend == "deepspeed" and world > 1:
        key = "compile" if train.compile else "cuda_graphs"
        raise UserError(
            f"train.{key} with train.backend=deepspeed over {world} ranks: a compiled network gives all its gradients "
            "at the end of its backward, and DeepSpeed would exchange none of them meanwhile; set train.backend=ddp, "
            f"or leave train.{key} out"
        )


def _check(config: Config) -> None:
    values = OmegaConf.structured(config)
    for key, choices in CHOICES.items():
        value = OmegaConf.select(values, key)
        if value not in choices:
            raise UserError(f"{key} is {value!r}; choose one of {', '.join(map(str, choices))}")
    for key in POSITIVE:
        if not 0 < OmegaConf.select(values, key) < math.inf:
            raise UserError(f"{key} is {OmegaConf.select(values, key)}; it must be above 0")
    for key in NOT_NEGATIVE:
        if not 0 <= OmegaConf.select(values, key) < math.inf:
            raise UserError(f"{key} is {OmegaConf.select(values, key)}; it must not be negative")
    for key, value in _leaves(OmegaConf.to_container(values)).items():
        if isinstance(value, int) and value >= MOST:
            raise UserError(f"{key} is {value}; it must be below 2^63")
    if config.data.flip > 1:
        raise UserError(f"data.flip is {config.data.flip}; it is a probability, from 0 to 1")
    if config.train.decay > 1:
        raise UserError(f"train.decay is {config.train.decay}; it is a share of a stage, from 0 to 1")
    names = config.log.trackers
    if len(set(names)) < len(names) or not set(names) <= set(TRACKERS):
        raise UserError(f"log.trackers is {names}; give some of {', '.join(TRACKERS)}, each once")
    if len(config.train.betas) != 2 or not all(0 <= beta < 1 for beta in config.train.betas):
        raise UserError(f"train.betas is {config.train.betas}; give two numbers, each 0 or more and below 1")
    height, width = config.data.height, config.data.width
    if not takes(height, width):
        raise UserError(
            f"images of {height}x{width} (height x width): the networks take a height that is a power of two, 32 or "
            "more, and a width of the height or half of it; set data.height and data.width"
        )
    _check_options(config)


def _check_options(config: Config) -> None:
    """What the family's own keys and its stages must be."""
    family, options, stages = config.family, config.options(), STAGES[config.family]
    for stage, pairs in config.train.pairs.items():
        if stage not in stages:
            raise UserError(f"train.pairs.{stage}: no stage of {family}, which has {', '.join(stages)}")
        if pairs < 0:
            raise UserError(f"train.pairs.{stage} is {pairs}; it must not be negative")
    if config.train.init_after and (config.train.init_after not in stages or not config.train.init):
        raise UserError(
            f"train.init_after is {config.train.init_after!r}; give one of {', '.join(stages)}, and with train.init "
            "the weights that this stage ended with"
        )
    for stage, rate in config.train.stage_lr.items():
        if stage not in stages or not 0 < rate < math.inf:
            raise UserError(f"train.stage_lr.{stage} is {rate}; give a rate above 0 of one of {', '.join(stages)}")
    if options.base < 8 or options.base % 8:
        raise UserError(f"{family}.base is {options.base}; it must be a multiple of 8 (the FC layers scale with it)")
    if isinstance(options, PAF) and (options.width < 8 or options.width % 8):
        raise UserError(f"paf.width is {options.width}; it must be a multiple of 8")
    if isinstance(options, MsCGAN):
        scales, weights = options.scales, options.lambda_D
        if not scales or scales != [scale for scale in SCALES if scale in scales]:
            raise UserError(f"mscgan.scales is {scales}; give some of {', '.join(map(str, SCALES))}, rising")
        if weights and len(weights) != len(scales):
            raise UserError(
                f"mscgan.lambda_D has {len(weights)} weights for the {len(scales)} discriminators of mscgan.scales="
                f"{scales}; give one a discriminator, or none for 1 each"
            )
        if not all(0 <= weight < math.inf for weight in weights) or (weights and not any(weights)):
            raise UserError(f"mscgan.lambda_D is {weights}; each must be 0 or more, and one at least above 0")
