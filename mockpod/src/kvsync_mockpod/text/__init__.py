"""The text of the mock model: a reversible tokenizer and a chat template, and answers determined by a seed."""

from kvsync_events.mocktext import EOS, MAX_TOKEN_ID, VOCAB_SIZE, ChatPrompt, MediaPart, Tokenizer, render_chat
from kvsync_mockpod.text.generate import Answer, TextModel

__all__ = [
    "EOS",
    "MAX_TOKEN_ID",
    "VOCAB_SIZE",
    "Answer",
    "ChatPrompt",
    "MediaPart",
    "TextModel",
    "Tokenizer",
    "render_chat",
]
