"""What survives: sources that change while the index runs, and an orderly end."""

import json

from kvsync_testkit.waiting import wait_until

TOKENS = list(range(64))


def rows(running):
    return {row["name"]: row for row in running.ok("GET", "/v1/publishers")["publishers"]}


def test_new_sources_cost_the_others_nothing(mock_engine, index, tmp_path):
    first, second = mock_engine(), mock_engine()
    running = index(first)
    first.complete(TOKENS)
    running.settled()
    before = rows(running)["engine-0"]
    file = tmp_path / f"publishers-{running.port}.yaml"
    changed = {**first.entry("engine-0"), "tokenizer": "mock", "api_key": "new"}
    for names, entries in ((["engine-0", "new"], [changed, second.entry("new")]), (["engine-0"], [changed])):
        file.write_text(json.dumps(entries))
        wait_until("the file is read", lambda wanted=names: sorted(rows(running)) == wanted, deadline_s=30)
        after = rows(running)["engine-0"]
        kept = ("blocks", "state", "incarnation", "resyncs", "transitions", "batches", "replays", "disconnects")
        assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    file.write_text("no: list")
    first.complete([*TOKENS, *TOKENS])
    running.settled()
    assert rows(running)["engine-0"]["blocks"] > before["blocks"]  # a file that cannot be read changes nothing


def test_an_orderly_end_writes_a_last_snapshot(mock_engine, index, tmp_path):
    engine = mock_engine()
    snapshots = tmp_path / "snapshots"
    flags = {"snapshot_dir": snapshots, "snapshot_interval": "1h"}
    running = index(engine, **flags)
    engine.complete(TOKENS)
    running.settled()
    assert not (snapshots / "index.snapshot").exists()
    assert running.stop() == 0
    assert (snapshots / "index.snapshot").exists()
    again = index(engine, **flags)
    assert any("snapshot_restored" in line for line in again.logged())
    assert rows(again)["engine-0"]["blocks"] == 4
    assert rows(again)["engine-0"]["incarnation"] == 0
