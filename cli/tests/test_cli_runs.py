"""The runs of a user as other commands find them, whichever folder they are asked in."""

from pathlib import Path

import pytest
from cli_helpers import invoke, one_line

from kvsync.local import detached_run
from kvsync.local.process import Process, Spec


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "kvsync" / "runs"


@pytest.fixture
def sleeper(tmp_path):
    process = Process(Spec("sleeper", ("sleep", "600"), tmp_path / "sleeper.log"))
    process.start()
    yield process
    process.kill()


def test_a_run_is_found_from_any_folder_until_it_ends(tmp_path, sleeper, state):
    detached_run.remember(tmp_path / "demo", "http://127.1.9.1:8090", "http://127.1.9.250:8080", [sleeper])
    (run,) = detached_run.find_all()
    assert run == detached_run.find(tmp_path / "demo")
    assert run.describe() == f"demo in {tmp_path / 'demo'}, index http://127.1.9.1:8090"
    code, _, err = invoke("match", "hello", cwd="/")
    assert code == 1
    assert one_line(err).startswith("kvsync: index http://127.1.9.1:8090: ")
    assert invoke("stop", cwd="/") == (0, f"{run.describe()}: ended (1 process)\n", "")
    assert not sleeper.running
    assert detached_run.find_all() == []
    assert list(state.iterdir()) == []
    assert invoke("stop", cwd="/") == (0, "nothing runs\n", "")


def test_of_several_runs_the_newest_is_asked_and_stop_wants_a_choice(tmp_path, sleeper):
    detached_run.remember_this_process("up", tmp_path / "old", "http://127.1.9.7:8090", None)
    detached_run.remember(tmp_path / "new", "http://127.1.9.8:8090", "", [sleeper])
    _, _, err = invoke("audit")
    assert err.splitlines()[0].startswith("asking the newest of 2 runs: demo in ")
    assert "index http://127.1.9.8:8090: " in err.splitlines()[1]
    code, out, err = invoke("stop")
    assert (code, out) == (2, "")
    assert "--out or end all with --all" in one_line(err)
    assert sleeper.running
    code, out, _ = invoke("stop", "--out", tmp_path / "new")
    assert (code, sleeper.running) == (0, False)
    assert [run.folder for run in detached_run.find_all()] == [str(tmp_path / "old")]
    detached_run.forget(tmp_path / "old")


def test_a_dead_run_and_a_broken_record_are_passed_over(tmp_path, sleeper, state):
    detached_run.remember(tmp_path / "demo", "http://127.1.9.1:8090", "", [sleeper])
    (state / "broken.json").write_text("{")
    sleeper.kill()
    assert detached_run.find_all() == []
    assert [path.name for path in state.iterdir()] == ["broken.json"]


def test_a_state_folder_that_cannot_be_written_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    detached_run.remember_this_process("up", tmp_path, None, None)
    (run,) = detached_run.find_all()
    assert (run.command, run.index_url) == ("up", None)
    assert len(list(Path(tmp_path).glob("kvsync-*/kvsync/runs/*.json"))) == 1
