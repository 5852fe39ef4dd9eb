"""Records the flags of `vllm serve` for the mock engine, from the parser of an installed vLLM.

    python test/fidelity/flags.py [--version 0.33.0] [--python VENV]

The result is mockpod/src/kvsync_mockpod/config/vllm_flags.json. Without --python, the version is installed into the
cache folder first, as for the other fidelity tests.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from environment import EnvironmentFailedError, ensure_environment

from kvsync_events import NEWEST_VERSION

DRIVER = Path(__file__).with_name("vllm_flags_driver.py")
TARGET = Path(__file__).parents[2] / "mockpod" / "src" / "kvsync_mockpod" / "config" / "vllm_flags.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default=NEWEST_VERSION)
    parser.add_argument("--python", help="environment that has vLLM already")
    options = parser.parse_args()
    try:
        python = ensure_environment(options.version, options.python)
    except EnvironmentFailedError as error:
        sys.exit(f"error: {error}")
    done = subprocess.run([str(python), str(DRIVER)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {python} could not describe the parser")
    found = json.loads(done.stdout)
    TARGET.write_text(render(found), encoding="utf-8")
    print(f"{TARGET}: {found['source']}, {len(found['flags'])} flags, {len(found['variables'])} variables")


def render(found):
    """One flag and one variable per line, so that a new version is a readable difference."""
    parts = [f'{{\n"source": {json.dumps(found["source"])},\n"flags": [\n']
    parts.append(",\n".join(json.dumps(row) for row in found["flags"]))
    parts.append('\n],\n"variables": [\n')
    parts.append(",\n".join(json.dumps(name) for name in found["variables"]))
    parts.append("\n]\n}\n")
    return "".join(parts)


if __name__ == "__main__":
    main()
