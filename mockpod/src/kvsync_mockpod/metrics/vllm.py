"""vLLM's metrics of one engine, with the names, labels and buckets of version 0.33.

What the engine counts itself is read from its statistics when `/metrics` is requested. Only latencies, which need a
clock, are observed as they occur.
"""

from collections.abc import Callable

from kvsync_mockpod.engine import EngineStats
from kvsync_mockpod.metrics.registry import Counter, Family, Gauge, Histogram, format_labels


def _bounds(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


TTFT = _bounds(".001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 160 640 2560")
ITL = _bounds(".01 .025 .05 .075 .1 .15 .2 .3 .4 .5 .75 1 2.5 5 7.5 10 20 40 80")
LATENCY = _bounds(".3 .5 .8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680")
ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
FEW = (1, 2, 5, 10, 20)
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


def _one_two_five(largest: int) -> list[int]:
    """The buckets 1, 2, 5, 10, ... up to `largest` (vLLM's `build_1_2_5_buckets`)."""
    bounds: list[int] = []
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power > largest:
                return bounds
            bounds.append(digit * power)
        power *= 10


class EngineMetrics:
    """The series of one engine; the live driver calls `observe` on its histograms."""

    def __init__(self, model: str, engine: int, max_model_len: int, block_size: int) -> None:
        self._block_size = block_size
        self._base = {"model_name": model, "engine": str(engine)}
        labels = format_labels(self._base)
        tokens = _one_two_five(max_model_len)
        self.ttft = Histogram(TTFT, labels)
        self.itl = Histogram(ITL, labels)
        self.tpot = Histogram(ITL, labels)
        self.e2e = Histogram(LATENCY, labels)
        self.queue = Histogram(LATENCY, labels)
        self.prefill = Histogram(LATENCY, labels)
        self.decode = Histogram(LATENCY, labels)
        self.inference = Histogram(LATENCY, labels)
        self.prompt_lengths = Histogram(tokens, labels)
        self.output_lengths = Histogram(tokens, labels)
        self.iteration = Histogram(ITERATION, labels)
        self.params_n = Histogram(FEW, labels)
        self.params_max_tokens = Histogram(tokens, labels)
        self.preemptions = Histogram((0, 1, 2, 5, 10, 20, 50, 100), labels)
        self.success = {
            reason: Counter(format_labels({**self._base, "finished_reason": reason})) for reason in FINISH_REASONS
        }

    def _labels(self, **more: str) -> str:
        return format_labels({**self._base, **more})

    def families(self, stats: EngineStats, sleep_level: int, config_labels: dict[str, str]) -> list[Family]:
        """All families for one request of `/metrics`."""
        plain = self._labels()

        def gauge(name: str, text: str, *pairs: tuple[float, str]) -> Family:
            return Family(f"vllm:{name}", "gauge", text, [Gauge(_constant(value), labels) for value, labels in pairs])

        def counter(name: str, text: str, *pairs: tuple[float, str]) -> Family:
            series = []
            for value, labels in pairs:
                made = Counter(labels)
                made.value = value
                series.append(made)
            return Family(f"vllm:{name}", "counter", text, series)

        def histogram(name: str, text: str, series: Histogram) -> Family:
            return Family(f"vllm:{name}", "histogram", text, [series])

        states = ("awake", "weights_offloaded", "discard_all")
        cached, tiers = stats.prompt_tokens_cached, stats.tiers
        computed = max(stats.prompt_tokens - cached, 0)
        brought = min((tiers.host_hits + tiers.disk_hits) * self._block_size, cached) if tiers is not None else 0
        asked = stats.prefix_queries - stats.prefix_hits + brought if tiers is not None else 0
        local = cached - brought
        return [
            gauge("num_requests_running", "Requests in the running batch.", (stats.running, plain)),
            gauge("num_requests_waiting", "Requests waiting to be scheduled.", (stats.waiting, plain)),
            gauge(
                "num_requests_waiting_by_reason",
                "Waiting requests by what they wait for.",
                (stats.waiting - stats.waiting_deferred, self._labels(reason="capacity")),
                (stats.waiting_deferred, self._labels(reason="deferred")),
            ),
            gauge("kv_cache_usage_perc", "Share of cache blocks in use, 0 to 1.", (stats.usage, plain)),
            gauge(
                "engine_sleep_state",
                "1 for the state the engine is in.",
                *((float(sleep_level == level), self._labels(sleep_state=name)) for level, name in enumerate(states)),
            ),
            gauge(
                "cache_config_info",
                "Settings of the cache.",
                (1.0, format_labels({**config_labels, "engine": self._base["engine"]})),
            ),
            counter("prefix_cache_queries", "Prompt tokens looked up.", (stats.prefix_queries, plain)),
            counter("prefix_cache_hits", "Prompt tokens found.", (stats.prefix_hits - brought, plain)),
            counter("external_prefix_cache_queries", "Tokens looked up in lower tiers.", (asked, plain)),
            counter("external_prefix_cache_hits", "Tokens found in lower tiers.", (brought, plain)),
            counter("num_preemptions", "Preemptions.", (stats.preemptions, plain)),
            counter("prompt_tokens", "Prompt tokens processed.", (stats.prompt_tokens, plain)),
            counter("prompt_tokens_cached", "Prompt tokens that needed no computing.", (cached, plain)),
            counter(
                "prompt_tokens_by_source",
                "Prompt tokens by where their keys and values came from.",
                (computed, self._labels(source="local_compute")),
                (local, self._labels(source="local_cache_hit")),
                (brought, self._labels(source="external_kv_transfer")),
            ),
            counter(
                "prompt_tokens_cached_by_source",
                "Cached prompt tokens by source.",
                (local, self._labels(source="local_cache_hit")),
                (brought, self._labels(source="external_kv_transfer")),
            ),
            counter("generation_tokens", "Tokens generated.", (stats.generation_tokens, plain)),
            Family("vllm:request_success", "counter", "Requests that ended.", list(self.success.values())),
            histogram("time_to_first_token_seconds", "Arrival to first token.", self.ttft),
            histogram("inter_token_latency_seconds", "Between two tokens.", self.itl),
            histogram("request_time_per_output_token_seconds", "Mean time of an output token.", self.tpot),
            histogram("e2e_request_latency_seconds", "Arrival to last token.", self.e2e),
            histogram("request_queue_time_seconds", "Arrival to first scheduling.", self.queue),
            histogram("request_prefill_time_seconds", "First scheduling to first token.", self.prefill),
            histogram("request_decode_time_seconds", "First token to last.", self.decode),
            histogram("request_inference_time_seconds", "First scheduling to last token.", self.inference),
            histogram("request_prompt_tokens", "Prompt length.", self.prompt_lengths),
            histogram("request_generation_tokens", "Answer length.", self.output_lengths),
            histogram("iteration_tokens_total", "Tokens in a step.", self.iteration),
            histogram("request_params_n", "n of requests.", self.params_n),
            histogram("request_params_max_tokens", "max_tokens of requests.", self.params_max_tokens),
            histogram("request_num_preemptions", "Preemptions of a request.", self.preemptions),
        ]


def _constant(value: float) -> Callable[[], float]:
    return lambda: value
