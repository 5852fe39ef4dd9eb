"""The reference page of the publishers file, generated from the model that reads it.

python -m kvsync_indexer.publishers_reference docs/reference/publishers-file.md           writes the page
python -m kvsync_indexer.publishers_reference --check docs/reference/publishers-file.md   exits with 1 if it is outdated
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvsync_indexer.publishers_file import MAX_FILE_BYTES, PublisherEntry

HEAD = """<!-- Generated from kvsync_indexer.publishers_file by `make manifests`. Do not edit. -->
# The publishers file

`kvsync-indexer --publishers FILE` and `kvsync-router --publishers FILE` read which engines there are. A publisher is
one stream of events: an engine without data parallelism is one, and otherwise each rank is. The file is YAML:

```yaml
- name: vllm-0
  model: meta-llama/Llama-3.1-8B-Instruct
  endpoint: tcp://10.0.0.5:5557
  replay_endpoint: tcp://10.0.0.5:5558
  http_url: http://10.0.0.5:8000
- name: vllm-1/0                     # rank 0 of the server vllm-1
  model: meta-llama/Llama-3.1-8B-Instruct
  endpoint: tcp://10.0.0.6:5557
  replay_endpoint: tcp://10.0.0.6:5600
  http_url: http://10.0.0.6:8000
- name: vllm-1/1
  model: meta-llama/Llama-3.1-8B-Instruct
  endpoint: tcp://10.0.0.6:5558      # the port of the rank before, plus 1
  replay_endpoint: tcp://10.0.0.6:5601
  http_url: http://10.0.0.6:8000
```

The list may also stand under the single key `publishers`. The file has at most {size} MiB, and is read again when it
changes. A file that cannot be used ends the program at its start, with one line that names the entry and the field and
with exit code 2; a bad version that appears later is logged, and the publishers of the last good version stay.

## Fields

|field|type|default|meaning|
|---|---|---|---|
"""
TAIL = """
A key in the file can be read by everybody who can read the file. `--engine-api-key-file` keeps one key for all engines
in a file of its own ([Security](../security.md)). The index never connects to link-local addresses or to the metadata
service of a cloud.

With `bind: true` and a `*` in place of the host, the endpoint is bound on every address. vLLM connects its publisher
unless its own endpoint contains `*` or `::`.
"""


def page() -> str:
    """The page as Markdown."""
    schema = PublisherEntry.model_json_schema()
    required = set(schema["required"])
    rows = [_row(name, field, required=name in required) for name, field in schema["properties"].items()]
    return HEAD.format(size=MAX_FILE_BYTES >> 20) + "\n".join(rows) + "\n" + TAIL


def _row(name: str, field: Mapping[str, Any], *, required: bool) -> str:
    default = field.get("default")
    shown = "**required**" if required else "" if default is None else f"`{json.dumps(default)}`"
    meaning = " ".join(field["description"].split()).replace("|", r"\|")
    return f"|`{name}`|{_type(field)}|{shown}|{meaning}|"


def _type(field: Mapping[str, Any]) -> str:
    """The type of a field with its bounds, as words; null means that the field may be left out."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return r" \| ".join(_kind(kind) for kind in kinds)


def _kind(kind: Mapping[str, Any]) -> str:
    if "enum" in kind:
        return r" \| ".join(f"`{value}`" for value in kind["enum"])
    text = str(kind["type"])
    if "minimum" in kind and "maximum" in kind:
        text += f", {kind['minimum']} to {kind['maximum']}"
    if "maxLength" in kind:
        text += f", at most {kind['maxLength']} characters"
    if "pattern" in kind:
        text += f", as `{kind['pattern']}`"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(prog="python -m kvsync_indexer.publishers_reference", description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is outdated")
    options = parser.parse_args(arguments)
    if not options.check:
        options.page.write_text(page(), encoding="utf-8")
    elif not options.page.exists() or options.page.read_text(encoding="utf-8") != page():
        sys.stderr.write(f"{options.page}: is outdated; run make manifests\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
