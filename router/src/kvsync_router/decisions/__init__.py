"""Which endpoint gets a request: pure decisions, without sockets, clocks or tasks.

- `requests`: what the router reads of a request's body
- `models`: what the model name of a request means
- `circuit`: which endpoints are left out because they keep failing
- `policies`: how a policy chooses among candidates
- `endpoints`: the endpoints, which of them are in the rotation, and the load that the router has put on them
- `picking`: from a request to a `RoutingDecision`, and from that to an endpoint
- `scoring` and `predictions`: what the decisions ask of an index, and what they report to it, as protocols
- `usage`: how many tokens an engine found cached, read from the bytes of its answer
"""
