"""`make audit-deps`: what it finds fails it, and what it cannot look up is named and does not."""

import importlib.util
import json
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("audit_deps", Path(__file__).parents[1] / "audit_deps.py")
audit_deps = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(audit_deps)
REPORT = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "V-1"}]}, {"name": "b", "skip_reason": "x"}]}


@pytest.fixture
def answers(monkeypatch):
    """What the programs print, by the first word after the interpreter."""
    said = {"-m": (0, json.dumps({"dependencies": []}), ""), "audit": (0, '{"vulnerabilities": {"list": []}}', "")}
    monkeypatch.setattr(audit_deps, "run", lambda command, _folder: said[command[1]])
    monkeypatch.setattr(audit_deps.shutil, "which", lambda _name: "/bin/cargo-audit")
    return said


def test_nothing_found(answers, capsys):
    assert audit_deps.main([]) == 0
    assert capsys.readouterr().out.count("no known vulnerability") == 5


def test_a_vulnerable_package_of_python(answers, capsys):
    answers["-m"] = (1, json.dumps(REPORT), "Found 1 known vulnerability")
    assert audit_deps.main([]) == 1
    assert "dev.lock: a 1: V-1" in capsys.readouterr().out


def test_a_vulnerable_crate(answers, capsys):
    crate = {"package": {"name": "c", "version": "2"}, "advisory": {"id": "R-1"}}
    answers["audit"] = (1, json.dumps({"vulnerabilities": {"list": [crate]}}), "")
    assert audit_deps.main([]) == 1
    assert "native/Cargo.lock: c 2: R-1" in capsys.readouterr().out


def test_data_that_cannot_be_had_is_no_failure_and_no_success(answers, capsys, monkeypatch):
    answers["-m"] = (1, "", "ERROR: connection refused")
    monkeypatch.setattr(audit_deps.shutil, "which", lambda _name: None)
    assert audit_deps.main([]) == 0
    out = capsys.readouterr().out
    assert out.count("LEFT OUT: ") == 5
    assert "LEFT OUT: dev.lock: ERROR: connection refused" in out
    assert "no known vulnerability" not in out
