"""Prints the flags of `vllm serve` and the environment variables of vLLM as JSON. Runs in vLLM's environment."""

import argparse
import json
import sys
from importlib import import_module
from importlib.metadata import version

PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
UTILITIES = ("vllm.utils.argparse_utils", "vllm.utils")
ARITIES = {None: "one", "+": "some", "*": "some", "?": "optional", 0: "none"}


def find(modules, name):
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"no {name} in {', '.join(modules)}")


def describe(action):
    row = {
        "names": sorted(action.option_strings, key=lambda name: (not name.startswith("--"), name.startswith("--no-")))
    }
    row["values"] = ARITIES[action.nargs]
    if action.choices is not None:
        row["choices"] = sorted(str(choice) for choice in action.choices if choice is not None)
    if isinstance(action, argparse._AppendAction):
        row["repeatable"] = True
    return row


def main():
    parser = find(PARSERS, "make_arg_parser")(find(UTILITIES, "FlexibleArgumentParser")())
    flags = [describe(action) for action in parser._actions if action.option_strings and action.dest != "help"]
    variables = import_module("vllm.envs").environment_variables
    found = {
        "source": f"vLLM {version('vllm')}, the parser of `vllm serve`",
        "flags": sorted(flags, key=lambda row: row["names"][0]),
        "variables": sorted(name for name in variables if name.startswith("VLLM_")),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
