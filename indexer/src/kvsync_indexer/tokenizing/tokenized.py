"""What a tokenizer answers."""

import msgspec


class Tokenized(msgspec.Struct, frozen=True):
    """The tokens of a prompt, in the form of the answer of `/tokenize`."""

    tokens: list[int]
    max_model_len: int | None = None
    """Longest prompt and answer of the model together, in tokens, if the tokenizer knows it."""
