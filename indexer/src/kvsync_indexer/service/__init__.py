"""The index service: HTTP over an ingest and a core.

`match` is the hot path (raw ASGI), `app` the rest of the API, `views` what a publisher looks like from outside,
`metrics` the same for Prometheus, `tokenizing` text to tokens through an engine, `runner` the process.
"""
