"""Integration test 18: service by priority, first come first served among equals, and the limits of starvation."""

import pytest

from kvsync_testkit.scheduler import RecordingLatency, SchedulerBuilder, make_request


def order_of_service(driver):
    seen = []
    for step in driver.steps:
        seen += [rid for rid in step.hits if rid not in seen]
    return seen


def test_18_one_slot_is_served_by_priority_then_arrival():
    driver = SchedulerBuilder(policy="priority", max_num_seqs=1).build()
    plan = [("low", 5), ("b", 1), ("a", 1), ("top", -3), ("c", 1)]
    for i, (rid, priority) in enumerate(plan):
        driver.add(make_request(rid, max_tokens=3, priority=priority, arrival_s=float(i)))
    driver.until_idle()
    assert order_of_service(driver) == ["top", "b", "a", "c", "low"]


def test_18_fcfs_ignores_priority():
    driver = SchedulerBuilder(max_num_seqs=1).build()
    for i, (rid, priority) in enumerate([("x", 5), ("y", -1), ("z", 0)]):
        driver.add(make_request(rid, max_tokens=2, priority=priority, arrival_s=float(i)))
    driver.until_idle()
    assert order_of_service(driver) == ["x", "y", "z"]


def test_18_a_full_batch_is_not_preempted_for_a_better_priority():
    driver = SchedulerBuilder(policy="priority", max_num_seqs=1, latency=RecordingLatency(0.01)).build()
    driver.add(make_request("slow", max_tokens=10, priority=9))
    driver.step()
    driver.add(make_request("urgent", max_tokens=2, priority=-9, arrival_s=driver.now))
    driver.until_idle()
    assert not any(step.preempted for step in driver.steps)
    slow, urgent = driver.outcomes["slow"], driver.outcomes["urgent"]
    assert urgent.arrived_s == pytest.approx(0.01)
    assert slow.finished_s == pytest.approx(0.10)
    assert urgent.token_times == pytest.approx([0.11, 0.12]), "served from the step after the slow one's last"
    assert order_of_service(driver) == ["slow", "urgent"]


def test_18_starvation_lasts_exactly_as_long_as_better_requests_keep_coming():
    driver = SchedulerBuilder(policy="priority", max_num_seqs=1, latency=RecordingLatency(0.01)).build()
    driver.add(make_request("patient", max_tokens=2, priority=1))
    for i in range(12):
        driver.add(make_request(f"better{i}", max_tokens=2, priority=0, arrival_s=driver.now))
        driver.step()
    assert "patient" not in order_of_service(driver)
    driver.until_idle()
    assert order_of_service(driver)[-1] == "patient"
    patient = driver.outcomes.pop("patient")
    assert patient.reason == "length"
    assert patient.token_times[0] == pytest.approx(max(o.finished_s for o in driver.outcomes.values()) + 0.01)


def test_out_of_blocks_the_worst_priority_goes_first_and_returns_to_its_place():
    driver = SchedulerBuilder(policy="priority", num_gpu_blocks=12, max_model_len=160).build()
    for i, priority in enumerate([0, 7, 3]):
        driver.add(make_request(f"p{priority}", n=40, max_tokens=80, priority=priority, arrival_s=float(i)))
    driver.until_idle()
    preempted = [rid for step in driver.steps for rid in step.preempted]
    assert preempted[0] == "p7"
    assert "p0" not in preempted
    assert all(len(o.tokens) == 80 for o in driver.outcomes.values())
