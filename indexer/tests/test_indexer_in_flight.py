"""The file that says what is being applied, across the deaths of processes."""

import multiprocessing
import os

import pytest
from service_helpers import MODEL, ScriptedPublisher

from kvsync_events import BlockStored, EventBatch, WireForm, encode_batch
from kvsync_indexer.core import PythonCore
from kvsync_indexer.ingest import InFlight, Ingest, temporary_directory
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import State
from kvsync_testkit.waiting import wait_until


def reopened(directory, **marks):
    """The next process, after one that ended while it applied something."""
    guard = InFlight(directory)
    guard.begin(marks.get("publisher", "p"), marks.get("seq", 7), marks.get("payloads", [b"lethal"]))
    os.close(guard._file)  # no `end`: the process is gone
    return InFlight(directory)


def test_a_payload_is_set_aside_after_the_process_died_of_it(tmp_path):
    guard = reopened(tmp_path)
    assert guard.is_set_aside("p", 7, b"lethal")
    assert guard.applies_singly("p", 7)


@pytest.mark.parametrize(
    ("publisher", "seq", "payload"), [("q", 7, b"lethal"), ("p", 8, b"lethal"), ("p", 7, b"other")]
)
def test_no_other_payload_is(tmp_path, publisher, seq, payload):
    assert not reopened(tmp_path).is_set_aside(publisher, seq, payload)


def test_what_was_applied_is_not(tmp_path):
    guard = InFlight(tmp_path)
    guard.begin("p", 7, [b"harmless"])
    guard.end()
    assert not InFlight(tmp_path).applies_singly("p", 7)


def test_a_run_is_applied_singly_so_that_the_guilty_payload_is_found(tmp_path):
    guard = reopened(tmp_path, payloads=[b"harmless", b"lethal"])
    assert not guard.is_set_aside("p", 7, b"harmless")
    assert [seq for seq in range(5, 11) if guard.applies_singly("p", seq)] == [7, 8]


def test_the_list_outlives_later_processes_and_is_bounded(tmp_path):
    for seq in range(70):
        guard = reopened(tmp_path, seq=seq)
    assert [seq for seq in range(70) if guard.is_set_aside("p", seq, b"lethal")] == list(range(6, 70))


def test_without_a_directory_for_snapshots_the_temporary_files_outlive_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert reopened(temporary_directory(8090)).is_set_aside("p", 7, b"lethal")
    assert not InFlight(temporary_directory(8091)).is_set_aside("p", 7, b"lethal")


def test_a_temporary_directory_that_others_may_write_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    temporary_directory(8090).chmod(0o777)
    with pytest.raises(PermissionError):
        temporary_directory(8090)
    (tmp_path / f"kvsync-indexer-{os.geteuid()}-8091").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        temporary_directory(8091)


@pytest.mark.parametrize("content", [b"", b"[{}]", b"[" * 100_000])
def test_a_list_that_cannot_be_read_is_ignored(tmp_path, content):
    (tmp_path / "index.set-aside").write_bytes(content)
    assert not InFlight(tmp_path).is_set_aside("p", 7, b"lethal")


class Lethal(PythonCore):
    """Ends the process over the batch of this adapter."""

    def _end(self, payload):
        if b"lethal" in payload:
            os._exit(9)

    def apply(self, publisher, payload):
        self._end(payload)
        return super().apply(publisher, payload)

    def apply_many(self, publisher, payloads, budget=None):
        for payload in payloads:
            self._end(payload)
        return super().apply_many(publisher, payloads, budget)


def follow(endpoint, replay_endpoint, directory, result):
    """A process of the index, until the publisher is live."""
    core = Lethal()
    ingest = Ingest(core, guard=InFlight(directory))
    ingest.start()
    ingest.add(PublisherSpec("p", MODEL, endpoint, replay_endpoint=replay_endpoint))
    link = wait_until("the publisher is in the I/O thread", lambda: ingest.link("p"), deadline_s=60.0)
    wait_until("it is live", lambda: link.machine.state is State.LIVE and core.sizes("p")[0], deadline_s=60.0)
    result.put((link.machine.incomplete, link.totals.set_aside, core.sizes("p")[0]))
    ingest.stop()


def test_no_payload_ends_more_than_one_process(tmp_path):
    publisher = ScriptedPublisher()
    publisher.store(2)
    publisher.store(1, tokens=[1, 2, 3, 4], parent=None)
    publisher.publish([], payload=lethal())
    publisher.store(3)
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    arguments = (publisher.endpoint, publisher.replay_endpoint, tmp_path, result)
    codes = []
    while not codes or codes[-1]:
        process = context.Process(target=follow, args=arguments)
        process.start()
        process.join(60)
        codes.append(process.exitcode)
        assert len(codes) < 4, "a crash loop"
    publisher.close()
    assert codes == [9, 0]
    assert result.get(timeout=10) == (True, 1, 3)


def lethal():
    event = BlockStored([1], None, [1, 2, 3, 4], 4, lora_name="lethal")
    return encode_batch(EventBatch(1.0, [event], 0), WireForm.for_version("0.33.0"))
