import os

import pytest

from mscgan import files
from tests.small_disk import fill, small_disk


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    files.write(path, "old")
    with files.whole(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        temporary.write_text("new ä")
    assert path.read_text(encoding="utf-8") == "new ä"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, failure):
    path = tmp_path / "a.bin"
    files.write(path, b"\x00old")
    with pytest.raises(failure), files.whole(path) as temporary:
        temporary.write_bytes(b"ne")
        raise failure
    assert path.read_bytes() == b"\x00old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_two_processes_do_not_share_a_temporary_name(tmp_path):
    with files.whole(tmp_path / "a") as temporary:
        assert str(os.getpid()) in temporary.name and temporary.parent == tmp_path
        temporary.touch()


def test_what_is_no_plain_file_or_too_large_is_refused_without_a_wait(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    assert files.read(path, 4) == b"1234"
    with pytest.raises(OSError, match="4 bytes, where 3 are the most"):
        files.read(path, 3)
    path.unlink()
    os.mkfifo(path)
    for wrong in (path, tmp_path, "/dev/null"):
        with pytest.raises(OSError, match="not a plain file"):
            files.open_plain(wrong)


def test_a_text_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "a.jsonl"
    files.append(path, "ä\n")
    files.append(path, b"b\n")
    assert path.read_text(encoding="utf-8") == "ä\nb\n"
    with small_disk(tmp_path / "disk") as disk:
        files.append(disk / "a", "first\n")
        fill(disk)
        room = 4096 - len("first\n")  # what is left of its page
        with pytest.raises(OSError, match="No space left"):
            files.append(disk / "a", "x" * (room + 10))
        assert (disk / "a").read_text() == "first\n"


def test_appending_to_a_fifo_fails_instead_of_waiting(tmp_path):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError):
        files.append(tmp_path / "a", "x")
