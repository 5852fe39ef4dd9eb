"""Debugging: the commands of the end-to-end guide, as it gives them, show events, index and operator of a cluster."""

import sys

import pytest
from conftest import ROOT
from e2e_engines import BLOCK, tokens_of
from e2e_terminal import Terminal

sys.path.insert(0, str(ROOT / "test" / "guides"))
from guides_blocks import missing_lines, read_blocks


@pytest.fixture
def lab(deploy, kube, namespace, installation, tmp_path):
    """The index `main` and an engine whose history has two events, and a terminal in their namespace."""
    engine = deploy.engine("engine", namespace)
    index = deploy.index("main", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    index.wait_live([pod.name])
    pod.complete(tokens_of("to be seen", BLOCK), model="engine")
    pod.complete(tokens_of("to be seen", 2 * BLOCK), model="engine")
    index.wait_agrees([pod])
    (row,) = index.publishers()
    (node,) = {one["spec"]["nodeName"] for one in engine.all_pods()}
    names = {
        "--namespace lab": f"--namespace {namespace}",
        "--namespace kvsync ": f"--namespace {installation.namespace} ",
        "publishers/engine-0/": f"publishers/{row['name'].replace('/', '%2F')}/",
    }
    terminal = Terminal(ROOT, tmp_path, kube.kubeconfig, node, names)
    address = kube.get("Pod", pod.name, namespace)["status"]["podIP"]
    terminal.environment |= {"POD": pod.name, "POD_IP": address}
    yield terminal, pod, row["name"]
    terminal.close()


def blocks_of(section):
    """The blocks of one section of the guide that run on a cluster or with what it forwards."""
    text = (ROOT / "docs/testing/e2e-test-guide.md").read_text(encoding="utf-8")
    part = text.split(f"\n### {section}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    found = [one for one in read_blocks("e2e-test-guide") if one.script in part and one.kind in ("cluster", "run")]
    assert found, f"the guide has no commands in the section {section}"
    return found


def test_ports_and_events_can_be_seen_through_port_forwards(lab):
    terminal, pod, _ = lab
    shown = {}
    for block in blocks_of("Ports and events"):
        shown[block.kind] = terminal.type(block.script)
        assert missing_lines(block.shown, shown[block.kind]) == []
        if block.kind == "cluster" and "connect_ex" in block.script:
            assert pod.name in shown["cluster"]
            assert [line for line in shown["cluster"].splitlines() if line.endswith(" open")] == [
                "8000 open", "5557 open", "5558 open",
            ]  # fmt: skip
    assert shown["run"].count("BlockStored") == 2


def test_the_index_can_be_asked_through_a_port_forward(lab):
    terminal, pod, publisher = lab
    said = "".join(terminal.type(block.script) for block in blocks_of("The state of the index"))
    assert '"state": "live"' in said
    assert said.count('{"hash":') == len(pod.blocks()) == 2
    (audited,) = [line.split() for line in said.splitlines() if line.startswith(publisher)]
    assert audited[1:] == ["equal", "live", "2", "2", "0", "0"]


def test_the_operator_can_be_asked(lab):
    terminal, pod, _ = lab
    # `kvsync doctor` reports problems of the whole cluster, on which other tests may have left something to be deleted.
    said = "".join(terminal.type(block.script, check=False) for block in blocks_of("The state of the operator"))
    for expected in (
        "mockengine.kvsync.dev/engine", "prefixindex.kvsync.dev/main", "Conditions:",
        f"PrefixIndex {pod.namespace}/main: ready", f"index {pod.namespace}/main: 1 publishers live, 2 blocks",
    ):  # fmt: skip
        assert expected in said, said
