"""`kvsync doctor --cluster` on a fake API: every problem is reported with a next step."""

import copy

import pytest

from kvsync.checks.cluster import check_cluster
from kvsync.checks.kube import KubeError

API = "/apis/kvsync.dev/v1alpha1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PUBLISHERS = "/api/v1/namespaces/ns/services/idx-index:8090/proxy/v1/publishers"
READY = {"type": "Ready", "status": "True"}


def crd():
    versions = [{"name": "v1alpha1", "served": True}]
    return {"spec": {"versions": versions}, "status": {"conditions": [{"type": "Established", "status": "True"}]}}


def resource(kind, name, *conditions):
    status = {"observedGeneration": 1, "conditions": [READY, *conditions]}
    return {"kind": kind, "metadata": {"name": name, "namespace": "ns", "generation": 1}, "status": status}


def healthy():
    template = {"spec": {"containers": [{"image": "kvsync/operator:0.1.0"}], "serviceAccountName": "op"}}
    operator = {
        "metadata": {"name": "kvsync-operator", "namespace": "ns"},
        "spec": {"replicas": 1, "template": template},
        "status": {"readyReplicas": 1},
    }
    pod = {"metadata": {"name": "eng-0", "namespace": "ns"}, "status": {"conditions": [READY]}}
    return {
        "/version": {"gitVersion": "v1.34.4"},
        f"{CRDS}/mockengines.kvsync.dev": crd(),
        f"{CRDS}/prefixindexes.kvsync.dev": crd(),
        "/apis/apps/v1/deployments": {"items": [operator]},
        f"{API}/mockengines": {"items": [resource("MockEngine", "eng")]},
        f"{API}/prefixindexes": {"items": [resource("PrefixIndex", "idx", {"type": "Synced", "status": "True"})]},
        "/api/v1/pods": {"items": [pod]},
        PUBLISHERS: {"publishers": [{"name": "eng-0", "state": "live", "blocks": 7}]},
    }


class FakeKube:
    """Returns answers from a dictionary; an integer is the status of an error."""

    def __init__(self, answers, forbidden=()):
        self.answers, self.forbidden = answers, forbidden

    def get(self, path, query=None):
        answer = self.answers.get(path, 404)
        if isinstance(answer, int):
            raise KubeError(answer, f"status {answer}")
        return copy.deepcopy(answer)

    def may(self, user, attributes):
        assert user == "system:serviceaccount:ns:op"
        return attributes["resource"] not in self.forbidden


def problems(answers, **kwargs):
    found = [finding for finding in check_cluster(FakeKube(answers, **kwargs)) if finding.level == "problem"]
    assert all(finding.next_step for finding in found)
    return {finding.what: f"{finding.detail} -> {finding.next_step}" for finding in found}


def test_a_healthy_installation_has_no_problem():
    findings = list(check_cluster(FakeKube(healthy())))
    assert {finding.level for finding in findings} == {"ok"}
    assert findings[-1].detail == "1 publishers live, 7 blocks"


def test_no_api_server_ends_the_checks():
    assert list(problems({"/version": 0})) == ["API server"]


def test_missing_crds_end_the_checks():
    answers = healthy()
    del answers[f"{CRDS}/prefixindexes.kvsync.dev"]
    assert problems(answers) == {
        "CRD prefixindexes.kvsync.dev": "is not installed -> helm install kvsync-crds charts/kvsync-crds"
    }


def test_an_old_crd_is_named():
    answers = healthy()
    answers[f"{CRDS}/mockengines.kvsync.dev"]["spec"]["versions"][0]["name"] = "v1alpha0"
    assert "serves v1alpha0, not v1alpha1" in problems(answers)["CRD mockengines.kvsync.dev"]


def test_no_operator_and_missing_permissions():
    answers = healthy()
    assert (
        "op in ns may not patch deployments"
        in problems(answers, forbidden=("deployments",))["permissions of the operator"]
    )
    answers["/apis/apps/v1/deployments"]["items"][0]["status"] = {}
    assert "0 of 1 ready" in problems(answers)["operator ns/kvsync-operator"]
    answers["/apis/apps/v1/deployments"]["items"] = []
    assert "is not installed" in problems(answers)["operator"]


def test_a_resource_reports_its_own_problem():
    answers = healthy()
    degraded = {"type": "Degraded", "status": "True", "message": "two PrefixIndexes want one port"}
    answers[f"{API}/mockengines"]["items"] = [resource("MockEngine", "eng", degraded)]
    del answers[f"{API}/prefixindexes"]["items"][0]["status"]
    found = problems(answers)
    assert "two PrefixIndexes want one port" in found["MockEngine ns/eng"]
    assert "has no status" in found["PrefixIndex ns/idx"]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}, "image": "x:1"}]},
            "make build-images",
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}, "--previous"),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu"}
                ]
            },
            "no cpu",
        ),
        ({"phase": "Pending"}, "describe pod eng-0"),
    ],
)
def test_a_pod_that_is_not_ready_is_explained(status, says):
    answers = healthy()
    answers["/api/v1/pods"]["items"][0]["status"] = status
    assert says in problems(answers)["pod ns/eng-0"]


def test_a_stale_publisher_says_why():
    answers = healthy()
    answers[PUBLISHERS]["publishers"][0] |= {"state": "stale", "reason": "nothing heard for 12 s"}
    assert "nothing heard for 12 s" in problems(answers)["index ns/idx, publisher eng-0"]
    answers[PUBLISHERS]["publishers"] = []
    assert "spec.selector" in problems(answers)["index ns/idx"]
    answers[PUBLISHERS] = 503
    assert "does not answer" in problems(answers)["index ns/idx"]


def test_a_missing_permission_of_the_user_is_a_note_and_not_a_problem():
    answers = healthy() | {"/api/v1/pods": 403, "/apis/apps/v1/deployments": 403, f"{API}/mockengines": 403}
    assert problems(answers) == {}
    notes = [finding.what for finding in check_cluster(FakeKube(answers)) if finding.level == "note"]
    assert notes == ["operator", "mockengines", "pods"]
