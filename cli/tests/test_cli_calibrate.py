"""`kvsync calibrate`: known coefficients are found again, from probes and logs, with disturbances among them."""

import json
import random
from itertools import pairwise

import pytest
from cli_helpers import invoke, one_line

from kvsync.calibration.answers import Answer, read_bench
from kvsync.calibration.fit import fit_latency, solve
from kvsync.calibration.probe import make_probe
from kvsync.calibration.samples import decode_samples, prefill_samples
from kvsync.errors import UsageProblemError
from kvsync_mockpod.engine import EngineConfigError, StepLoad
from kvsync_mockpod.engine.latency import make_latency
from kvsync_mockpod.latency_file import read_latency

TRUE = {
    "prefill_us": 5000.0,
    "prefill_token_us": 20.0,
    "prefill_token2_us": 0.002,
    "decode_us": 3000.0,
    "decode_seq_us": 110.0,
    "kv_token_us": 0.05,
}


def prefill_s(tokens):
    return (TRUE["prefill_us"] + TRUE["prefill_token_us"] * tokens + TRUE["prefill_token2_us"] * tokens**2) / 1e6


def step_s(context, sequences):
    return (TRUE["decode_us"] + TRUE["decode_seq_us"] * sequences + TRUE["kv_token_us"] * context) / 1e6


def measured(rng, noise=0.0, clumped=1):
    """What a client would see of an engine with the TRUE coefficients; tokens may arrive in clumps."""
    answers, now = [], 0.0

    def disturbed(seconds):
        return seconds * (1 + (rng.random() * 3 if rng.random() < noise else 0.0))

    for tokens in [64, 128, 256, 512, 1024, 2048, 4096, 8192] * 3:
        ttft = disturbed(prefill_s(tokens))
        answers.append(Answer(now, tokens, ttft, (step_s(tokens, 1),)))
        now += ttft + 1
    for sequences in (1, 2, 4, 8, 16):
        for tokens in (64, 512, 2048):
            starts, times = [now] * sequences, [[] for _ in range(sequences)]
            now += 0.5
            for step in range(64):
                now += disturbed(step_s(sequences * (tokens + step), sequences)) if step else 0.0
                if step % clumped == 0:
                    for each in times:
                        each += [now] * min(clumped, 64 - step)
            for start, each in zip(starts, times, strict=True):
                gaps = tuple(after - before for before, after in pairwise(each))
                answers.append(Answer(start, tokens, each[0] - start, gaps))
            now += 1
    return answers


@pytest.mark.parametrize(("noise", "clumped", "within"), [(0.0, 1, 0.02), (0.1, 1, 0.2), (0.0, 4, 0.1)])
def test_known_coefficients_are_found_again(noise, clumped, within):
    answers = measured(random.Random(7), noise, clumped)
    fit = fit_latency(prefill_samples(answers), decode_samples(answers))
    model = make_latency(fit.coefficients)
    for tokens in (100, 1000, 8000):
        found = model.step_s(StepLoad(tokens, 0, 0, 1))
        assert found == pytest.approx(prefill_s(tokens), rel=within)
    for sequences, context in ((1, 100), (8, 10_000), (16, 33_000)):
        found = model.step_s(StepLoad(0, sequences, context, 1))
        assert found == pytest.approx(step_s(context, sequences), rel=within)
    assert fit.decode.median <= within
    assert fit.prefill.median <= within
    assert fit.prefill.samples >= 4


def test_no_coefficient_is_below_zero():
    rows = [((1.0, float(n), float(n * n)), 1000.0 - n) for n in range(1, 60)]
    found = solve(rows)
    assert min(found) >= 0
    assert found[0] > 900


def test_prefills_beside_others_are_left_out():
    alone, one, other = Answer(0, 100, 0.1, ()), Answer(5, 200, 0.3, ()), Answer(5.1, 300, 0.3, ())
    assert [sample.prefill_tokens for sample in prefill_samples([alone, one, other])] == [100]


def test_too_few_measurements():
    with pytest.raises(UsageProblemError, match="1 prefills that ran alone: at least 10"):
        fit_latency(prefill_samples([Answer(0, 10, 0.1, ())]), [])


def bench(answers, **fields):
    return {
        "input_lens": [answer.input_tokens for answer in answers],
        "ttfts": [answer.ttft_s for answer in answers],
        "itls": [list(answer.gaps_s) for answer in answers],
        "start_times": [answer.start_s for answer in answers],
        "errors": ["" for _ in answers],
        "duration": 1.0,
        **fields,
    }


def test_a_log_gives_a_profile_that_the_mock_engine_reads(tmp_path):
    log, profile = tmp_path / "bench.json", tmp_path / "profile.json"
    log.write_text(json.dumps(bench(measured(random.Random(3)))))
    code, out, err = invoke("calibrate", log, "-o", profile)
    assert (code, err) == (0, "")
    assert "prefill: median error" in out
    written = json.loads(profile.read_text())
    assert written["error"]["decode"]["samples"] > 0
    found = make_latency(read_latency(str(profile)))
    assert found.model_dump(exclude={"jitter"}) == pytest.approx(written["latency"])


def test_requests_sent_in_turn_need_no_start_times(tmp_path):
    log = tmp_path / "bench.json"
    answers = measured(random.Random(3))[:24]
    log.write_text(json.dumps(bench(answers, start_times=None, max_concurrency=1)))
    assert [answer.start_s for answer in read_bench(log)] == sorted(answer.start_s for answer in read_bench(log))
    log.write_text(json.dumps(bench(answers, start_times=None, max_concurrency=8)))
    with pytest.raises(UsageProblemError, match="no start_times"):
        read_bench(log)


def test_failed_requests_of_a_log_are_left_out(tmp_path):
    log = tmp_path / "bench.json"
    answers = measured(random.Random(3))[:4]
    log.write_text(json.dumps(bench(answers, errors=["", "boom", "", ""])))
    assert len(read_bench(log)) == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give LOG or --target URL"),
        (("nowhere.json",), "nowhere.json: cannot be read"),
        (("empty.json",), "not a detailed result"),
        (("--target", "http://127.0.0.1:9"), "127.0.0.1:9"),
    ],
)
def test_wrong_use(tmp_path, args, words):
    (tmp_path / "empty.json").write_text("{}")
    code, _, err = invoke("calibrate", *args, "-o", "p.json", cwd=tmp_path)
    assert code != 0
    assert words in one_line(err)
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("text", "words"), [(None, "No such file"), ("x", "not JSON"), ("{}", "has no object `latency`")]
)
def test_profiles_that_cannot_be_read(tmp_path, text, words):
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EngineConfigError, match=words):
        read_latency(str(path))


def test_a_probe_stays_within_the_length_of_the_server():
    for length in (20, 100, 2048, None):
        plan = make_probe(length, longest=8192, together=8)
        groups = list(plan.requests())
        assert max(len(group) for group in groups) == 8
        if length is not None and length > 100:
            assert max(tokens + output for group in groups for tokens, output in group) <= length
