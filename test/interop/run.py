"""Downloads the vLLM versions to compare with, then runs the comparison: `make test-interop`.

run.py                          every version: codec, hashing, streams, live pod and index
run.py --versions 0.24.0,0.33.0 -- -k codec -x
                                what follows `--` is passed to pytest
"""

import argparse
import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def main() -> int:
    """Exit code of pytest; 2 if a version could not be downloaded."""
    sys.path.insert(0, str(FOLDER))
    from interop_versions import DEFAULT
    from vllm_wheels import FetchError, ensure_source

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", default=os.environ.get("KVSYNC_INTEROP_VERSIONS", DEFAULT))
    parser.add_argument("pytest_args", nargs="*", help="passed on to pytest")
    options = parser.parse_args()
    versions = options.versions.replace(",", " ").split()
    try:
        for version in versions:
            print(f"vLLM {version}: {ensure_source(version)}", flush=True)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ["KVSYNC_INTEROP_VERSIONS"] = " ".join(versions)
    return int(pytest.main([str(FOLDER), "-q", "-p", "no:cacheprovider", *options.pytest_args]))


if __name__ == "__main__":
    sys.exit(main())
