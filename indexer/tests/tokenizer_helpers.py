"""Hugging Face folders for tests: a byte-level tokenizer without merges, and chat templates made for these tests."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<tool>", "</tool>"]
CHATML = """\
{{ bos_token }}
{%- if tools %}
<|im_start|>system
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
<|im_end|>
{% endif %}
{% for m in messages %}
<|im_start|>{{ m.role }}{% if m.name is defined %} {{ m['name'] }}{% endif %}

{{ m.content }}
    {%- for call in m.tool_calls or [] %}
<tool>{{ call | tojson }}{{ call.function.arguments | tojson(indent=1) }}</tool>
    {%- endfor %}
    {%- if m.reasoning_content is defined %}[{{ m.reasoning_content }}]{% endif %}
{%- if not (loop.last and continue_final_message) %}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}
"""
TEMPLATES = {
    "chatml": {"chat_template": CHATML},
    "parts": {
        "chat_template": "{{ bos_token }}{% set rest = messages %}{% if rest[0].role == 'system' %}"
        "{% set rest = rest[1:] %}{% endif %}{% for message in rest %}{{ '<|im_start|>' + message['role'] }}"
        "{% if message['content'] is string %}={{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "({{ part.type }}:{{ part.text }}{{ part.cache_control | default('') | tojson }}){% endfor %}{% endif %}"
        "{{ eos_token }}{% endfor %}{% if documents %}{{ documents | tojson }}{% endif %}"
    },
    "macro": {
        "chat_template": "{% macro show(body) %}{% for part in body %}|{{ part.text }}{% endfor %}{% endmacro %}"
        "{% for m in messages %}{{ m.role }}{{ show(m.content) }}{% generation %}.{% endgeneration %}"
        "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}"
    },
    "stripping": {
        "chat_template": "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
        "{{ raise_exception('a system message must come first') }}{% endif %}<|im_start|>{{ m.content | trim }}"
        "<|im_end|>{% endfor %}"
    },
    "named": {
        "chat_template": [
            {"name": "default", "template": "D{% for m in messages %}{{ m.content }}{% endfor %}"},
            {"name": "tool_use", "template": "T{{ tools | length }}{% for m in messages %}{{ m.content }}{% endfor %}"},
        ]
    },
    "ends": {"chat_template": CHATML, "add_bos_token": False, "add_eos_token": True},
    "developers": {
        "chat_template": "{% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.role == 'developer' %}!"
        "{{ m.tools | tojson }}{% endif %};{% endfor %}"
    },
}
_TOOL = {"function": {"parameters": {"type": "object", "z": 1, "a": "é<&>"}, "name": "get", "x": 1}, "type": "function"}
_USER = {"role": "user", "content": "What is 1+1?"}
_PARTS = {
    "role": "user",
    "name": "ann",
    "content": [{"type": "text", "text": "one", "cache_control": {"type": "e"}}, {"type": "input_text", "text": "two"}],
}
_CALL = {
    "role": "assistant",
    "content": None,
    "reasoning": "hm",
    "tool_calls": [
        {"type": "function", "id": "c1", "function": {"name": "get", "arguments": '{"b": 1, "a": [2]}'}},
        {"id": "c2", "type": "function", "function": {"name": "get", "arguments": "broken"}},
    ],
}
_ANSWER = {
    "role": "tool",
    "tool_call_id": "c1",
    "content": [{"type": "text", "text": "2"}, {"type": "text", "text": "3"}],
}
_SYSTEM = {"role": "system", "content": "Be brief."}
BODIES = {
    "plain": {"prompt": "The capital of <s>France 日本"},
    "bare": {"prompt": "The capital", "add_special_tokens": False},
    "chat": {"messages": [_SYSTEM, _USER]},
    "special": {"messages": [_USER], "add_special_tokens": True},
    "parts": {"messages": [_SYSTEM, _PARTS, {"role": "assistant", "content": "4"}, _USER]},
    "tools": {"messages": [_USER], "tools": [_TOOL]},
    "no_tools": {"messages": [_USER], "tools": []},
    "calls": {"messages": [_USER, _CALL, _ANSWER], "tools": [_TOOL]},
    "no_prompt": {"messages": [_USER], "add_generation_prompt": False},
    "thinking": {
        "messages": [_USER],
        "chat_template_kwargs": {"enable_thinking": False, "unused": 1, "eos_token": "E"},
    },
    "documents": {"messages": [_USER], "chat_template_kwargs": {"documents": [{"title": "t", "text": "d"}]}},
    "continued": {
        "messages": [_USER, {"role": "assistant", "content": "It is "}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "continued_parts": {
        "messages": [
            _USER,
            {"role": "assistant", "content": [{"type": "text", "text": "It"}, {"type": "text", "text": "is"}]},
        ],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "late_system": {"messages": [_USER, _SYSTEM]},
    "developer": {"messages": [_SYSTEM, {"role": "developer", "content": "Obey."}, _USER]},
    "only_developer": {"messages": [{"role": "developer", "content": "Obey."}, _USER]},
    "billing": {"messages": [{"role": "system", "content": "x-anthropic-billing-header: cch=1\nBe brief."}, _USER]},
    "empty": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": None}]},
}


def build_folder(folder, **config):
    """Write `tokenizer.json` and `tokenizer_config.json`, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {text: index for index, text in enumerate([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "</s>"}
    settings["bos_token"] = {
        "__type": "AddedToken",
        "content": "<s>",
        "lstrip": False,
        "rstrip": False,
        "special": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | config))
    return folder
