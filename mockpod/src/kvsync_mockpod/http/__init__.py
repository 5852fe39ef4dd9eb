"""The HTTP surface: vLLM's paths, OpenAI's shapes."""
