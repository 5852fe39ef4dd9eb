"""What a gateway sends, for tests of the endpoint picker, and a picker on a real port."""

import asyncio
import contextlib
import json

import grpc
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub
from router_helpers import MODEL, FakeIndex, free_socket

from kvsync_router.config import RouterConfig
from kvsync_router.picker.server import PickerServer
from kvsync_router.routing import Routing
from kvsync_router.sources.directory import InProcessDirectory
from kvsync_router.sources.predictions import InProcessPredictions
from kvsync_router.sources.scoring import InProcessScorer
from kvsync_testkit.waiting import until

DESTINATION = "x-gateway-destination-endpoint"
FULL_DUPLEX, BUFFERED, NONE = ProcessingMode.FULL_DUPLEX_STREAMED, ProcessingMode.BUFFERED, ProcessingMode.NONE
PROMPT = json.dumps({"model": MODEL, "prompt": [1, 2, 3, 4]}).encode()


def request_headers(mode=FULL_DUPLEX, *, end=False, subset=None, answer_mode=None, path="/v1/completions", **headers):
    """The first message of a stream; `mode=None` leaves the protocol configuration out."""
    message = ProcessingRequest()
    for name, value in {":method": "POST", ":path": path, **headers}.items():
        message.request_headers.headers.headers.add(key=name.replace("_", "-"), raw_value=value.encode())
    message.request_headers.end_of_stream = end
    message.request_headers.SetInParent()
    if mode is not None:
        message.protocol_config.request_body_mode = mode
        message.protocol_config.response_body_mode = mode if answer_mode is None else answer_mode
    if subset is not None:
        message.metadata_context.filter_metadata["envoy.lb.subset_hint"].update({f"{DESTINATION}-subset": subset})
    return message


def request_body(body=b"", *, end=True):
    message = ProcessingRequest()
    message.request_body.body = body
    message.request_body.end_of_stream = end
    return message


def request_trailers():
    message = ProcessingRequest()
    message.request_trailers.SetInParent()
    return message


def response_headers(status=200, content_type="application/json", *, served=None, end=False):
    message = ProcessingRequest()
    for name, value in {":status": str(status), "content-type": content_type}.items():
        message.response_headers.headers.headers.add(key=name, raw_value=value.encode())
    message.response_headers.end_of_stream = end
    if served is not None:
        message.metadata_context.filter_metadata["envoy.lb"].update({f"{DESTINATION}-served": served})
    return message


def response_body(body=b"", *, end=True):
    message = ProcessingRequest()
    message.response_body.body = body
    message.response_body.end_of_stream = end
    return message


def response_trailers():
    message = ProcessingRequest()
    message.response_trailers.SetInParent()
    return message


def set_headers(mutation):
    """The headers that a mutation sets; each must replace what was there."""
    assert all(option.append_action == 2 for option in mutation.set_headers)
    return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}


def destination(answer):
    """The destination of an answer, which the header and the metadata must agree on."""
    part = answer.request_body if answer.HasField("request_body") else answer.request_headers
    header = set_headers(part.response.header_mutation)[DESTINATION]
    assert answer.dynamic_metadata["envoy.lb"][DESTINATION] == header
    assert part.response.clear_route_cache
    return header


def address(engine):
    return f"127.0.0.1:{engine.port}"


class Gateway:
    """A gRPC client that plays the gateway."""

    def __init__(self, port, channel, picker, routing):
        self.port, self.picker, self.routing, self._channel = port, picker, routing, channel
        self.stub = ExternalProcessorStub(channel)

    def stream(self):
        return self.stub.Process()

    def raw_stream(self):
        """A stream whose messages are bytes."""
        return self._channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")()

    async def ask(self, *messages, answers):
        """Send messages on a new stream; (the first `answers` answers, the stream)."""
        stream = self.stream()
        for message in messages:
            await stream.write(message)
        return [await stream.read() for _ in range(answers)], stream

    async def pick(self, headers=None, body=PROMPT):
        """The destination of one streamed request, which is then given up."""
        (first, *_), stream = await self.ask(headers or request_headers(), request_body(body), answers=2)
        stream.cancel()
        return destination(first)


@contextlib.asynccontextmanager
async def running_picker(engines, matches=None, *, record=None, single_address=False, credentials=None, **settings):
    """A picker before fake engines, and a client for it."""
    config = RouterConfig.parse({"refresh_s": 0.05, "probe_s": 0.02, **settings})
    index = FakeIndex(engines, matches, record)
    predictions = InProcessPredictions(index) if record is not None else None
    routing = Routing(config, InProcessDirectory(index), InProcessScorer(index), predictions=predictions)
    bound = free_socket()
    port = bound.getsockname()[1]
    picker = PickerServer(routing, bound, None, credentials=credentials, single_address=single_address)
    serving = asyncio.create_task(picker.serve())
    try:
        await until("the picker started", lambda: picker.started or serving.done())
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            yield Gateway(port, channel, picker, routing)
    finally:
        picker.stop(at_once=True)
        await serving
