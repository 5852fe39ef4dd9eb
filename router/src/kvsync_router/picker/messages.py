"""The messages of Envoy's external processing protocol, read and built. Their meaning is known by `exchange`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec
from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingResponse,
    TrailersResponse,
)

from kvsync_router.decisions.subset import SUBSET_HEADER, entries_of
from kvsync_router.errors import PickerProtocolError, RequestRefusedError

DESTINATION: Final = "x-gateway-destination-endpoint"
"""The header and the metadata key with the addresses that the gateway tries in order."""
SERVED: Final = "x-gateway-destination-endpoint-served"
"""The metadata key with the address that answered."""
"""The metadata key with the addresses that may be picked."""
SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"
NAMESPACE: Final = "envoy.lb"
PIECE_BYTES: Final = 62_000
"""Longest piece of a body in one message. The limit is that of the reference picker of the Gateway API."""
MAX_HEADERS: Final = 1000
"""Envoy itself accepts 100 headers unless it is told otherwise."""

STREAMED: Final[int] = ProcessingMode.FULL_DUPLEX_STREAMED
BUFFERED: Final[tuple[int, ...]] = (ProcessingMode.BUFFERED, ProcessingMode.BUFFERED_PARTIAL)

_OVERWRITE: Final = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


@dataclass(frozen=True, slots=True)
class Modes:
    """How the gateway sends bodies. A gateway that does not say so streams them, as the Gateway API demands."""

    request: int = STREAMED
    response: int = STREAMED

    @property
    def request_is_streamed(self) -> bool:
        """The body comes in pieces that have to be sent back, and the headers may be answered after it."""
        return self.request == STREAMED

    @property
    def request_is_buffered(self) -> bool:
        """The body comes in one message after the headers have been answered."""
        return self.request in BUFFERED

    @property
    def response_is_streamed(self) -> bool:
        """Pieces of the answer have to be sent back."""
        return self.response == STREAMED


def modes_of(message: Any) -> Modes:  # noqa: ANN401
    """The body modes that the first message of a stream names."""
    if not message.HasField("protocol_config"):
        return Modes()
    return Modes(message.protocol_config.request_body_mode, message.protocol_config.response_body_mode)


def check_headers(headers: Any) -> None:  # noqa: ANN401
    """Raise RequestRefusedError with status 431 if a request has more than `MAX_HEADERS` headers."""
    count = len(headers.headers.headers)
    if count > MAX_HEADERS:
        raise RequestRefusedError(
            431, f"the request has {count} headers, more than {MAX_HEADERS}", "invalid_request_error", code="431"
        )


def header_values(headers: Any) -> dict[str, str]:  # noqa: ANN401
    """The first `MAX_HEADERS` headers, with names in lower case; of a repeated header the first value."""
    found: dict[str, str] = {}
    for entry in islice(headers.headers.headers, MAX_HEADERS):
        name = entry.key.lower()
        if name not in found:
            found[name] = entry.raw_value.decode("latin-1") or entry.value
    return found


def subset_hint(message: Any) -> list[str] | None:  # noqa: ANN401
    """The addresses that the gateway permits, as it wrote them; None if it permits all.

    A hint is a list or a comma-separated string. A hint of another type permits nothing, because it cannot be obeyed.
    """
    namespaces = message.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in namespaces:
        return None
    fields = namespaces[SUBSET_NAMESPACE].fields
    if SUBSET_HEADER not in fields:
        return None
    value = fields[SUBSET_HEADER]
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return entries_of(value.string_value)
    if kind == "list_value":
        return entries_of(each.string_value for each in value.list_value.values)
    return []


def served_address(message: Any) -> str | None:  # noqa: ANN401
    """The address that answered, if the gateway says so."""
    namespaces = message.metadata_context.filter_metadata
    if NAMESPACE not in namespaces:
        return None
    fields = namespaces[NAMESPACE].fields
    return (fields[SERVED].string_value or None) if SERVED in fields else None


def phase_of(message: Any) -> str:  # noqa: ANN401
    """The name of the field that the message carries. Raises PickerProtocolError if there is none."""
    phase: str | None = message.WhichOneof("request")
    if phase is None:
        raise PickerProtocolError("the message has no part of a request or an answer")
    return phase


def routed(destination: str, headers: Mapping[str, str]) -> CommonResponse:
    """What sets the destination and further headers of a request, and lets the gateway choose the route again."""
    common = with_headers({DESTINATION: destination, **headers})
    common.clear_route_cache = True
    return common


def with_headers(headers: Mapping[str, str]) -> CommonResponse:
    """What sets headers and nothing else."""
    common = CommonResponse()
    _overwrite(common.header_mutation, headers)
    return common


def without_header(name: str) -> CommonResponse:
    """What removes a header and nothing else."""
    common = CommonResponse()
    common.header_mutation.remove_headers.append(name)
    return common


def with_destination(response: ProcessingResponse, destination: str) -> ProcessingResponse:
    """Let `response` set the metadata that agrees with the header."""
    fields = response.dynamic_metadata.fields[NAMESPACE].struct_value.fields
    fields[DESTINATION].string_value = destination
    return response


def headers_answer(common: CommonResponse | None = None, *, of_answer: bool = False) -> ProcessingResponse:
    """The answer to the headers of a request, or of an answer."""
    response = HeadersResponse() if common is None else HeadersResponse(response=common)
    return ProcessingResponse(response_headers=response) if of_answer else ProcessingResponse(request_headers=response)


def body_answer(common: CommonResponse | None = None, *, of_answer: bool = False) -> ProcessingResponse:
    """The answer to a body that the gateway keeps."""
    response = BodyResponse() if common is None else BodyResponse(response=common)
    return ProcessingResponse(response_body=response) if of_answer else ProcessingResponse(request_body=response)


def trailers_answer(*, of_answer: bool = False) -> ProcessingResponse:
    """The answer to trailers."""
    if of_answer:
        return ProcessingResponse(response_trailers=TrailersResponse())
    return ProcessingResponse(request_trailers=TrailersResponse())


def echoes(body: bytes, *, end: bool, of_answer: bool = False) -> Iterator[ProcessingResponse]:
    """A piece of a body that has to be sent back, in messages of at most `PIECE_BYTES`. `end`: it is the last one."""
    for start in range(0, max(len(body), 1), PIECE_BYTES):
        response = body_answer(of_answer=of_answer)
        part = response.response_body if of_answer else response.request_body
        streamed = part.response.body_mutation.streamed_response
        streamed.body = body[start : start + PIECE_BYTES]
        streamed.end_of_stream = end and start + PIECE_BYTES >= len(body)
        yield response


def refusal(error: RequestRefusedError, headers: Mapping[str, str]) -> ProcessingResponse:
    """The answer to the client in place of an engine's, in the form that OpenAI clients expect."""
    response = ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = error.status
    immediate.body = msgspec.json.encode(error.body())
    immediate.details = "kvsync_picker"
    _overwrite(immediate.headers, {"content-type": "application/json", **headers})
    return response


def _overwrite(mutation: HeaderMutation, headers: Mapping[str, str]) -> None:
    """Replace these headers, whoever has set them before."""
    for name, value in headers.items():
        option = mutation.set_headers.add(append_action=_OVERWRITE)
        option.header.key = name
        option.header.raw_value = value.encode("latin-1", "replace")
