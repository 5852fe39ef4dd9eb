#!/usr/bin/env python3
"""Raise an alarm if a scheduled workflow did not run in time, or if its last run failed: `make ci-alarm`.

GitHub drops scheduled runs when it is busy and disables schedules in quiet repositories, in both cases without a word.
For every workflow file with a schedule, the script asks for the newest scheduled run. If that run is missing, too old
or unsuccessful, the script opens an issue, or adds a comment to the one that is still open. It closes the issue once
everything ran. The exit code is 1 if there is an alarm.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from github_api import Repository

WORKFLOWS = Path(__file__).resolve().parents[2] / ".github/workflows"
TITLE = "Scheduled workflows need attention"
SLACK = timedelta(hours=6)
"""GitHub may start a scheduled run hours late."""


def main() -> int:
    """Ask for the last runs, keep the issue up to date, and return the exit code."""
    repository = Repository()
    problems = [text for name, period in schedules(WORKFLOWS) if (text := check(repository, name, period))]
    for text in problems:
        print(text)
    report(repository, problems)
    return 1 if problems else 0


def schedules(folder: Path) -> Iterator[tuple[str, timedelta]]:
    """(file name, longest time between two runs) for each workflow with a schedule."""
    for path in sorted(folder.glob("*.yml")):
        triggers = yaml.safe_load(path.read_text(encoding="utf-8")).get(True)  # YAML 1.1 reads the key `on` as true
        entries = triggers.get("schedule", []) if isinstance(triggers, dict) else []
        if entries:
            yield path.name, min(period_of(each["cron"]) for each in entries)


def period_of(cron: str) -> timedelta:
    """The longest time between two runs of a schedule that names a time on every day, or on some days of the week.

    Raises:
        ValueError: the expression also uses days of the month or months.
    """
    _minute, _hour, day, month, weekday = cron.split()
    if (day, month) != ("*", "*"):
        raise ValueError(f"the schedule {cron!r} uses days of the month or months")
    if weekday == "*":
        return timedelta(days=1)
    if "-" in weekday:
        first, last = map(int, weekday.split("-"))
        return timedelta(days=7 - (last - first))
    days = sorted(int(each) for each in weekday.split(","))
    gaps = [after - before for before, after in zip(days, [*days[1:], days[0] + 7], strict=True)]
    return timedelta(days=max(gaps))


def check(repository: Repository, name: str, period: timedelta, now: datetime | None = None) -> str | None:
    """What is wrong with the newest scheduled run of a workflow; None if nothing is."""
    answer = repository.call("GET", f"/actions/workflows/{name}/runs?event=schedule&per_page=10")
    runs: list[dict[str, Any]] = answer["workflow_runs"]
    if not runs:
        return f"{name} has never run on its schedule"
    age = (now or datetime.now(UTC)) - datetime.fromisoformat(runs[0]["created_at"])
    if age > period + SLACK:
        ago = f"{age.days} days and {age.seconds // 3600} hours ago"
        return f"{name} last ran on its schedule {ago}: {runs[0]['html_url']}"
    done = [run for run in runs if run["status"] == "completed"]
    if done and done[0]["conclusion"] != "success":
        return f"{name} ended with {done[0]['conclusion']}: {done[0]['html_url']}"
    return None


def report(repository: Repository, problems: list[str]) -> None:
    """Open, update or close the issue of the alarm."""
    ours = [each for each in repository.pages("/issues?state=open") if each["title"] == TITLE]
    text = "\n".join(f"- {each}" for each in problems)
    if problems and ours:
        repository.call("POST", f"/issues/{ours[0]['number']}/comments", {"body": text})
    elif problems:
        repository.call("POST", "/issues", {"title": TITLE, "body": text})
    for each in ours if not problems else []:
        repository.call("POST", f"/issues/{each['number']}/comments", {"body": "Every schedule ran and succeeded."})
        repository.call("PATCH", f"/issues/{each['number']}", {"state": "closed"})


if __name__ == "__main__":
    sys.exit(main())
