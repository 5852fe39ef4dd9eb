"""The index service: its HTTP API, over an ingest and a core.

- `service`: the parts of a running index, and what the HTTP API and the fronts ask it
- `app`: the routes of the HTTP API; `requests` reads bodies and writes errors
- `match`: `POST /v1/match`; `quick` and `protocol` answer the usual query without ASGI
- `views` and `metrics`: publishers as rows of JSON and as Prometheus metrics
- `tokenizing`: text to tokens, through an engine
- `snapshots`: when snapshots are taken and restored
- `runner`: the process
"""
