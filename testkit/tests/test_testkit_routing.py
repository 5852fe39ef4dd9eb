"""I13 on small histories, and a router with each planted bug, which the checker must find."""

import pytest

from kvsync_testkit.checks.routing import Outcome, RequestSent, check_no_departed_target, check_one_outcome


def route(requests: int, bug: str = "") -> tuple[list[RequestSent], list[Outcome]]:
    """The history of a router that answers every request after 10 ms, except for one planted bug."""
    sent = [RequestSent(float(number), number) for number in range(requests)]
    outcomes = [Outcome(number + 0.01, number, "answered", 200, f"engine-{number % 2}") for number in range(requests)]
    if bug == "loses a request":
        del outcomes[3]
    elif bug == "answers twice":
        outcomes.append(outcomes[2])
    elif bug == "gives up when the index is away":
        outcomes[1] = Outcome(1.01, 1, "refused", 503)
    elif bug == "cuts the connection":
        outcomes[1] = Outcome(1.01, 1, "failed")
    elif bug == "answers a stranger":
        outcomes.append(Outcome(9.0, 99, "answered", 200))
    return sent, outcomes


def said(violations) -> list[str]:
    return [str(one) for one in violations]


def test_a_router_without_bugs_passes():
    assert not check_one_outcome(*route(6))


@pytest.mark.parametrize(
    ("bug", "reason"),
    [
        ("loses a request", "request 3 has no outcome"),
        ("answers twice", "request 2 has 2 outcomes"),
        ("gives up when the index is away", "request 1 ended with status 503"),
        ("cuts the connection", "request 1 ended without an answer"),
        ("answers a stranger", "request 99, which was not sent"),
    ],
)
def test_each_planted_bug_is_found(bug, reason):
    found = said(check_one_outcome(*route(6, bug)))
    assert len(found) == 1
    assert reason in found[0]


def test_an_outage_of_the_router_itself_excuses_refusals_only():
    sent, outcomes = route(6, "gives up when the index is away")
    assert not check_one_outcome(sent, outcomes, excused_s=(0.5, 1.5))
    assert check_one_outcome(sent, outcomes, excused_s=(2.5, 3.5))
    sent, outcomes = route(6, "loses a request")
    assert check_one_outcome(sent, outcomes, excused_s=(0.0, 9.0))


def test_a_route_to_a_departed_engine_is_found():
    _, outcomes = route(6)
    assert not check_no_departed_target(outcomes, 3.0, {"engine-1"}, within_s=3.0)
    found = said(check_no_departed_target(outcomes, 3.0, {"engine-1"}, within_s=1.0))
    assert found == ["I13 router: request 5 went to engine-1, gone 2.010 s before"]
