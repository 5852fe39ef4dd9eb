"""The router: sends each request to the engine that already holds most of its prompt.

- `decisions/`: which endpoint gets a request; pure, and shared by every front
- `sources/`: what the decisions are based on: the index, the list of endpoints and their health
- `routing.py`: decisions and sources, put together; one per process
- `proxy/`: the front for clients, an OpenAI-compatible proxy (`kvsync-router`)
- `front.py`: the proxy inside the index's process (`kvsync-indexer --router-port`)

Of the index, the package uses the HTTP API's types and the modules that are made for fronts, and nothing else.
"""
