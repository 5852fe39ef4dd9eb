"""Integration tests 4, 5 and 13: joining and leaving in flight, both limits of a step, work conservation."""

from kvsync_testkit.scheduler import SchedulerBuilder, make_request, run_requests


def test_4_a_short_request_joins_and_leaves_in_flight():
    driver = SchedulerBuilder(max_num_seqs=2).build()
    driver.add(make_request("long", n=8, max_tokens=40))
    for _ in range(5):
        driver.step()
    driver.add(make_request("short", n=8, max_tokens=3), make_request("next", n=8, max_tokens=2))
    driver.until_idle()
    by_step = driver.steps.batches()
    assert by_step[4] == ["long"]
    assert by_step[5] == ["long", "short"]
    left = next(i for i, step in enumerate(driver.steps) if ("short", "length") in step.finished)
    assert by_step[left + 1] == ["long", "next"], "the slot is filled in the next step"
    ends = {rid: step.step for step in driver.steps for rid, _reason in step.finished}
    assert ends["short"] < ends["next"] < ends["long"]


def test_5_no_step_is_over_a_limit_and_a_backlog_reaches_both():
    requests = [make_request(f"r{i}", n=10 + 17 * (i % 9), max_tokens=5 + i % 7) for i in range(60)]
    record = run_requests(requests, max_num_seqs=6, max_num_batched_tokens=64)
    record.steps.assert_limits(max_num_seqs=6, max_num_batched_tokens=64, reached=True)


def test_5_a_long_prompt_is_chunked_by_the_budget():
    record = run_requests([make_request("a", n=300, max_tokens=1)], max_num_batched_tokens=100)
    assert [step.scheduled for step in record.steps[:3]] == [[("a", 100)]] * 3


def test_13_full_while_there_is_backlog():
    requests = [make_request(f"r{i}", n=16, max_tokens=24) for i in range(64)]
    driver = SchedulerBuilder(max_num_seqs=8, max_num_batched_tokens=256).build()
    engine = driver.engine
    driver.add(*requests)
    shares = []
    while engine.has_work():
        backlog = engine.statistics().waiting
        step = driver.step()
        if backlog:
            assert len(step.scheduled) == 8, f"step {step.step} has {backlog} waiting and a free slot"
        if step.scheduled:
            shares.append(len(step.scheduled) / 8)
    assert sum(shares) / len(shares) > 0.7
    assert all(o.reason == "length" for o in driver.outcomes.values())


def test_13_mean_utilisation_of_a_mixed_workload_is_over_70_percent():
    requests = [make_request(f"r{i}", n=8 + 5 * (i % 11), max_tokens=4 + 3 * (i % 13)) for i in range(120)]
    record = run_requests(requests, max_num_seqs=8)
    shares = [len(step.scheduled) / 8 for step in record.steps if step.scheduled]
    assert sum(shares) / len(shares) > 0.7
