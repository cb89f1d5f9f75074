"""mscgan/asked.py: what people ask of a training is heard by the job that it is for, once."""

import time

import pytest

from mscgan import asked


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """Rank 0 of job 77, which listens."""
    monkeypatch.setattr(asked, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.delenv("MSCGAN_JOB", raising=False)
    with asked.Asked(tmp_path, 0) as found:
        yield found


def wait_for(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_save_is_heard_once_and_a_stop_stays(heard, tmp_path):
    for what in ("save", "stop"):
        asked.ask(tmp_path, what, "77")
    wait_for(lambda: heard.save and heard.stop)
    assert [file.name for file in (tmp_path / "asked").iterdir()] == ["stop"]  # until it has ended
    heard.save = False
    time.sleep(0.1)
    assert heard.stop and not heard.save


def test_what_was_asked_of_another_job_is_not_heard_and_its_owner_sweeps_it(heard, tmp_path):
    asked.ask(tmp_path, "stop", "76")
    asked.ask(tmp_path, "save", "7")
    time.sleep(0.1)
    assert not heard.save and not heard.stop
    asked.sweep(tmp_path, "77")
    assert not list((tmp_path / "asked").iterdir())


def test_other_ranks_listen_not(tmp_path, monkeypatch):
    monkeypatch.setattr(asked, "LOOK_SECONDS", 0.01)
    asked.ask(tmp_path, "save", "")
    with asked.Asked(tmp_path, 1) as found:
        time.sleep(0.1)
    assert not found.save and asked.is_asked(tmp_path, "save", "")


@pytest.mark.parametrize("content", ["x" * 101, None])
def test_a_file_that_is_none_of_ours_asks_nothing(content, tmp_path):
    (tmp_path / "asked").mkdir()
    if content is None:
        (tmp_path / "asked/stop").mkdir()
    else:
        (tmp_path / "asked/stop").write_text(content)
    assert not asked.is_asked(tmp_path, "stop", "77")
