"""Presets, families, variants, key=value changes, and what is said to values that cannot be."""

import subprocess
import sys

import pytest

from mscgan import config
from mscgan.errors import UserError

VARIANTS = {
    "mscgan": [1, 2],
    "one-discriminator": [1],
    "single-scale-1": [1],
    "single-scale-2": [2],
    "three-discriminators": [1, 2, 4],
}


def test_the_presets_have_the_papers_sizes_and_pg2s_weights():
    market, fashion = config.load("market1501"), config.load("deepfashion")
    assert (market.data.height, market.data.width, market.mscgan.lambda_L1_2) == (128, 64, 10)
    assert (fashion.data.height, fashion.data.width, fashion.mscgan.lambda_L1_2) == (256, 256, 50)
    assert (market.train.batch, fashion.train.batch) == (16, 6)
    assert market.train.pairs == {"I": 22_000 * 16, "II": 14_000 * 16, "joint": 0}
    assert fashion.train.pairs == {"I": 30_000 * 6, "II": 20_000 * 6, "joint": 0}
    for preset in (market, fashion):
        assert (preset.train.lr, preset.train.betas, preset.train.tuned_batch) == (1e-4, [0.5, 0.9], preset.train.batch)
        assert (preset.family, preset.mscgan.base, preset.mscgan.scales) == ("mscgan", 128, [1, 2])


def test_another_family_brings_its_own_heatmaps_rates_and_edition():
    market, fashion = config.load("market1501", ["family=pg2"]), config.load("deepfashion", ["family=pg2"])
    assert (market.pg2.edition, market.pg2.lambda_L1_2, market.pg2.lambda_bg_2) == ("market1501", 10, 10)
    assert (fashion.pg2.edition, fashion.pg2.lambda_L1_2, fashion.pg2.lambda_bg_2) == ("deepfashion", 50, 50)
    assert market.train.pairs == {"I": 22_000 * 16, "II": 14_000 * 16}
    assert fashion.train.pairs == {"I": 30_000 * 6, "II": 20_000 * 6}
    for preset in (market, fashion):
        assert preset.options() is preset.pg2
        assert (preset.data.heatmap, preset.train.lr, preset.train.betas) == ("disc_pg2", 2e-5, [0.5, 0.999])
        assert preset.train.ema_halflife == 0


def test_a_preset_wins_over_its_family_and_a_change_over_both():
    """The demo has a rate of its own for either family; its family's heatmaps stay."""
    demo = config.load("demo", ["family=pg2"])
    assert (demo.train.lr, demo.pg2.base, demo.data.heatmap) == (3e-3, 16, "disc_pg2")
    assert demo.train.pairs == {"I": 15_000, "II": 0} and demo.train.stage_lr == {"II": 5e-4}
    assert config.load("demo", ["train.pairs.I=0"]).train.pairs == {"I": 0, "II": 0, "joint": 6_500}


@pytest.mark.parametrize("preset", ["market1501", "deepfashion", "demo"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_sets_its_scales_and_nothing_else(preset, variant):
    found, plain = config.load(preset, [f"variant={variant}"]), config.load(preset)
    assert (found.variant, found.mscgan.scales) == (variant, VARIANTS[variant])
    found.variant, found.mscgan.scales = "", plain.mscgan.scales
    assert found == plain


@pytest.mark.parametrize("preset", ["market1501", "deepfashion", "demo"])
@pytest.mark.parametrize("family", ["mscgan", "pg2"])
def test_stage_I_alone_is_a_variant_of_every_family(preset, family):
    found, plain = (config.load(preset, [f"family={family}", *more]) for more in (["variant=stage-I"], []))
    assert found.train.pairs == {stage: plain.train.pairs[stage] * (stage == "I") for stage in config.STAGES[family]}
    found.variant, found.train.pairs = "", plain.train.pairs
    assert found == plain


def test_every_variant_that_is_shipped_is_among_the_tested():
    assert {path.stem for path in config.PRESETS.glob("variant/*")} == {*VARIANTS, "stage-I", "small"}


@pytest.mark.parametrize("preset", ["market1501", "deepfashion"])
@pytest.mark.parametrize("family", ["mscgan", "pg2"])
def test_the_small_variant_is_the_data_sets_own_size_in_narrow_networks(preset, family):
    small, plain = (config.load(preset, [f"family={family}", *more]) for more in (["variant=small"], []))
    assert (small.data, small.options().base, plain.options().base) == (plain.data, 8, 128)
    assert sum(small.train.pairs.values()) == 20_000 and small.options().lambda_L1_2 == plain.options().lambda_L1_2


@pytest.mark.parametrize("overrides", [["train.init_after=I"], ["train.init=a", "train.init_after=joined"]])
def test_a_stage_before_the_run_is_one_of_the_familys_and_has_weights(overrides):
    assert config.load("demo", ["train.init=a", "train.init_after=I"]).train.init_after == "I"
    with pytest.raises(UserError, match="init_after is '(I|joined)'; give one of I, II, joint, and with train.init"):
        config.load("demo", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.lr=2e-4", "mscgan.lambda_D=[0.7,0.3]", "data.root=/data/market"],
        ["variant=single-scale-2"],
        ["variant=one-discriminator", "mscgan.scales=[1,4]"],  # the variant must not come back over the change
        ["variant=stage-I", "train.pairs.joint=64"],
        ["family=pg2", "variant=stage-I", "pg2.edition=deepfashion", "train.lr=1e-3", "train.pairs.II=32"],
    ],
    ids=" ".join,
)
def test_a_saved_configuration_reads_back_as_it_was(overrides, tmp_path):
    resolved = config.load("market1501", overrides)
    assert resolved != config.load("market1501", overrides[:-1])
    assert config.save(resolved, tmp_path, 0) == []
    assert config.load(str(tmp_path / "config.yaml")) == resolved


def test_a_change_wins_over_the_variant_and_a_variant_over_the_users_file(tmp_path):
    assert config.load("market1501", ["mscgan.scales=[1,4]", "variant=one-discriminator"]).mscgan.scales == [1, 4]
    mine = tmp_path / "mine.yaml"
    mine.write_text("mscgan: {scales: [2, 4]}")
    assert config.load(str(mine)).mscgan.scales == [2, 4]
    assert config.load(str(mine), ["variant=three-discriminators"]).mscgan.scales == [1, 2, 4]


@pytest.mark.parametrize(
    ("written", "overrides", "said"),
    [
        ("", ["pg2.base=64"], "pg2.base is of the family pg2, and this run's is mscgan; set family=pg2"),
        ("", ["family=pg2", "mscgan.scales=[1]", "mscgan.pool=mean3"], "mscgan.scales, mscgan.pool is of the family"),
        ("pg2: {base: 64}", [], "pg2.base is of the family pg2, and this run's is mscgan; set family=pg2"),
        ("family: pg2\nmscgan: {base: 64}", [], "mscgan.base is of the family mscgan, and this run's is pg2"),
        ("mscgan: {base: 64}", ["family=pg2"], "mscgan.base is of the family mscgan"),
        ("", ["family=pg2", "variant=single-scale-2"], "variant=single-scale-2 is one of mscgan, and family is pg2"),
        ("family: pg2\nvariant: mscgan", [], "variant=mscgan is one of mscgan, and family is pg2"),
        ("", ["family=pg2", "train.pairs.joint=16"], "train.pairs.joint: no stage of pg2, which has I, II"),
        ("train: {pairs: {III: 16}}", [], "train.pairs.III: no stage of mscgan, which has I, II, joint"),
    ],
)
def test_what_is_another_familys_is_refused(written, overrides, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(written)
    with pytest.raises(UserError) as refused:
        config.load(str(tmp_path / "mine.yaml"), overrides)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=1", "learning_rate"),
        ("train.batch=many", "train.batch"),
        ("train.batch", "not of the form key=value"),
        ("train.batch=0", "train.batch is 0; it must be above 0"),
        ("train.pairs.I=-1", "train.pairs.I is -1; it must not be negative"),
        ("train.pairs=16", "train.pairs"),
        ("train.precision=fp8", "choose one of auto, bf16, fp16, fp32"),
        ("family=gan", "no family 'gan'; choose one of mscgan, paf, pg2"),
        ("family=../demo", "no family '../demo'"),
        ("variant=half", "no variant 'half'; choose one of mscgan, one-discriminator"),
        ("mscgan.scales=[1,3]", "mscgan.scales is [1, 3]; give some of 1, 2, 4, rising"),
        ("mscgan.scales=[2,1]", "rising"),
        ("mscgan.scales=[1,1]", "rising"),
        ("mscgan.scales=[]", "rising"),
        ("mscgan.base=12", "mscgan.base is 12; it must be a multiple of 8"),
        ("data.height=96", "power of two"),
        ("data.height=16", "32 or more"),
        ("data.width=32", "a width of the height or half of it"),
        ("mscgan.lambda_D=[1]", "1 weights for the 2 discriminators of mscgan.scales=[1, 2]"),
        ("mscgan.lambda_D=[1,-1]", "mscgan.lambda_D is [1.0, -1.0]; each must be 0 or more"),
        ("mscgan.lambda_D=[1,nan]", "each must be 0 or more"),
        ("mscgan.lambda_D=[0,0]", "one at least above 0"),
        ("train.tuned_batch=0", "train.tuned_batch is 0; it must be above 0"),
        ("train.warmup=-1", "must not be negative"),
        ("train.stage_lr.II=0", "train.stage_lr.II is 0.0; give a rate above 0 of one of I, II, joint"),
        ("train.stage_lr.III=1e-3", "of one of I, II, joint"),
        ("train.lr=nan", "train.lr is nan; it must be above 0"),
        ("mscgan.lambda_bg_1=-1", "must not be negative"),
        ("data.flip=1.5", "a probability"),
        ("train.betas=[0.5]", "give two numbers"),
        ("train.betas=[0.5,1]", "below 1"),
        ("train.betas={a: 1}", "incompatible"),
        ("run='a", "line 1, column 1"),
        ("data.root=~", "data.root=~: a ~ by itself is YAML's word for nothing; give data.root=~/ for your home"),
        (f"train.seed={2**63}", f"train.seed is {2**63}; it must be below 2^63"),
        (f"train.pairs.I={2**63}", "it must be below 2^63"),
        (f"train.seed={'9' * 5000}", "value has 5000 digits"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(override, said):
    with pytest.raises(UserError) as refused:
        config.load("market1501", [override])
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="deepfashion, demo, market1501"):
        config.load("market")


@pytest.mark.parametrize(
    ("written", "said"),
    [(b"- a\n", "a list where keys"), (b"\xff", "decode"), (b"run: [\n", "line 2, column 1")],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(written, said, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(written)
    with pytest.raises(UserError) as refused:
        config.load(str(tmp_path / "mine.yaml"))
    assert "mine.yaml: " in str(refused.value) and said in str(refused.value) and "\n" not in str(refused.value)


def test_loading_a_configuration_costs_no_torch():
    program = "import sys, mscgan.config; mscgan.config.load('demo'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("written", "overrides", "said"),
    [
        ("", ["lr=1e-4"], "command line: there is no key 'lr'; did you mean train.lr=1e-4?"),
        ("", ["seed=1", "train.lrr=1"], "command line: there is no key 'seed'; did you mean train.seed=1?"),
        ("", ["train.lrr=2"], "command line: there is no key 'train.lrr'; did you mean train.lr=2?"),
        ("", ["optim.lr=3"], "command line: there is no key 'optim.lr'; did you mean train.lr=3?"),
        ("", ["I=64"], "command line: there is no key 'I'; did you mean train.pairs.I=64?"),
        ("", ["rnu=a"], "command line: there is no key 'rnu'; did you mean run=a?"),
        ("", ["family=pg2", "editoin=x"], "command line: there is no key 'editoin'; did you mean pg2.edition=x?"),
        ("", ["edition=x"], "command line: there is no key 'edition'; mscgan/keys.py lists every key"),  # of pg2
        ("", ["train.batch=many"], "command line: train.batch is 'many'; give a whole number"),
        ("", ["train.pairs.I=1e3"], "command line: train.pairs.I is 1000.0; give a whole number, in digits alone"),
        ("", ["train.stage_lr.joint=x"], "command line: train.stage_lr.joint is 'x'; give a number"),
        ("", ["train.betas=[.5,b]"], "command line: train.betas[1] is 'b'; give a number"),
        ("", ["train.compile=maybe"], "command line: train.compile is 'maybe'; give true or false"),
        ("", ["run=null"], "command line: run is null; give a text"),
        ("", ["train=5"], "command line: train is 5; it has keys of its own, for example train.init=VALUE"),
        ("", ["train.pairs=9"], "command line: train.pairs is 9; it has keys of its own, for example train.pairs.I=V"),
        ("", ["allow=train.lr"], "command line: allow is 'train.lr'; it is a list, so give allow=[train.lr]"),
        (
            "log: {trackers: wandb}",
            [],
            "configuration mine.yaml: log.trackers is 'wandb'; it is a list, so give log.trackers=[",
        ),
        ("", ["train.pairs.I.x=1"], "command line: train.pairs.I is {'x': 1}; give a whole number"),
        ("", ["run=${x}"], "command line: run: "),
        ("", ["variant=${x}"], "command line: Interpolation key 'x' not found"),
        ("family: ${x}", [], "configuration mine.yaml: Interpolation key 'x' not found"),
        ("", ["run='a"], "command line: while scanning"),
        ("", ["pg2=3"], "command line: pg2 is of the family pg2"),
        ("", ["pg2.base=64"], "command line: pg2.base is of the family pg2"),
        ("lr: 1", ["train.batch=8"], "configuration mine.yaml: there is no key 'lr'; did you mean train.lr?"),
        ("trian: {batch: 8}", [], "configuration mine.yaml: there is no key 'trian'; did you mean train?"),
        ("train: {batch: many}", ["lr=1"], "configuration mine.yaml: train.batch is 'many'; give a whole number"),
        ("pg2: {base: 64}", [], "configuration mine.yaml: pg2.base is of the family pg2"),
    ],
)
def test_a_mistake_is_blamed_on_who_wrote_it_and_the_nearest_key_is_named(written, overrides, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(written)
    with pytest.raises(UserError) as refused:
        config.load(str(tmp_path / "mine.yaml"), overrides)
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_a_file_may_name_its_run_after_what_the_command_line_changes(tmp_path):
    (tmp_path / "mine.yaml").write_text("run: runs/${train.seed}")
    assert config.load(str(tmp_path / "mine.yaml"), ["train.seed=7"]).run == "runs/7"


def test_a_pose_estimator_has_presets_and_limits_of_its_own():
    market, fashion = (config.load(preset, ["family=paf"]) for preset in ("market1501", "deepfashion"))
    assert (market.paf.base, market.paf.width, market.paf.stages, market.paf.enlarge) == (64, 128, 6, 3)
    assert (market.train.lr, market.train.betas, market.train.pairs) == (1e-4, [0.9, 0.999], {"pose": 352000})
    assert (fashion.paf.enlarge, fashion.train.pairs) == (1, {"pose": 180000})
    assert config.load("demo", ["family=paf"]).train.stage_lr == {"pose": 1.5e-3}
    for override, said in {
        "paf.width=12": "paf.width is 12; it must be a multiple of 8",
        "paf.stages=7": "paf.stages is 7; choose one of 1, 2, 3, 4, 5, 6",
        "paf.missing=no": "choose one of ignore, absent",
        "paf.enlarge=0": "paf.enlarge is 0; it must be above 0",
    }.items():
        with pytest.raises(UserError, match=said):
            config.load("demo", ["family=paf", override])
