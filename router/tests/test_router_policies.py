"""Policies are pure and seeded: what they choose, and that they choose it again."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_router.decisions.policies import POLICY_NAMES, Candidate, make_policy


def names(policy, candidates, count):
    return [policy.choose(100, candidates).name for _ in range(count)]


def test_round_robin_takes_turns_and_survives_leaving_and_joining():
    policy = make_policy("round_robin", 0)
    three = [Candidate("a"), Candidate("b"), Candidate("c")]
    assert names(policy, three, 4) == ["a", "b", "c", "a"]
    assert policy.choose(100, [three[0], three[2]]).name == "c"
    assert names(policy, [*three, Candidate("d")], 3) == ["d", "a", "b"]


def test_random_is_uniform_and_its_seed_decides():
    three = [Candidate("a"), Candidate("b"), Candidate("c")]
    first = names(make_policy("random", 7), three, 600)
    assert first == names(make_policy("random", 7), three[::-1], 600)
    assert first != names(make_policy("random", 8), three, 600)
    assert all(150 < count < 250 for count in Counter(first).values())


def test_least_request_picks_the_idle_one_and_spreads_ties():
    policy = make_policy("least_request", 1)
    busy = Candidate("a", requests=3)
    assert policy.choose(10, [busy, Candidate("b", requests=1), Candidate("c", requests=2)]).name == "b"
    assert set(names(policy, [busy, Candidate("b"), Candidate("c")], 60)) == {"b", "c"}


def test_kv_follows_the_prefix():
    policy = make_policy("kv", 0)
    assert policy.choose(1000, [Candidate("a"), Candidate("b", matched_tokens=512)]).name == "b"


def test_kv_weighs_the_prefix_against_the_load():
    policy = make_policy("kv", 0, 1.0, 0.0)
    holder = Candidate("b", matched_tokens=100, requests=4, prefill_tokens=101)
    assert policy.choose(1000, [Candidate("a"), holder]).name == "a"
    holder = Candidate("b", matched_tokens=100, requests=4, prefill_tokens=99)
    assert policy.choose(1000, [Candidate("a"), holder]).name == "b"


def test_kv_without_matches_fills_caches_evenly():
    policy = make_policy("kv", 0)
    assert policy.choose(10, [Candidate("a", assigned_tokens=5), Candidate("b", assigned_tokens=4)]).name == "b"


def test_unknown_policy_names_the_allowed_ones():
    with pytest.raises(ValueError, match="kv, least_request, round_robin, random"):
        make_policy("kvv", 0)


candidates = st.lists(
    st.builds(
        Candidate,
        name=st.text("abcdef", min_size=1, max_size=3),
        matched_tokens=st.integers(0, 2000),
        requests=st.integers(0, 9),
        prefill_tokens=st.integers(0, 5000),
        decode_tokens=st.integers(0, 5000),
        assigned_tokens=st.integers(0, 10**6),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda candidate: candidate.name,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(candidates, max_size=20), st.sampled_from(POLICY_NAMES), st.integers(0, 5))
def test_same_seed_and_calls_same_choices_whatever_the_order(calls, name, seed):
    forward, backward = make_policy(name, seed), make_policy(name, seed)
    for call in calls:
        chosen = forward.choose(1000, call)
        assert chosen in call
        assert backward.choose(1000, call[::-1]) == chosen
