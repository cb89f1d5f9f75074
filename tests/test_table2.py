"""mscgan/table2.py and launch/table2.py: the rows, what of them is missing, the way from one command to the table."""

import hashlib
import json
import os
import signal
import subprocess

import pytest
import yaml

from launch import runs, slurm, table2
from mscgan import config as configuration
from mscgan import schedule
from mscgan.config import PRESETS
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.keys import FIND_POSES, STAGES
from mscgan.table2 import PAPER, ROWS, SAME_AS, SHARED
from tests.launch_checkout import Checkout
from tests.shard_factory import write_shards

# As the paper prints it.
PRINTED = """\
One discriminator	0.737	3.212	0.248	3.167	0.791	3.246
MsCGAN	0.725	3.335	0.219	3.588	0.764	3.741
Three discriminators	0.691	3.284	0.216	3.459	0.778	3.558
Ma et al. NIPS2017	0.762	3.090	0.253	3.460	0.792	3.435
Ma et al. CVPR2018	0.614	3.228	0.099	3.483	0.614	3.491
Pumarola et al. CVPR2018	0.747	2.97"""

# Leaves what training leaves of a run, at once, and notes its name. FAILS and SLOW name a run that fails, and one that
# in its first attempt waits for a signal, saves, and asks to go on.
TRAIN = """\
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from mscgan import config as configuration, schedule

config = configuration.load(sys.argv[sys.argv.index("--config") + 1])
run, told = Path(config.run), []
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: told.append(number))
with open("trained.txt", "a") as file:
    file.write(f"{run.name}\\n")
if run.name == os.environ.get("FAILS"):
    sys.exit(2)
slow = run.name == os.environ.get("SLOW") and os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
while slow and not told:
    time.sleep(0.05)
if told:
    sys.exit(85)
stage = schedule.schedule(config.family, config.train.pairs)[-1]
facts = {"pairs": stage.end, "stage": stage.name, "began": stage.start, "ends": stage.end, "steps": 1}
folder = run / f"checkpoints/pairs-{stage.end:09d}"
folder.mkdir(parents=True)
state = facts | {"made_with": schedule.made_with(config)}
(folder / "state.json").write_text(json.dumps({"schema": schedule.SCHEMA, "state": state}))
(run / "config.yaml").write_text(configuration.text(config))
seen = {"stage": f"{stage.name}:{stage.end - stage.start}"}
save_file({"G": np.full(1, len(run.name), np.float32)}, run / "generator.safetensors", metadata=seen)
"""

EVALUATE = """\
import hashlib, json, os, sys
from pathlib import Path
from mscgan.data.manifest import fingerprint, read_manifest

run = Path(sys.argv[sys.argv.index("--run") + 1])
with open("scored.txt", "a") as file:
    file.write(f"{run.name}\\n")
scores = {"ssim_A": {"value": len(run.name) / 100, "low": 0.1, "high": 0.9, "pairs": 4}}
document = {
    "schema": 2, "dataset": "synthetic", "pairs": 4, "people": 2, "config_sha256": "c", "split": "test",
    "generator_sha256": hashlib.sha256((run / "generator.safetensors").read_bytes()).hexdigest(),
    "shards_fingerprint": fingerprint(read_manifest("runs/demo/shards"), "test"), "protocols": {"ssim_A": "PG2's."},
    "left_out": {"is": "no weights"}, "differences": {},
    "scores": {"copy_source": scores, "stage_I": {}, "stage_II": scores},
}
(run / "evaluation.json").write_text(json.dumps(document))
"""


@pytest.fixture
def checkout(tmp_path):
    return prepared(Checkout(tmp_path / "checkout"))


def prepared(found):
    """The checkout with the stand-ins above, and shards with a test split."""
    (found.root / "mscgan/train.py").write_text(TRAIN)
    (found.root / "mscgan/evaluate.py").write_text(EVALUATE)
    manifest = found.root / "runs/demo/shards/manifest.json"
    document = json.loads(manifest.read_text())
    document["splits"]["test"] = document["splits"]["train"]
    manifest.write_text(json.dumps(document))
    return found


COMMAND = ("submit.py", "--job=table2", "--config=demo", "--gpus-per-node=0", "--tasks-per-node=1")
STAGE_I = "mscgan-stage-I-seed-0"
NAMES = [f"{row.name}-seed-0" for row in ROWS]


def told(checkout, name):
    """The runs in the order in which they were trained or scored, and forgets them."""
    file = checkout.root / f"{name}.txt"
    found = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def test_every_family_that_makes_images_and_every_variant_that_names_its_family_has_a_row():
    assert {row.family for row in ROWS} == set(STAGES) - set(FIND_POSES)
    files = [(path.stem, yaml.safe_load(path.read_text())) for path in (PRESETS / "variant").glob("*.yaml")]
    named = {name: values["family"] for name, values in files if "family" in values}
    assert named == {row.variant: row.family for row in ROWS if row.variant} | dict.fromkeys(SAME_AS, "mscgan")
    for name, row in SAME_AS.items():
        same, other = (configuration.load("market1501", [f"variant={variant}"]) for variant in (name, row))
        assert schedule.made_with(same) == schedule.made_with(other)
    for family, stage in SHARED.items():
        assert STAGES[family][0] == stage  # the first: nothing else stands before it


def test_the_published_numbers_are_those_that_the_paper_prints():
    for row, line in zip(PAPER, PRINTED.splitlines(), strict=True):
        title, *numbers = line.split("\t")
        assert (title, [float(number) for number in numbers]) == (row.title, [*row.deepfashion, *row.market1501])
    assert {row.published for row in ROWS} - {""} < {row.title for row in PAPER}


def test_one_command_trains_scores_and_writes_the_table_and_the_second_time_does_nothing(checkout):
    code, output = checkout.run(*COMMAND)
    assert code == 0, output
    assert told(checkout, "trained") == [STAGE_I, *NAMES] and told(checkout, "scored") == NAMES
    assert "table 2, part 2 of 5, train: the rows that stand on it: 4 runs" in output and "run 4 of 4: " in output
    folder = checkout.root / "runs/table2-demo"
    document = json.loads((folder / "table2.json").read_text())
    assert [row["scores"]["ssim_A"]["value"] for row in document["rows"]] == [len(name) / 100 for name in NAMES]
    assert document["missing"] == [] and (folder / "table2.tex").is_file()
    assert [row["budget"]["pairs"] for row in document["rows"]][3:] == [
        {"I": 8000, "joint": 2400}, {"I": 8000, "II": 2400},
    ]  # fmt: skip
    table = (folder / "table2.md").read_text()
    assert (
        "| PG2 | ours | synthetic | 0.100 [0.100, 0.900] | – | – | – | 4 | I 8,000 + II 2,400 | 1,300 | 16 |" in table
    )

    (folder / "table2.md").unlink()
    code, output = checkout.run(*COMMAND)
    assert code == 0 and told(checkout, "trained") == told(checkout, "scored") == [], output
    assert (folder / "table2.md").read_text() == table


def test_a_row_that_fails_is_named_and_the_same_command_trains_it_alone(checkout):
    code, output = checkout.run(*COMMAND, FAILS="three-discriminators-seed-0")
    assert code == 1 and told(checkout, "scored") == [name for name in NAMES if not name.startswith("three")]
    assert "three-discriminators-seed-0 is left out: trained 0 of 10,400 pairs: the train job of" in output
    table = (checkout.root / "runs/table2-demo/table2.md").read_text()
    assert "- Missing: Three discriminators, seed 0: trained 0 of 10,400 pairs: the train job of" in table
    assert "ended: mistake (exit code 2)." in table and "| MsCGAN | ours | synthetic | 0.130 [" in table
    told(checkout, "trained")

    code, output = checkout.run(*COMMAND)
    assert code == 0, output
    assert told(checkout, "trained") == told(checkout, "scored") == ["three-discriminators-seed-0"]


def test_rows_whose_shared_stage_failed_are_not_begun_and_the_others_stand(checkout):
    code, output = checkout.run(*COMMAND, FAILS=STAGE_I)
    assert code == 1 and told(checkout, "trained") == [STAGE_I, "pg2-seed-0"]
    assert told(checkout, "scored") == ["pg2-seed-0"]
    assert "missing: mscgan, seed 0: the stage that it shares is not complete: the train job of" in output


def test_ctrl_c_stops_all_and_the_same_command_goes_on(checkout):
    process = checkout.start(*COMMAND, SLOW="mscgan-seed-0")
    end = checkout.wait_for("runs/table2-demo/one-discriminator-seed-0/checkpoints/*/state.json")
    checkout.wait_for("runs/table2-demo/launch-*/ranks/1-0/rank-00000.json")
    while "mscgan-seed-0\n" not in (checkout.root / "trained.txt").read_text():
        assert process.poll() is None and end.exists()
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 85 and "stopped; the same command goes on with what is missing" in output, output
    assert told(checkout, "trained") == [STAGE_I, "one-discriminator-seed-0", "mscgan-seed-0"]
    assert not (checkout.root / "runs/table2-demo/table2.md").exists()

    code, output = checkout.run(*COMMAND)
    assert code == 0, output
    assert told(checkout, "trained") == NAMES[1:] and told(checkout, "scored") == NAMES


def test_scores_count_while_weights_and_test_shards_are_those_that_they_are_of(tmp_path):
    shards = write_shards(tmp_path / "shards", persons=2, views=2)
    config = configuration.load("demo", [f"run={tmp_path}", f"data.root={shards}"])
    assert table2.evaluation(config) == ({}, "no evaluation.json")
    (tmp_path / "generator.safetensors").write_bytes(b"weights")
    sound = {"schema": 2, "generator_sha256": hashlib.sha256(b"weights").hexdigest(),
             "shards_fingerprint": ShardSet(shards, "test").fingerprint, "left_out": {}, "differences": {},
             "scores": {"stage_I": {"l1": {"value": 0.1, "low": None, "high": None, "pairs": 4}}}}  # fmt: skip
    for changed, why in (
        ({}, ""),
        ({"schema": 1}, f"{tmp_path}/evaluation.json is of schema 1, and this version reads 2"),
        ({"generator_sha256": "0"}, "evaluation.json is of other weights"),
        ({"shards_fingerprint": ShardSet(shards, "train").fingerprint}, "evaluation.json is of other shards"),
    ):
        (tmp_path / "evaluation.json").write_text(json.dumps(sound | changed))
        assert table2.evaluation(config) == ({} if why else sound, why)
    (tmp_path / "evaluation.json").write_text("{")
    assert "is not what evaluate writes" in table2.evaluation(config)[1]
    (tmp_path / "evaluation.json").write_text(json.dumps(sound))
    (tmp_path / "generator.safetensors").write_bytes(b"others, longer")
    assert table2.evaluation(config)[1] == "evaluation.json is of other weights"


def test_the_dry_run_prints_every_part_and_leaves_nothing(checkout):
    code, output = checkout.run(*COMMAND, "--seeds=3", "--dry-run", "--array-parallelism=4")
    assert code == 0, output
    arrays = [line.partition("=")[2] for line in output.splitlines() if line.startswith("#SBATCH --array")]
    assert arrays == ["0-2%3", "0-11%4", "0-2%3", "0-14%4"]  # stage I, the rows on it, PG2, scores; then the table
    assert "# part 2 of 5, train: the rows that stand on it; after part 1\n" in output
    assert "# part 3 of 5, train: rows of their own\n" in output
    assert output.count("snapshot/launch/table2_result.py") <= 1
    assert [folder.name for folder in (checkout.root / "runs").iterdir()] == ["demo"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["family=pg2"], "family: each row of table 2 has its own"),
        (["train.seed=3"], "train.seed: each row of table 2 has its own"),
        (["train.pairs.joint=0"], "give a stage after it some"),
        (["train.pairs.third=4"], "train.pairs.third: no stage of"),
        (["pg2.bas=8"], "there is no key 'pg2.bas'"),
        (["data.root=gone"], "no shard folder 'gone'"),
        (["train.batch=7", "--tasks-per-node=2"], "batch 7 is not a multiple of 2 ranks"),
        (["--seeds=0"], "give a number above 0"),
        (["--sweep=train.lr=1,2"], "takes --config PRESET, key=value and --seeds N"),
        (["--", "--pairs", "3"], "takes --config PRESET, key=value and --seeds N"),
        (["--job=train", "--seeds=2"], "with --job table2; others have train.seed=N"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2_and_leaves_nothing(checkout, arguments, complaint):
    code, output = checkout.run(*COMMAND, *arguments)
    assert code == 2 and complaint in output and output.count("\n") == 1 and output.startswith("error: ")
    assert [folder.name for folder in (checkout.root / "runs").iterdir()] == ["demo"]


def test_what_is_set_goes_to_the_rows_that_have_the_key():
    table = table2.ask("demo", ["mscgan.base=8", "pg2.base=24", "train.pairs.joint=800", "run=here"])
    bases = {run.row.name: run.config.options().base for run in table.runs}
    assert bases == {row.name: 24 if row.family == "pg2" else 8 for row in ROWS}
    assert [run.config.train.pairs for run in table.runs][3:] == [
        {"I": 8000, "II": 0, "joint": 800}, {"I": 8000, "II": 2400},
    ]  # fmt: skip
    with pytest.raises(UserError, match="variant: each row"):
        table2.ask("demo", ["variant=small"])


def test_each_seed_has_its_shared_stage_and_rows_that_have_begun_need_it_no_more(tmp_path):
    table = table2.ask("market1501", [f"run={tmp_path}", "data.root=x"], seeds=2)
    assert [run.config.train.seed for run in table.runs] == [0, 1] * len(ROWS)
    shared, standing, own, scores, last = table2.parts(table)
    assert [config.run for config in shared.runs] == [f"{tmp_path}/mscgan-stage-I-seed-{seed}" for seed in (0, 1)]
    assert shared.runs[1].train.pairs == {"I": 352_000, "II": 0, "joint": 0} and shared.runs[1].train.init == ""
    assert standing.runs[1].train.init == f"{tmp_path}/mscgan-stage-I-seed-1/generator.safetensors"
    assert [part.after for part in (shared, standing, own, scores, last)] == [[], [0], [], [0, 1, 2], [0, 1, 2, 3]]
    assert (len(standing.runs), len(own.runs), len(scores.runs)) == (8, 2, 10)

    for row in ROWS:  # with seed 1 all have a checkpoint
        (tmp_path / f"{row.name}-seed-1/checkpoints/pairs-000400000").mkdir(parents=True)
    assert [config.run for config in table2.parts(table)[0].runs] == [f"{tmp_path}/mscgan-stage-I-seed-0"]


def test_a_run_that_was_made_otherwise_is_refused(tmp_path):
    table = table2.ask("demo", [f"run={tmp_path}"])
    config = table.runs[0].config
    found = {"pairs": 10_400, "stage": "joint", "began": 8000, "ends": 10_400}
    folder = tmp_path / "one-discriminator-seed-0/checkpoints/pairs-000010400"
    folder.mkdir(parents=True)
    state = {"schema": schedule.SCHEMA, "state": found | {"made_with": schedule.made_with(config)}}
    (folder / "state.json").write_text(json.dumps(state))
    assert table2.complete(config)
    with pytest.raises(UserError, match="was made with train.lr 0.003, now it is 0.001"):
        table2.parts(table2.ask("demo", [f"run={tmp_path}", "train.lr=1e-3"]))


def test_scores_that_a_job_will_make_are_not_queued_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    table = table2.ask("demo", [f"run={tmp_path}/table"])
    work = runs.Work(f"{tmp_path}/table/mscgan-seed-0", [])
    plan = runs.Plan("mscgan-evaluate-abcdef", "evaluate", f"{tmp_path}/table/launch-1", "", "", [work])
    runs.private_folder(runs.Path(work.run))
    runs.private_folder(runs.Path(plan.folder))
    runs.write_plan(plan)
    table2.check_free(table)
    job = runs.announce(plan)  # this process
    with pytest.raises(UserError, match=rf"job {job} \(evaluate\) of .* waits or runs"):
        table2.check_free(table)


def test_the_scheduler_is_asked_once_however_many_launches_there_were(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    table, asked = table2.ask("demo", [f"run={tmp_path}/table"]), []
    for number in range(20):
        work = runs.Work(f"{tmp_path}/table/mscgan-seed-0", [])
        folder = runs.private_folder(tmp_path / f"table/launch-{number}")
        plan = runs.Plan(f"mscgan-evaluate-{number}", "evaluate", str(folder), "", "", [work])
        runs.write_plan(plan)
        runs.write_job(plan.folder, slurm=str(100 + number))
        runs.register(plan.folder)

    def command(*arguments, **_):
        asked.append(arguments[0])
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(slurm, "command", command)
    table2.check_free(table)
    assert sorted(asked) == ["sacct", "squeue"]
