"""launch/options.py and launch/notations.py: which value holds, and what is read in sbatch's own notations."""

import argparse
import math
import sys

import pytest

from launch import notations, options
from launch.submit import main
from mscgan.errors import UserError

HOSTILE = ["x\ntouch F\n#", "a\tb", "a\x1bb", "a\rb", "\x00", "$(touch F)", "`touch F`", "a;touch F", "a'b\"c", "a\\b"]


def given(**values):
    return argparse.Namespace(**(dict.fromkeys(options.OPTIONS) | values))


@pytest.fixture(autouse=True)
def no_files(tmp_path, monkeypatch):
    """Neither a site's file nor a user's, nor what this shell says to sbatch."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(options, "SITE", tmp_path / "site.yaml")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for variable in (*options.VARIABLES, *options.TAKEN_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    options.user_file().parent.mkdir()


@pytest.mark.parametrize("value", HOSTILE[:5])
def test_no_option_takes_a_control_character(value):
    for name, option in options.OPTIONS.items():
        with pytest.raises(UserError) as error:
            options.resolve(given(**{name: [value] if option.many else value}))
        assert "\n" not in str(error.value) and not any(ord(character) < 32 for character in str(error.value))


@pytest.mark.parametrize("value", HOSTILE[5:])
def test_what_is_written_into_the_script_as_a_command_takes_nothing_that_a_shell_would_read(value):
    for name in ("setup", "container", "nodes", "gpus_per_node", "cpus_per_task", "tasks_per_node", "signal_seconds"):
        with pytest.raises(UserError, match=name.replace("_", "-")):
            options.resolve(given(**{name: [value] if options.OPTIONS[name].many else value}))


def test_sbatch_gets_its_own_options_as_they_are():
    accepted = {
        "gpus_per_node": "a100:8", "mem": "256G", "time": "UNLIMITED", "partition": "gpu,gpu-long",
        "constraint": "[rack1*2&rack2*4]|a100", "exclude": "n[1-3,7],m2", "mail_user": "a.b@example.org",
        "dependency": "afterok:12:13?after:5+10", "comment": "it's no. 3 ($5) # \"new\"", "exclusive": "user",
        "nodes": "2-4", "begin": "now+1hour", "switches": "1@10:00", "licenses": "a:2", "nice": "100", "hold": "true",
        "container": "nvcr.io#nvidia/pytorch:25.10-py3", "setup": ["module load cuda/13.0", "source /opt/nccl.sh"],
        "sbatch": ["wckey=a b", "contiguous"], "srun": ["mpi=pmix", "-l"], "mount": ["/a b:/c:ro"],
    }  # fmt: skip
    assert options.resolve(given(**accepted)).items() >= accepted.items()


def test_an_option_of_ours_given_to_sbatch_is_that_option():
    settings = options.resolve(given(nodes="3", sbatch=["nodes=2", "gpus-per-node=h100:2", "exclusive", "wckey=x"]))
    assert (settings["nodes"], settings["gpus_per_node"], settings["exclusive"]) == ("2", "h100:2", "true")
    assert settings["sbatch"] == ["wckey=x"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("sbatch", "array=0-3", "give --sweep"),
        ("sbatch", "sig=USR1@5", "give --signal-seconds"),  # sbatch understands a name's beginning
        ("sbatch", "gpus=16", "give --gpus-per-node"),
        ("sbatch", "no-requeue", "requeues its jobs itself"),
        ("sbatch", "partition", "expected partition=VALUE"),
        ("sbatch", "-p main", "expected KEY or KEY=VALUE"),
        ("srun", "--output=x", "each rank's log"),
        ("srun", "-n4", "expected KEY"),
        ("srun", "-n", "give --tasks-per-node"),
        ("srun", "ntasks=2", "give --tasks-per-node"),
        ("mount", "/a,b", "without , and :"),
        ("on", "cluster", "slurm, here or auto"),
    ],
)
def test_what_the_launcher_sets_itself_is_refused_with_what_to_give_instead(option, value, said):
    with pytest.raises(UserError, match=f"--{option}.*{said}"):
        options.resolve(given(**{option: [value] if options.OPTIONS[option].many else value}))


def test_a_word_after_a_flag_is_no_value_of_it_and_srun_takes_one_that_looks_like_an_option():
    typed = ["--exclusive", "train.lr=1", "-H", "--nice=5", "--srun", "--label", "--sbatch", "wckey=a", "--hold"]
    assert options.joined(typed) == [
        "--exclusive=true", "train.lr=1", "--hold=true", "--nice=5", "--srun=--label", "--sbatch=wckey=a",
        "--hold=true",
    ]  # fmt: skip


def test_short_forms_are_sbatchs():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    options.add_to(parser)
    typed = "-p a -N 2 -A b -t 5 -q c -C d -J e -w n1 -x n2 -c 3 -d singleton -b now -L x -o f"
    read = parser.parse_args(options.joined(typed.split()))
    assert (read.partition, read.nodes, read.account, read.time, read.qos) == ("a", "2", "b", "5", "c")
    assert (read.constraint, read.job_name, read.nodelist, read.exclude) == ("d", "e", "n1", "n2")
    assert (read.cpus_per_task, read.dependency, read.begin) == ("3", "singleton", "now")
    assert (read.licenses, read.output) == ("x", "f")


def test_site_user_shell_and_command_line_stand_over_each_other(monkeypatch):
    options.SITE.write_text("partition: a\naccount: a\nqos: a\ntime: 12:30:00\nmount: [/a]\n")
    options.user_file().write_text("account: b\nqos: b\nnodes: 2\ncomment: b\nmount: /b\n")
    monkeypatch.setenv("SBATCH_QOS", "c")
    monkeypatch.setenv("SBATCH_COMMENT", "c")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "5")
    settings = options.resolve(given(comment="d", mount=["/d"]))
    assert [settings[name] for name in ("partition", "account", "qos", "comment")] == ["a", "b", "c", "d"]
    assert (settings["nodes"], settings["time"], settings["mount"]) == ("2", "5", ["/a", "/b", "/d"])
    assert settings["signal_seconds"] == "120"  # the default
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # inside a job these variables are that job's
    assert options.resolve(given())["time"] == "12:30:00"  # YAML's own reading would be 45000


def test_an_empty_value_unsets_what_stands_below():
    options.SITE.write_text(
        "partition: a\nexclusive: yes\nnodes: 4\nmount: [/a]\nsetup: [module load a]\nreservation: r"
    )
    options.user_file().write_text("partition:\nmount: []\nsetup: ''\nnodes: null")
    settings = options.resolve(given(exclusive="false", reservation="", mount=["/b"]))
    assert {"partition", "exclusive", "setup", "reservation"} & set(settings) == set()
    assert (settings["nodes"], settings["mount"]) == ("1", ["/b"])


def test_yamls_booleans_numbers_and_mappings_are_taken():
    options.SITE.write_text(
        "preflight: No\nhang_seconds: 6.0e+2\ncrash_retries: 0x10\nnodes: 2\nmem: 60.5G\nexclusive: True\non: here\n"
        "sbatch: {wckey: a, nice: 5}\nsrun: [mpi=pmix]\n"
    )
    settings = options.resolve(given())
    assert (settings["preflight"], settings["hang_seconds"], settings["crash_retries"]) == ("false", "600", "16")
    assert (settings["mem"], settings["exclusive"], settings["on"], settings["nice"]) == ("61952M", "true", "here", "5")
    assert (settings["sbatch"], settings["srun"]) == (["wckey=a"], ["mpi=pmix"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"nods: 2", "unknown key 'nods'"),
        (b"[", "cannot be read"),
        (b"partition: \xff", "cannot be read"),
        (b"- a", "key: value"),
        (b"partition: [a, b]", "expected one value"),
        (b"nodes: {a: 1}", "expected one value"),
        (b"setup: [[a]]", "expected plain values"),
        (b"hang_seconds: soon", "hang_seconds is 'soon'"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_line(text, complaint):
    options.user_file().write_bytes(text)
    with pytest.raises(UserError, match=complaint) as error:
        options.resolve(given())
    assert str(options.user_file()) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_in_a_files_place_is_a_line():
    options.SITE.mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        options.resolve(given())


def test_of_what_says_the_same_the_later_layer_holds():
    options.SITE.write_text("mem: 256G\ngpus_per_node: 8\n")
    settings = options.resolve(given(mem_per_gpu="10.5T", gres="gpu:a100:4,nvme:1"))
    assert "mem" not in settings and settings["mem_per_gpu"] == "10752G" and options.gpus_asked(settings) == 4
    options.SITE.write_text("gres: gpu:8,nvme:1\n")
    settings = options.resolve(given(gpus_per_node="2"))
    assert settings["gres"] == "nvme:1" and options.gpus_asked(settings) == 2
    with pytest.raises(UserError, match="both ask for GPUs"):
        options.resolve(given(gres="gpu:2", gpus_per_node="2"))


def test_what_of_the_shell_is_not_used_is_said(monkeypatch, capsys):
    monkeypatch.setenv("SBATCH_NO_REQUEUE", "1")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-3")
    options.say_not_used()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("note: SBATCH_NO_REQUEUE of your shell is not used")


@pytest.mark.parametrize(
    ("text", "counts"),
    [("4", [4]), ("2-4", [2, 3, 4]), ("1-15:4", [1, 5, 9, 13]), ("2,4", [2, 4]), ("1k", [1024]), ("1-2,8", [1, 2, 8])],
)
def test_numbers_of_nodes(text, counts):
    assert notations.node_counts(text) == counts


@pytest.mark.parametrize("text", ["0", "4-2", "a", "", "0-2", "1-", "2 - 4", "²"])
def test_no_numbers_of_nodes(text):
    with pytest.raises(UserError, match="--nodes is"):
        notations.node_counts(text)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-0", 2880), ("1-2:30", 1590), ("1-00:00:30", 1441),
        ("0", math.inf), ("UNLIMITED", math.inf), ("infinite", math.inf),
    ],
)  # fmt: skip
def test_times_are_read_as_slurm_reads_them(time, minutes):
    assert notations.minutes(time) == minutes


@pytest.mark.parametrize(("text", "count"), [("8", 8), ("a100:8", 8), ("a100", 1), ("a100:4,h100:2", 6), ("0", 0)])
def test_gpus_of_a_node(text, count):
    assert notations.gpus(text) == count


@pytest.mark.parametrize(
    ("gres", "count", "one"),
    [
        ("gpu:8", 8, "gpu:1"), ("gpu:a100:8,nvme:1", 8, "gpu:a100:1,nvme:1"), ("nvme:1", None, "nvme:1"),
        ("gpu", 1, "gpu:1"), ("gpu:a100", 1, "gpu:a100:1"), ("gres/gpu:a100:2,gpu:h100:1", 3, "gres/gpu:a100:1"),
    ],
)  # fmt: skip
def test_gpus_among_generic_resources(gres, count, one):
    assert notations.gpus_of_gres(gres) == count
    assert notations.with_gpus(gres, 1) == one


def test_what_asks_for_gpus_in_no_known_form_is_named():
    for name, said in (("gres", "--gres gpu:x:y:z: what follows gpu: is"), ("gpus_per_node", "--gpus-per-node is")):
        with pytest.raises(UserError, match=said):
            options.resolve(given(**{name: "gpu:x:y:z"}))
    options.SITE.write_text("gpus_per_node: x:y:z\n")
    with pytest.raises(UserError, match=f"{options.SITE}: gpus_per_node is 'x:y:z'"):
        options.resolve(given())


def test_a_path_among_sbatchs_other_options_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert options.resolve(given(sbatch=["error=~/e", "wckey=~a"]))["sbatch"] == ["error=/home/anna/e", "wckey=~a"]


def test_help_names_every_option(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["submit.py", "--help"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in said for name in options.OPTIONS)
