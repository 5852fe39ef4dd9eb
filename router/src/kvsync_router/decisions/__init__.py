"""Which endpoint gets a request: pure decisions, without sockets, clocks or tasks.

- `paths`: the paths of an engine that the router serves
- `requests`: what the router reads of a request's body, and `dialects` how it reads the newer APIs
- `models`: what the model name of a request means
- `circuit`: which endpoints are left out because they keep failing
- `subset`, `affinity` and `responses`: where a request wants to go
- `policies`: how a policy chooses among candidates, and `tiers` what a matched block is worth
- `speculation`: prompts that were routed a moment ago
- `endpoints`: the endpoints, which of them are in the rotation, and the load that the router has put on them
- `picking`: from a request to a `RoutingDecision`, and from that to an endpoint
- `journal` and `regret`: what was decided and why, and what it cost
- `scoring` and `predictions`: what the decisions ask of an index, and what they report to it, as protocols
- `usage`: how many tokens an engine found cached, read from the bytes of its answer
- `trace`: W3C trace context
"""
