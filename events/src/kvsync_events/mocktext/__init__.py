"""The text of the mock model: a reversible tokenizer without model files, and a chat template.

The mock engine computes its prompts with it. An index that is told to tokenize for mock engines itself uses the same
code, as an index in front of a real engine loads the engine's own tokenizer files.
"""

from kvsync_events.mocktext.chat import ChatPrompt, MediaPart, render_chat
from kvsync_events.mocktext.tokenizer import EOS, MAX_TOKEN_ID, VOCAB_SIZE, Tokenizer

__all__ = ["EOS", "MAX_TOKEN_ID", "VOCAB_SIZE", "ChatPrompt", "MediaPart", "Tokenizer", "render_chat"]
