import hashlib
import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from launch import stage_in
from mscgan.errors import UserError


def write_shards(root, text="images"):
    root.mkdir()
    contents = {"train-00000.tar": text.encode() * 1000, "train-00000.idx": b"v1.2 0\n"}
    contents |= {"train-pairs.npy": b"NUMPY", "train-images.npy": b"NUMPY too"}
    for name, content in contents.items():
        (root / name).write_bytes(content)
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    tar = {"name": "train-00000.tar", "sha256": sha256["train-00000.tar"], "bytes": len(text) * 1000, "images": 0}
    tar |= {"index": "train-00000.idx", "index_sha256": sha256["train-00000.idx"]}
    train = {"images": 0, "persons": 0, "pairs": 0, "tars": [tar]}
    for of, table in (("pair_table", "train-pairs.npy"), ("image_table", "train-images.npy")):
        train[of] = {"name": table, "sha256": sha256[table]}
    manifest = {"schema": 2, "dataset": "toy", "height": 64, "width": 32, "splits": {"train": train}}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def root(tmp_path):
    return write_shards(tmp_path / "shards")


def test_the_copy_has_the_same_bytes(root, tmp_path):
    copy = stage_in.stage(root, tmp_path / "local")
    assert copy.parent == tmp_path / "local"
    for file in root.iterdir():
        assert (copy / file.name).read_bytes() == file.read_bytes()


def test_a_copy_that_is_there_is_used_again(root, tmp_path, monkeypatch):
    copy = stage_in.stage(root, tmp_path / "local")
    monkeypatch.setattr(stage_in, "_copy_file", lambda *_: pytest.fail("copied again"))
    assert stage_in.stage(root, tmp_path / "local") == copy


def test_files_of_the_copy_that_were_lost_or_changed_are_copied_again(root, tmp_path):
    copy = stage_in.stage(root, tmp_path / "local")
    (copy / "train-pairs.npy").unlink()
    (copy / "train-00000.tar").write_bytes(b"x" * (copy / "train-00000.tar").stat().st_size)
    stage_in.stage(root, tmp_path / "local")
    for file in root.iterdir():
        assert (copy / file.name).read_bytes() == file.read_bytes()


def test_a_copy_that_was_cut_off_is_finished(root, tmp_path, monkeypatch):
    def killed(source, target, count):
        target.with_name(".train-00000.tar.1.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage_in, "_copy_file", killed)
        stage_in.stage(root, tmp_path / "local")
    copy = stage_in.stage(root, tmp_path / "local")
    assert (copy / "train-00000.tar").read_bytes() == (root / "train-00000.tar").read_bytes()
    assert not list(copy.glob(".*"))


def test_different_data_sets_do_not_collide(root, tmp_path):
    other = write_shards(tmp_path / "other", "others")
    assert stage_in.stage(root, tmp_path / "local") != stage_in.stage(other, tmp_path / "local")


def test_a_source_that_differs_from_its_manifest_is_refused(root, tmp_path):
    (root / "train-00000.tar").write_bytes(b"rotten")
    with pytest.raises(UserError, match="train-00000.tar differs from its checksum"):
        stage_in.stage(root, tmp_path / "local")


def test_too_little_space_is_said_in_one_line(root, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(stage_in.shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(UserError, match="GB free, the shards need") as error:
        stage_in.check(root, tmp_path / "local")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="GB free, the shards need"):
        stage_in.stage(root, tmp_path / "local")


def test_a_name_that_leads_out_of_the_folder_is_refused(root, tmp_path):
    manifest = (root / "manifest.json").read_text().replace("train-00000.tar", "../train-00000.tar")
    (root / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match="expected the name of a file in this folder"):
        stage_in.stage(root, tmp_path / "local")


def test_a_folder_that_others_may_write_is_refused(root, tmp_path):
    copy = stage_in.stage(root, tmp_path / "local")
    copy.chmod(0o777)
    with pytest.raises(UserError, match="open to other users"):
        stage_in.stage(root, tmp_path / "local")


def test_variables_of_the_node_are_filled_in(root, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "nvme"))
    assert stage_in.stage(root, "$NODE_DISK/shards").is_relative_to(tmp_path / "nvme" / "shards")
    with pytest.raises(UserError, match="no such variable"):
        stage_in.stage(root, "$NO_SUCH_DISK")


def test_of_several_processes_one_copies_and_the_others_wait(root, tmp_path):
    script = Path(stage_in.__file__)
    command = [sys.executable, str(script), str(root), str(tmp_path / "local")]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len({out for out, _ in outputs}) == 1
    assert sum("staged 4 files" in errors for _, errors in outputs) == 1


def test_the_command_reports_a_missing_manifest_in_one_line(tmp_path):
    command = [sys.executable, str(Path(stage_in.__file__)), str(tmp_path), str(tmp_path / "local")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read") and done.stderr.count("\n") == 1
