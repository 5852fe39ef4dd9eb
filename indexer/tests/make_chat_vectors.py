"""Makes `vectors/chats.json`: what vLLM's own renderer and `transformers` make of the bodies in `tokenizer_helpers`.

Run with the Python of an environment that has vLLM (recorded with vLLM 0.32.0 and transformers 5.19.0):

    PYTHONPATH=indexer/tests python indexer/tests/make_chat_vectors.py
"""

import copy
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import tokenizer_helpers as helpers
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers.chat_utils import parse_chat_messages
from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template


def render(tokenizer, body):
    """The tokens, by the steps of vLLM's chat endpoint."""
    if "prompt" in body:
        return tokenizer.encode(body["prompt"], add_special_tokens=body.get("add_special_tokens", True))
    request = ChatCompletionRequest.model_validate({"model": "m", **copy.deepcopy(body)})
    config = SimpleNamespace(
        tokenizer_revision=None, revision=None, code_revision=None, tokenizer="m", model="m", trust_remote_code=False,
        enable_prompt_embeds=False, hf_config=SimpleNamespace(model_type="llama"), is_multimodal_model=False,
        multimodal_config=None, allowed_local_media_path="", allowed_media_domains=None,
    )  # fmt: skip
    tools = None if request.tools is None else [tool.model_dump() for tool in request.tools]
    form = resolve_chat_template_content_format(None, tools, "auto", tokenizer, model_config=config)
    conversation, *_ = parse_chat_messages(request.messages, config, content_format=form)
    arguments = dict(body.get("chat_template_kwargs", {}))
    arguments |= {
        "add_generation_prompt": request.add_generation_prompt,
        "continue_final_message": request.continue_final_message,
    }
    text = safe_apply_chat_template(config, tokenizer, conversation, tools=tools, tokenize=False, **arguments)
    return tokenizer.encode(text, add_special_tokens=request.add_special_tokens)


def main():
    """Write the file."""
    made = {}
    with tempfile.TemporaryDirectory() as root:
        for name, config in helpers.TEMPLATES.items():
            tokenizer = AutoTokenizer.from_pretrained(helpers.build_folder(Path(root) / name, **config))
            for label, body in helpers.BODIES.items():
                try:
                    made[f"{name}/{label}"] = render(tokenizer, body)
                except Exception as error:  # noqa: BLE001
                    print(f"{name}/{label}: {type(error).__name__}: {str(error)[:100]}")
                    made[f"{name}/{label}"] = None
    target = Path(__file__).parent / "vectors" / "chats.json"
    target.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(ids, separators=(',', ':'))}" for name, ids in made.items()]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(made), "vectors")


if __name__ == "__main__":
    main()
