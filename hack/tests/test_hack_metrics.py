"""What running processes export is documented, and every dashboard query and alert names what they export."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from kvsync_testkit.cluster import FakeKube
from kvsync_testkit.ports import free_port
from kvsync_testkit.processes import HttpPort, Index, MockEngine, stopping
from kvsync_testkit.waiting import wait_until

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts/kvsync/alerts/kvsync.yaml"
RULE_TESTS = ROOT / "charts/kvsync/tests/alerts/promtool.yaml"
DASHBOARDS = sorted((ROOT / "charts/kvsync/dashboards").glob("*.json"))
DOCUMENTED = re.compile(r"^\|`(kvsync_\w+)`\|(\w+)\|([^|]*)\|", re.MULTILINE)
STANDARD = ("process_", "python_", "vllm:", "http_")
TARGET_LABELS = frozenset({"namespace", "job", "instance", "pod", "service"})
"""Labels that Prometheus adds when it scrapes."""
OWN_OF_PROMETHEUS = frozenset({"up"})
FIXED_VALUES = frozenset({"state", "verdict", "cause"})
"""Labels all of whose values are exported from the start."""
KEYWORDS = frozenset(
    {
        "sum", "avg", "max", "min", "count", "topk", "and", "or", "unless", "rate", "increase", "delta",
        "histogram_quantile", "absent", "last_over_time",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """The text of `/metrics` of an engine, an index with discovery, its router, and the operator, after some work."""
    folder = tmp_path_factory.mktemp("metrics")
    with ExitStack() as stack:
        api = stack.enter_context(FakeKube())
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("KUBECONFIG", str(api.kubeconfig(folder)))
        engine = MockEngine(block_size=16, enable_prompt_tokens_details=True)
        stack.enter_context(stopping(engine))
        router = HttpPort(free_port())
        engine.ready("/health")
        index = Index(
            engine, folder=folder, router_port=router.port, discover="kubernetes", namespace="lab",
            snapshot_dir=folder / "snapshots",
        )  # fmt: skip
        stack.enter_context(stopping(index))
        operator = HttpPort(free_port())
        stack.enter_context(running_operator(operator.port))
        index.live()
        router.ready("/readyz")
        for _ in range(3):
            router.ok("POST", "/v1/completions", {"model": engine.model, "prompt": [7] * 64, "max_tokens": 1})
        index.settled()
        put_engine(api)
        operator.ready("/readyz")
        wait_until("the operator has made a pass", lambda: operator.metric("kvsync_operator_passes_total", result="ok"))
        wait_until("the reports have arrived", lambda: index.metric("kvsync_indexer_prediction_requests_total") >= 2)
        yield {name: port.ok("GET", "/metrics") for name, port in
               {"engine": engine, "index": index, "router": router, "operator": operator}.items()}  # fmt: skip


class running_operator:  # noqa: N801 - used as a context manager
    """The operator on the API server of KUBECONFIG."""

    def __init__(self, port):
        flags = ["--namespace", "lab", "--http-host", "127.0.0.1", "--http-port", str(port)]
        self._command = [sys.executable, "-m", "kvsync_operator.main", *flags]

    def __enter__(self):
        self._process = subprocess.Popen(self._command, env=os.environ, stderr=subprocess.DEVNULL)

    def __exit__(self, *error):
        self._process.terminate()
        self._process.wait(30)


def put_engine(api):
    """A MockEngine, so that the operator has something to do."""
    metadata = {"name": "engine", "namespace": "lab"}
    spec = {"replicas": 1, "model": {"name": "m"}}
    api.put({"apiVersion": "kvsync.dev/v1alpha1", "kind": "MockEngine", "metadata": metadata, "spec": spec})


def documented():
    """The labels of each metric on the page."""
    page = (ROOT / "docs/reference/metrics.md").read_text()
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in DOCUMENTED.findall(page)}


@pytest.fixture(scope="module")
def exported(scraped):
    """Label values by label, by the name of each exported sample.

    A counter with labels has no sample before it first counts. It is then there by its TYPE line, with the labels that
    the page documents.
    """
    declared = {line.split()[2] for text in scraped.values() for line in text.splitlines() if line.startswith("# TYPE")}
    found = {name: {label: set() for label in labels} for name, labels in documented().items() if name in declared}
    for text in scraped.values():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def test_no_process_exports_an_undocumented_metric_or_label(scraped):
    known = documented()
    for process, text in scraped.items():
        names = set()
        for family in text_string_to_metric_families(text):
            if family.name.startswith(STANDARD) or family.name.endswith("_created"):
                continue
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            name = family.name.removesuffix(suffix) + suffix
            names.add(name)
            assert name in known, (process, name)
            for sample in family.samples:
                assert set(sample.labels) - {"le"} <= known[name], (process, sample)
        assert names, process


def test_every_documented_metric_is_exported_by_the_process_of_its_section(scraped):
    declared = {line.split()[2] for text in scraped.values() for line in text.splitlines() if line.startswith("# TYPE")}
    assert documented().keys() - declared == {"kvsync_mockpod_faults_total"}, "faults are exported once there was one"


def expressions():
    """Every query of a dashboard and every expression of a rule, with a name for the test."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield pytest.param(target["expr"], id=f"{path.stem}-{panel['title']}-{target['refId']}")
    for rule in rules():
        yield pytest.param(rule["expr"], id=rule.get("alert") or rule["record"])


def rules():
    """The rules of the chart."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_names_only_what_is_exported(exported, expression):
    assert list(problems(expression, exported)) == []


def problems(expression, exported):
    """What a PromQL expression names that `exported` has not."""
    recorded = {each["record"]: re.findall(r"by \(([^)]*)\)", each["expr"]) for each in rules() if "record" in each}
    named, labels = selectors(expression)
    if not named:
        yield "the expression names no metric"
    known = set(TARGET_LABELS)
    for name, matchers in named:
        if name in recorded or name in OWN_OF_PROMETHEUS:
            known |= {label.strip() for group in recorded.get(name, ()) for label in group.split(",")}
            continue
        if name not in exported:
            yield f"no process exports {name}"
            continue
        known |= exported[name].keys()
        for label, operator, value in matchers:
            values = exported[name].get(label)
            if values is None:
                yield f"{name} has no label {label}"
            elif label in FIXED_VALUES:
                wanted = value.split("|") if operator == "=~" else [value]
                yield from (f"{name} has no {label}={each}" for each in wanted if each not in values)
    yield from (f"nothing here has the label {label}" for label in sorted(labels - known))


def selectors(expression):
    """([(metric, [(label, operator, value)])], labels that are grouped by)."""
    texts = re.findall(r'"([^"]*)"', expression)
    numbers = iter(range(len(texts)))
    rest = re.sub(r'"[^"]*"', lambda _: f'"{next(numbers)}"', expression)
    groups = re.findall(r"\b(?:by|on|ignoring|group_left)\s*\(([^)]*)\)", rest)
    labels = {label.strip() for group in groups for label in group.split(",") if label.strip()}
    rest = re.sub(r"\b(?:by|on|ignoring|group_left)\s*\([^)]*\)|\[[^\]]*\]", " ", rest)
    named = []
    for name, given in re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?", rest):
        if name not in KEYWORDS:
            matchers = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(\d+)"', given)
            named.append((name, [(label, how, texts[int(at)]) for label, how, at in matchers]))
    return named, labels


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum by (publisher) (kvsync_indexer_lag)", "no process exports kvsync_indexer_lag"),
        ("max by (pod_name) (kvsync_indexer_sequence_lag)", "nothing here has the label pod_name"),
        ('kvsync_indexer_publisher_state{state="dead"}', "kvsync_indexer_publisher_state has no state=dead"),
        ('rate(kvsync_indexer_gaps_total{reason="x"}[5m])', "kvsync_indexer_gaps_total has no label reason"),
        ("1 > 2", "the expression names no metric"),
    ],
)
def test_the_check_of_expressions_can_fail(exported, expression, problem):
    assert problem in list(problems(expression, exported))


def test_every_alert_has_a_test_that_fires_one_that_does_not_and_a_runbook():
    tests = {test["name"] for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]}
    operations = (ROOT / "docs/operations.md").read_text()
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert tests == {f"{alert} {what}" for alert in alerts for what in ("fires", "stays quiet")}
    for alert, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{alert.lower()}"
        assert f"### {alert}\n" in operations, f"docs/operations.md has no entry for {alert}"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_the_rules_their_tests_and_every_dashboard_query(tmp_path):
    queries = [json.loads(path.read_text())["panels"] for path in DASHBOARDS]
    recorded = [
        {"record": f"dashboard:query:{number}", "expr": target["expr"]}
        for number, target in enumerate(target for panels in queries for panel in panels for target in panel["targets"])
    ]
    dashboards = tmp_path / "dashboards.yaml"
    dashboards.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": recorded}]}))
    for command in (["check", "rules", RULES, dashboards], ["test", "rules", RULE_TESTS]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
