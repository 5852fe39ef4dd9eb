"""Fronts: their flags, the order in which things are opened, and what is said when a front is missing or broken."""

import asyncio
import signal
import socket
from importlib.metadata import EntryPoint

import click
import pytest
import structlog

from kvsync_indexer import fronts, main
from kvsync_indexer.api import MatchRequest
from kvsync_indexer.errors import ConfigError
from kvsync_testkit.ports import free_port


class FakeFront:
    """A front that asks its index one question and then ends the process."""

    def __init__(self):
        self.opened = []
        self.closed = 0
        self.said = None

    def options(self):
        return [click.Option(["--fake-port"], type=int), click.Option(["--fake-word"], default="hello")]

    def open(self, values, *, host, index_port):
        self.opened.append((dict(values), host, index_port))
        if values["fake_port"] == 0:
            raise ConfigError("--fake-port 0: not here")
        return None if values["fake_port"] is None else self

    def server(self, index):
        self.index = index
        return self

    async def serve(self):
        answer = await self.index.match(MatchRequest("m", token_ids=[1, 2]))
        self.said = (answer.matches, self.index.publishers())
        signal.raise_signal(signal.SIGTERM)
        await self.stopped.wait()

    def stop(self, *, at_once):
        self.stopped.set()

    @property
    def stopped(self):
        if not hasattr(self, "_stopped"):
            self._stopped = asyncio.Event()
        return self._stopped

    def close(self):
        self.closed += 1


@pytest.fixture
def front(monkeypatch):
    made = FakeFront()
    monkeypatch.setattr(main, "installed_fronts", lambda: [made])
    yield made
    structlog.reset_defaults()


@pytest.fixture
def flags(tmp_path):
    path = tmp_path / "publishers.yaml"
    path.write_text("[]")
    return ["--publishers", str(path), "--host", "127.0.0.1", "--core", "python", "--port", str(free_port())]


def test_a_front_answers_from_the_index_and_ends_with_it(front, flags):
    assert main.main([*flags, "--fake-port", "7", "--fake-word", "x"]) == 0
    assert front.opened == [({"fake_port": 7, "fake_word": "x"}, "127.0.0.1", int(flags[-1]))]
    assert front.said == ([], [])
    assert front.closed == 0


def test_a_front_that_refuses_its_flags_stops_the_start(front, flags, capsys):
    assert main.main([*flags, "--fake-port", "0"]) == 2
    assert capsys.readouterr().err == "kvsync-indexer: --fake-port 0: not here\n"


def test_an_open_front_is_closed_when_the_index_cannot_start(front, flags, tmp_path):
    (tmp_path / "publishers.yaml").write_text("- {name: [")
    assert main.main([*flags, "--fake-port", "7"]) == 2
    assert front.closed == 1


def test_no_front_is_opened_when_the_index_has_no_port(front, flags, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main.main([*flags[:-1], port, "--fake-port", "7"]) == 2
    assert capsys.readouterr().err.startswith(f"kvsync-indexer: --port {port}: cannot listen on 127.0.0.1:{port}")
    assert front.opened == []


def test_the_help_lists_the_flags_of_a_front(front, capsys):
    assert main.main(["--help"]) == 0
    assert "--fake-word" in capsys.readouterr().out


def test_a_flag_of_a_front_that_is_not_installed_names_the_package(monkeypatch, flags, capsys):
    monkeypatch.setattr(fronts, "entry_points", lambda **_: ())
    assert main.main([*flags, "--router-port", "8080"]) == 2
    expected = "kvsync-indexer: --router-port: needs the package kvsync-router, which is not installed here\n"
    assert capsys.readouterr().err == expected
    assert main.main([*flags, "--nonsense"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_a_front_that_cannot_be_loaded_is_one_line(monkeypatch, flags, capsys):
    broken = EntryPoint("broken", "kvsync_no_such_module:front", fronts.GROUP)
    monkeypatch.setattr(fronts, "entry_points", lambda **_: (broken,))
    assert main.main(flags) == 2
    err = capsys.readouterr().err
    assert err.startswith("kvsync-indexer: the front 'broken' (kvsync_no_such_module:front) cannot be loaded:")
    assert err.count("\n") == 1


def test_the_picker_and_the_router_are_fronts_of_this_environment():
    flags = [[option.opts[0] for option in one.options()] for one in fronts.installed_fronts()]
    assert [each[0] for each in flags] == ["--epp-port", "--router-port"]
    for prefix, each in zip(("--epp-", "--router-"), flags, strict=True):
        assert all(flag.startswith(prefix) for flag in each)
        assert {f"{prefix}policy", f"{prefix}seed"} <= set(each)
