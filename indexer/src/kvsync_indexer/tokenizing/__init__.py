"""From the text of a prompt to its tokens, by the tokenizer that is chosen for the model.

Every tokenizer takes the body of an engine's `/tokenize` request, so that a prompt means the same to all of them.

- `registry`: the tokenizers of an index, by model
- `remote`, `turns`: an engine's `/tokenize`, and which engine is asked
- `local`: runs one of the following in threads, with a time limit
- `mock`: the text of mock engines
- `huggingface`, `templates`, `conversation`, `contents`: a Hugging Face folder and its chat templates
"""

from kvsync_indexer.tokenizing.registry import Tokenizers
from kvsync_indexer.tokenizing.tokenized import Tokenized

__all__ = ["Tokenized", "Tokenizers"]
