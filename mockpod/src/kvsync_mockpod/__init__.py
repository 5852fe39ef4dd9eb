"""A mock LLM engine pod: vLLM's HTTP surface, scheduler and KV events, without a GPU.

Packages: `engine` (pure scheduler and block pool), `text` (tokenizer and generated text), `publish`
(event sockets), `pod` (the live drivers), `http` (the API), `metrics`, `faults`, `config`.
"""

__version__ = "0.1.0"
