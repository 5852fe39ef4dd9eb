"""The text of the mock model: a reversible tokenizer, a chat template, and answers determined by a seed."""

from kvsync_mockpod.text.chat import ChatPrompt, MediaPart, render_chat
from kvsync_mockpod.text.generate import Answer, TextModel
from kvsync_mockpod.text.tokenizer import EOS, MAX_TOKEN_ID, VOCAB_SIZE, Tokenizer

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
