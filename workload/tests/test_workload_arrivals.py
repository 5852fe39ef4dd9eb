"""Arrival times: the first at 0, the same for one seed, and settings that are refused."""

import pytest

from kvsync_workload.arrivals import Arrivals, arrival_times
from kvsync_workload.errors import SettingError
from kvsync_workload.trace import TraceRequest

REQUESTS = [TraceRequest(at_s, 512, 1, (1,)) for at_s in (0.0, 1.0, 3.0)]


def test_times_of_the_trace_and_of_a_fixed_rate():
    assert arrival_times(REQUESTS, Arrivals(speed=2.0), 0) == [0.0, 0.5, 1.5]
    assert arrival_times(REQUESTS, Arrivals("rate", rate=4.0), 0) == [0.0, 0.25, 0.5]


def test_poisson_arrivals_begin_at_zero_and_have_the_given_rate():
    many = REQUESTS[:1] * 4001
    times = arrival_times(many, Arrivals("poisson", rate=10.0), 1)
    assert times[0] == 0.0
    assert times == sorted(times)
    assert times[-1] == pytest.approx(400.0, rel=0.1)
    assert times == arrival_times(many, Arrivals("poisson", rate=10.0), 1)
    assert times != arrival_times(many, Arrivals("poisson", rate=10.0), 2)


def test_a_report_describes_the_factor_in_effect():
    assert Arrivals(speed=2.0).describe() == {"kind": "trace", "speed": 2.0, "max_in_flight": None}
    assert Arrivals("rate", rate=3.0, max_in_flight=4).describe() == {"kind": "rate", "rate": 3.0, "max_in_flight": 4}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"speed": 0}, "speed 0"),
        ({"kind": "rate", "rate": -1}, "rate -1"),
        ({"kind": "poisson", "rate": float("inf")}, "rate inf"),
        ({"kind": "burst"}, "must be trace, rate or poisson"),
        ({"max_in_flight": 0}, "max_in_flight 0"),
    ],
)
def test_a_bad_setting_is_one_clear_error(settings, says):
    with pytest.raises(SettingError) as caught:
        Arrivals(**settings)
    assert says in str(caught.value)
