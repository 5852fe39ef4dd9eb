"""`/debug/faults`: reads, sets and clears the fault plan. Also applies the faults of the HTTP side."""

import msgspec

from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.faults.spec import FaultPlan, HttpFailure, SlowTokens, parse_plan
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.errors import HttpError, bad_request, from_decode_error
from kvsync_mockpod.pod import Pod


async def get_faults(pod: Pod, request: Request) -> Response:
    """The plan in force, with its counts."""
    del request
    return json_response(pod.faults.shown())


async def put_faults(pod: Pod, request: Request) -> Response:
    """Replace the plan. Raises `HttpError` 400 naming the field."""
    body = await request.body()
    try:
        plan = parse_plan(msgspec.json.decode(body))
    except msgspec.DecodeError as error:
        raise from_decode_error(error) from None
    except ConfigError as error:
        raise bad_request(str(error), "faults") from None
    pod.set_faults(plan)
    return json_response(pod.faults.shown())


async def clear_faults(pod: Pod, request: Request) -> Response:
    """End all faults and send what they held back; the counts and the log stay."""
    del request
    pod.set_faults(FaultPlan())
    return json_response(pod.faults.shown())


def apply_http_faults(pod: Pod, path: str, *, generates: bool) -> float:
    """The seconds to wait before each token of this request. Raises `HttpError` if the plan demands an error."""
    slow_s = 0.0
    for fault, _ in pod.faults.on_request(path, generates=generates):
        position = pod.ranks[0].log_position()
        if isinstance(fault, HttpFailure):
            pod.faults.record(pod.ranks[0].rank, fault.kind, position, None, status=fault.status, path=path)
            raise HttpError(fault.status, "injected by the fault plan")
        if isinstance(fault, SlowTokens):
            pod.faults.record(pod.ranks[0].rank, fault.kind, position, None, ms=fault.ms, path=path)
            slow_s += fault.ms / 1000
    return slow_s
