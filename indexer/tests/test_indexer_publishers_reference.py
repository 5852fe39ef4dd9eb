"""The reference page of the publishers file: it has every field, and its example can be used."""

import re
from pathlib import Path

from kvsync_indexer.publishers_file import PublisherEntry, parse_publishers
from kvsync_indexer.publishers_reference import main, page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "publishers-file.md"


def test_the_page_is_the_present_one(tmp_path, capsys):
    assert main(["--check", str(PAGE)]) == 0
    (tmp_path / "page.md").write_text("old")
    assert main(["--check", str(tmp_path / "page.md")]) == 1
    assert "make manifests" in capsys.readouterr().err
    assert main([str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text() == PAGE.read_text()


def test_every_field_is_described():
    rows = dict(re.findall(r"^\|`(\w+)`\|.*\|(.*)\|$", page(), re.MULTILINE))
    assert set(rows) == set(PublisherEntry.model_fields)
    assert all(meaning.endswith(".") for meaning in rows.values())


def test_the_example_is_a_file_that_can_be_used():
    (example,) = re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)
    specs = parse_publishers(example, "example")
    assert [(spec.name, spec.pod, spec.rank) for spec in specs] == [
        ("vllm-0", "vllm-0", 0),
        ("vllm-1/0", "vllm-1", 0),
        ("vllm-1/1", "vllm-1", 1),
    ]
