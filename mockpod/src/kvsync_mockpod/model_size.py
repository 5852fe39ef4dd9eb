"""The size of the model that a mock engine stands for unless it is told otherwise: Llama 3.1 8B (its model card)."""

TOKEN_BYTES = 2 * 32 * 8 * 128 * 2
"""Keys and values of one token: 2 x 32 layers x 8 KV heads x head size 128 x 2 bytes."""
