"""The HTTP surface: the paths of vLLM, with requests and responses in OpenAI's form."""
