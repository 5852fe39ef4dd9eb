"""CURVE on the event and replay sockets, between mock engines and an index."""

import pytest
import zmq

from kvsync_events import CurveKeyError
from kvsync_events.curve import check_key, read_key, read_keys
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.ingest import CurveKeys
from kvsync_indexer.main import main
from kvsync_indexer.publishers_file import parse_publishers
from kvsync_testkit.processes import Index, stopping
from kvsync_testkit.waiting import wait_until

TOKENS = list(range(64))


def keys(folder, name):
    """(public key, file with it, file with the secret key)."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    (folder / f"{name}.key").write_text(public)
    (folder / f"{name}.secret").write_text(f"{secret}\n")
    return public, folder / f"{name}.key", folder / f"{name}.secret"


@pytest.fixture
def server(tmp_path):
    """The keys of an engine."""
    return keys(tmp_path, "server")


def states(running):
    return {row["name"]: row for row in running.ok("GET", "/v1/publishers")["publishers"]}


def started(stack, tmp_path, *entries, **settings):
    """An index that need not trust any of its publishers."""
    running = Index(*entries, folder=tmp_path, log=tmp_path / "curve.log", **settings)
    stack.enter_context(stopping(running))
    running.ready("/healthz")
    wait_until("the publisher is listed", lambda: "e" in states(running), deadline_s=60)
    return running


def test_an_index_follows_plain_and_encrypted_engines_at_once(mock_engine, index, server, tmp_path):
    public, _, secret = server
    encrypted, plain = mock_engine(mock_curve_key=secret), mock_engine()
    for engine in (encrypted, plain):
        engine.complete(TOKENS)  # before the index starts, so that it needs the replay socket
    running = index({**encrypted.entry("encrypted"), "server_key": public}, plain.entry("plain"))
    running.settled()
    encrypted.complete([*TOKENS, *TOKENS])
    running.settled()
    rows = states(running)
    assert (rows["encrypted"]["blocks"], rows["plain"]["blocks"]) == (8, 4)
    assert rows["encrypted"]["replays"] > 0
    assert rows["encrypted"]["gaps"] == 0


def test_only_known_indexes_are_admitted(mock_engine, stopped_at_the_end, server, tmp_path):
    known, stranger = keys(tmp_path, "known"), keys(tmp_path, "stranger")
    engine = mock_engine(mock_curve_key=server[2], mock_curve_clients=known[1])
    engine.complete(TOKENS)
    entry = engine.entry("e")
    good = started(stopped_at_the_end, tmp_path, entry, curve_secret_key_file=known[2], curve_server_key=server[0])
    good.names = ["e"]
    good.live().settled()
    assert states(good)["e"]["blocks"] == 4
    bad = started(stopped_at_the_end, tmp_path, entry, curve_secret_key_file=stranger[2], curve_server_key=server[0])
    wait_until(
        "the refusal is shown",
        lambda: "does not admit this index's CURVE key" in states(bad)["e"]["reason"],
        deadline_s=60,
    )
    assert states(bad)["e"]["blocks"] == 0


@pytest.mark.parametrize("encrypted", ["engine", "index"])
def test_an_engine_and_an_index_that_do_not_agree_say_so(mock_engine, stopped_at_the_end, server, tmp_path, encrypted):
    public, _, secret = server
    engine = mock_engine(**({"mock_curve_key": secret} if encrypted == "engine" else {}))
    engine.complete(TOKENS)
    entry = engine.entry("e") | ({"server_key": public} if encrypted == "index" else {})
    running = started(stopped_at_the_end, tmp_path, entry)
    wait_until("the refusal is shown", lambda: "refused" in states(running)["e"]["reason"], deadline_s=60)
    assert (states(running)["e"]["blocks"], states(running)["e"]["state"]) == (0, "connecting")


def test_another_server_key_is_refused(mock_engine, stopped_at_the_end, server, tmp_path):
    engine = mock_engine(mock_curve_key=server[2])
    engine.complete(TOKENS)
    other = keys(tmp_path, "other")[0]
    running = started(stopped_at_the_end, tmp_path, {**engine.entry("e"), "server_key": other})
    engine.complete([*TOKENS, *TOKENS])
    wait_until("the index has tried", lambda: "no connection" in states(running)["e"]["reason"]
               or "refused" in states(running)["e"]["reason"], deadline_s=60)  # fmt: skip
    assert states(running)["e"]["blocks"] == 0


# -- keys ----------------------------------------------------------------------------------------------------------


def test_keys_are_read_from_plain_files_and_certificates(tmp_path):
    public, secret = (key.decode() for key in zmq.curve_keypair())
    certificate = tmp_path / "c"
    certificate.write_text(f'# ZMQ\nmetadata\ncurve\n    public-key = "{public}"\n    secret-key = "{secret}"\n')
    assert (read_key(certificate, "public"), read_key(certificate, "secret")) == (public, secret)
    (tmp_path / "many").write_text(f"{public}\n{secret}\n")
    assert read_keys(tmp_path / "many", "public") == [public, secret]
    assert CurveKeys.of(secret).public == public
    assert CurveKeys.of(None).public != CurveKeys.of(None).public
    assert secret not in repr(CurveKeys.of(secret))


@pytest.mark.parametrize(
    ("text", "says"), [("", "holds no secret key"), ("short", "40 characters"), ("x" * 41, "40 characters")]
)
def test_what_is_no_key_is_refused_without_being_shown(tmp_path, text, says):
    (tmp_path / "k").write_text(text)
    with pytest.raises(CurveKeyError, match=says) as caught:
        read_key(tmp_path / "k", "secret")
    assert not text or text not in str(caught.value)
    with pytest.raises(CurveKeyError, match="No such file"):
        read_key(tmp_path / "none", "secret")
    with pytest.raises(CurveKeyError, match="these 40"):
        check_key('"' * 40)


def test_unusable_keys_end_the_start(tmp_path, capsys):
    (tmp_path / "p").write_text("[]")
    (tmp_path / "k").write_text("no key")
    common = ["--publishers", str(tmp_path / "p"), "--port", "0"]
    for flags in (["--curve-secret-key-file", str(tmp_path / "k")], ["--curve-server-key", "no key"]):
        assert main([*common, *flags]) == 2
        assert flags[0] in capsys.readouterr().err
    with pytest.raises(ConfigError, match="server_key"):
        parse_publishers('[{name: a, model: m, endpoint: "tcp://h:1", server_key: x}]', "f")
