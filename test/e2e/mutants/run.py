"""Plants each bug of mutants.yaml in an image, runs the test that must find it, and requires the test to fail.

    .venv/bin/python test/e2e/mutants/run.py [NAME...]        after test/e2e/run.sh, on the same cluster

A mutant is the image under test with one more layer of changed files. It is caught only if the named test fails in its
own body and with the expected message, because a test that fails for another reason proves nothing. The exit code is 1
if a mutant survives. The results are written to out/e2e/mutants.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PACKAGES = "/app"


def settings() -> dict[str, str]:
    """Return the environment of the runs: the settings of `make cluster-up`, overridden by the present environment."""
    name = os.environ.get("KVSYNC_CLUSTER_NAME", "kvsync")
    file = ROOT / "out" / ("cluster.env" if name == "kvsync" else f"cluster-{name}.env")
    lines = [line for line in file.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines) | dict(os.environ)


def newest_tag(image: str) -> str:
    """Return the tag of the image that the suite built last."""
    command = ["docker", "images", "--format", "{{.Tag}}", f"kvsync/{image}"]
    tags = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return next(tag for tag in tags if tag.startswith("e2e"))


def mutated_files(mutant: dict[str, Any]) -> dict[str, str]:
    """Return the changed sources by path; exit if a source does not contain the text to replace exactly once."""
    sources: dict[str, str] = {}
    for change in mutant["changes"]:
        path = change["file"]
        text = sources.get(path) or (ROOT / path).read_text()
        if text.count(change["find"]) != 1:
            sys.exit(f"mutants: {mutant['name']}: {path}: {change['find']!r} occurs {text.count(change['find'])} times")
        sources[path] = text.replace(change["find"], change["put"])
    return sources


def build(mutant: dict[str, Any], tag: str) -> str:
    """Build the image of a mutant and return its name."""
    image = f"kvsync/{mutant['image']}:mutant-{mutant['name']}"
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        recipe = [f"FROM kvsync/{mutant['image']}:{tag}", "USER 0", f"RUN rm -rf {PACKAGES}/kvsync_native"]
        for path, text in mutated_files(mutant).items():
            inside = path.split("/src/", 1)[1]
            target = context / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            # Python does not check the byte code in the image against its source.
            recipe += [
                f"COPY {inside} {PACKAGES}/{inside}",
                f"RUN python3 -m compileall -q -f --invalidation-mode unchecked-hash {PACKAGES}/{inside}",
            ]
        (context / "Dockerfile").write_text("\n".join([*recipe, "USER 65532:65532"]) + "\n")
        subprocess.run(
            ["docker", "build", "-q", "-t", image, folder],
            check=True,
            env=os.environ | {"DOCKER_BUILDKIT": "0"},
            stdout=2,
        )
    return image


def run(mutant: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Build and load a mutant, run its test, and return the result."""
    tag = environment.get("KVSYNC_IMAGE_TAG") or newest_tag(mutant["image"])
    image = build(mutant, tag)
    kind, cluster = environment["KVSYNC_KIND"], environment["KVSYNC_KIND_CLUSTER"]
    subprocess.run([kind, "load", "docker-image", "--name", cluster, image], check=True, stdout=2)
    out = ROOT / "out" / "e2e" / "mutants" / mutant["name"]
    changed = {
        f"KVSYNC_E2E_{mutant['image'].upper()}_IMAGE": image,
        "KVSYNC_E2E_OUT": str(out),
        "KVSYNC_IMAGE_TAG": tag,
    }
    test = f"test/e2e/{mutant['fails']['test']}"
    command = [ROOT / ".venv/bin/pytest", test, "-q", "--tb=line", "-p", "no:cacheprovider", "-o", "timeout=360"]
    (out / "report.json").unlink(missing_ok=True)
    subprocess.run([*map(str, command)], cwd=ROOT, env=environment | changed, check=False, stdout=2)
    report = out / "report.json"
    results = json.loads(report.read_text()) if report.exists() else []
    caught = any(
        item["outcome"] == "failed" and item["phase"] == "call" and mutant["fails"]["says"] in item["reason"]
        for item in results
    )
    return {"mutant": mutant["name"], "test": mutant["fails"]["test"], "caught": caught, "results": results}


def main() -> int:
    """Run all mutants or the named ones, and return the exit code."""
    mutants = yaml.safe_load((HERE / "mutants.yaml").read_text())
    wanted = sys.argv[1:]
    unknown = set(wanted) - {mutant["name"] for mutant in mutants}
    if unknown:
        print(f"mutants: no such mutant: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    environment = settings()
    results = [run(mutant, environment) for mutant in mutants if not wanted or mutant["name"] in wanted]
    report = ROOT / "out" / "e2e" / "mutants.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(results, indent=2) + "\n")
    for result in results:
        print(f"{'caught  ' if result['caught'] else 'SURVIVED'} {result['mutant']} by {result['test']}")
    return 0 if all(result["caught"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
