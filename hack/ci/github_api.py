"""The few calls of the GitHub REST API that the scripts in this folder make, with the token of the job."""

import json
import os
import urllib.request
from typing import Any


class Repository:
    """The repository of this job, as `GITHUB_API_URL`, `GITHUB_REPOSITORY` and `GITHUB_TOKEN` name it."""

    def __init__(self) -> None:
        self.name = os.environ["GITHUB_REPOSITORY"]
        self._base = f"{os.environ.get('GITHUB_API_URL', 'https://api.github.com')}/repos/{self.name}"
        self._token = os.environ["GITHUB_TOKEN"]

    def call(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
        """Send one request to a path below the repository and return the decoded answer.

        Raises:
            urllib.error.HTTPError: the API refused the request.
        """
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/vnd.github+json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = response.read()
        return json.loads(answer) if answer else None

    def pages(self, path: str) -> list[Any]:
        """All items of a list that is served in pages of 100."""
        found: list[Any] = []
        joint = "&" if "?" in path else "?"
        number = 1
        while True:
            page = self.call("GET", f"{path}{joint}per_page=100&page={number}")
            found += page
            if len(page) < 100:
                return found
            number += 1
