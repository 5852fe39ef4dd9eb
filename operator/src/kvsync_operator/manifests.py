"""Generates files from the models: the CRDs, the templates of the CRD chart, and the CRD reference.

    python -m kvsync_operator.manifests [ROOT] [--check]

`make manifests` writes the files. With `--check`, as in `make verify`, nothing is written: the stale files are named
and the exit code is 1.
"""

import sys
from pathlib import Path

import yaml

from kvsync_operator.crds import KINDS, Kind, build_crd
from kvsync_operator.reference import render_reference

_HEADER = "# Generated from the pydantic models by `make manifests`. Do not edit.\n"
_CHART_HEADER = '{{- /* Generated from the pydantic models by "make manifests". Do not edit. */ -}}\n'
_CHART_ANNOTATIONS = """\
  annotations:
    {{- if .Values.keep }}
    helm.sh/resource-policy: keep
    {{- end }}
    {{- with .Values.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
"""


class _Dumper(yaml.SafeDumper):
    """Indents lists under their key, writes texts of several lines as blocks, and uses no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def dump_yaml(document: object) -> str:
    """Return `document` as YAML. The order of keys is kept, and long texts are folded."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _chart_template(kind: Kind) -> str:
    crd = dump_yaml(build_crd(kind)).replace("metadata:\n", "metadata:\n" + _CHART_ANNOTATIONS, 1)
    return f"{_CHART_HEADER}{{{{- if .Values.enabled }}}}\n{crd}{{{{- end }}}}\n"


def generate() -> dict[str, str]:
    """Return the content of every generated file by its path relative to the root of the repository."""
    files: dict[str, str] = {}
    for kind in KINDS:
        files[f"config/crd/bases/kvsync.dev_{kind.plural}.yaml"] = _HEADER + dump_yaml(build_crd(kind))
        files[f"charts/kvsync-crds/templates/{kind.plural}.yaml"] = _chart_template(kind)
        files[f"docs/reference/{kind.singular}.md"] = render_reference(kind)
    return files


def main(arguments: list[str]) -> int:
    """Write or check the files and return the exit code: 0, 1 if a file is stale, 2 for wrong usage."""
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    if len(rest) > 1 or any(argument.startswith("-") for argument in rest):
        print("usage: python -m kvsync_operator.manifests [ROOT] [--check]", file=sys.stderr)
        return 2
    root = Path(rest[0] if rest else ".")
    stale = 0
    for path, content in generate().items():
        file = root / path
        if file.is_file() and file.read_text() == content:
            continue
        stale += 1
        if check:
            print(f"{path} is stale: run `make manifests`", file=sys.stderr)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            print(f"wrote {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
