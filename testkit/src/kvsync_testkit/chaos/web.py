"""Plain HTTP requests, each on a connection of its own, to the processes of the local backend."""

import http.client
import json

from kvsync_testkit.kube import Answer


def send(host: str, port: int, method: str, path: str, body: object = None, *, timeout_s: float = 10.0) -> Answer:
    """Send a request and return the answer with any status; raise OSError if there is none in time."""
    link = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        content = None if body is None else json.dumps(body).encode()
        link.request(method, path, body=content, headers={"Content-Type": "application/json"})
        answer = link.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{method} http://{host}:{port}{path}: {error!r}") from error
    finally:
        link.close()
