"""What tests of KV block management, event flow and cache-aware routing share.

Parts to build a test from:

- `token_blocks`: blocks of tokens with the hashes that an engine would announce
- `managers/`: block managers over the mock engine's own block table and tiers
- `physical/`: blocks as bytes in memory and files, with fill patterns, checksums and guard blocks
- `transport/`, `agents/`: messages over ZMQ, and transfers over files, shared memory and TCP
- `distributed/`, `connector/`: two instances and their transfer sessions; saving and loading as a KV connector does
- `events/`: manager to subscriber over a bus, in virtual time
- `cluster/`: a small Kubernetes API server for reconcile tests, and namespaces of a real cluster; `kube` connects to it
- `browser/`: pages in a headless Chromium, at several widths, in light and dark
- `processes`: mock engines, indexes and routers as processes on free ports
- `clock`, `waiting`, `ports`: virtual time, polling with a deadline, free ports

Verdicts:

- `checks/`: the invariants I1-I13 as pure functions: a history goes in, a verdict for each invariant comes out
- `faults/`: faults at chosen batches, and seeded schedules of them against the real state machine and core
- `chaos/`: experiments on running systems: break, prove, heal, judge

`plugin` is the pytest plugin, `errors` the tree of exceptions. `docs/testing/testkit.md` has an example of each part.
"""
