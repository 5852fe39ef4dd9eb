"""The bodies that clients send, as typed structs: fields that the mock uses, and fields that it only validates.

Fields that are not listed are accepted and ignored, as in vLLM. `/openapi.json` is generated from the same structs.
"""

from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct

I64 = 2**63 - 1
TokenId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Temperature = Annotated[float, Meta(ge=0.0, le=1e6)]
Share = Annotated[float, Meta(gt=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
SignedInt = Annotated[int, Meta(ge=-I64, le=I64)]


class StreamOptions(Struct):
    """`stream_options`."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class SamplingFields(Struct, kw_only=True):
    """Fields of every request that generates tokens."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    seed: SignedInt | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None
    priority: SignedInt = 0
    cache_salt: str | None = None
    prompt_logprobs: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=I64)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    session_id: str | None = None
    request_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    return_token_ids: bool | None = None
    vllm_xargs: dict[str, Any] | None = None
    kv_transfer_params: dict[str, Any] | None = None
    user: str | None = None


class CompletionRequest(SamplingFields, kw_only=True):
    """`POST /v1/completions`."""

    prompt: (
        str | Annotated[list[TokenId | str | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)] | None
    ) = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = 16
    echo: bool | None = False
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: Count | None = None


class TemplateFields(Protocol):
    """The fields that decide how messages become a prompt. The mock's tokenizer adds no special tokens."""

    tools: list[dict[str, Any]] | None
    chat_template: str | None
    add_generation_prompt: bool
    continue_final_message: bool


class ChatRequest(SamplingFields, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, dict[str, Any]] | None = None
    echo: bool = False
    reasoning_effort: str | None = None
    documents: list[dict[str, Any]] | None = None


class TokenizeRequest(Struct, kw_only=True):
    """`POST /tokenize`: a `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, dict[str, Any]] | None = None
    return_token_strs: bool | None = False


class DetokenizeRequest(Struct, kw_only=True):
    """`POST /detokenize`."""

    tokens: list[TokenId]
    model: str | None = None


class LoadLoraRequest(Struct, kw_only=True):
    """`POST /v1/load_lora_adapter`."""

    lora_name: Annotated[str, Meta(max_length=256)]
    lora_path: Annotated[str, Meta(max_length=4096)]
    load_inplace: bool = False


class UnloadLoraRequest(Struct, kw_only=True):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: Annotated[str, Meta(max_length=256)]
    lora_int_id: int | None = None


class ResponsesRequest(Struct, kw_only=True):
    """`POST /v1/responses`."""

    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    stream: bool | None = False
    store: bool | None = True
    previous_response_id: str | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    priority: SignedInt = 0
    cache_salt: str | None = None
    request_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    seed: SignedInt | None = None
    ignore_eos: bool = False


class CountTokensRequest(Struct, kw_only=True):
    """`POST /v1/messages/count_tokens`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


class MessagesRequest(Struct, kw_only=True):
    """`POST /v1/messages` (Anthropic's shape)."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str
    max_tokens: Count
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=64)] | None = None
    stream: bool | None = False
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None
