"""A mock LLM engine pod: vLLM's HTTP surface, scheduler and KV events, without a GPU.

`engine` is the scheduler and block pool, free of I/O. `text` has the tokenizer and the generated text, `publish` the
event sockets, `pod` the live drivers, `http` the API. `metrics`, `faults` and `config` serve all of them.
"""

__version__ = "0.1.0"
