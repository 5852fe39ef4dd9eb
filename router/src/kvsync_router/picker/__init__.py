"""The endpoint picker: places the requests of a gateway that asks over Envoy's external processing protocol.

The picker is a front of the router's decisions, like the proxy. The gateway keeps the data path; the picker reads what
it is shown of a request and answers with addresses.

- `messages`: the protocol's messages, read and built
- `exchange`: one stream as a state machine, without I/O
- `bodies`: the bodies of requests that wait for their end, and how much memory they may use
- `placing`: from a request to addresses, and from the answer to load and predictions
- `book`: the addresses of endpoints whose URLs contain host names
- `processor`, `health`, `credentials`, `server`: the gRPC services and their ports
- `status`: metrics and health over HTTP
- `endpoints` and `settings`: where a picker's endpoints come from, and how its settings differ from the proxy's
- `main`, `front`: `kvsync-epp`, and the picker inside the index's process

gRPC and the generated protocol take a quarter of a second to import. Only this package imports them, and its modules
`main` and `front` do so only when a picker starts.
"""
