"""Figures of other systems for the report: their released code, measured side by side on one machine.

The machine had two cores of an Intel processor at 2.3 GHz with AVX-512. The figures are medians with 16-token blocks,
token ids above 65,535, 204,800 distinct blocks and 64 pods, measured with the harness of each project or a thin one
around its index: NVIDIA Dynamo 1.6.1 (Rust), llm-d's KV-cache indexer and simulator (Go), AIBrix's sync prefix hash
index (Go). "bare" is not a product but two hash maps, or the transport alone. Figures differ between machines, so that
only figures of the same run can be compared.
"""

NOTE = (
    "Other systems: released code on two cores of another machine (Intel, 2.3 GHz); 16-token blocks, 204,800 "
    "distinct blocks, 64 pods, medians. Only the group Dynamo was measured in this run."
)

PEERS: dict[str, str] = {
    "ingest, 1 block per event": "Dynamo 0.76, llm-d 0.16, AIBrix 0.28, bare 9",
    "ingest, 32 blocks per event": "Dynamo 1.41, llm-d 0.30, AIBrix 0.52, bare 13",
    "ingest, 512 blocks per event": "Dynamo 1.55, llm-d 0.37, AIBrix 0.56, bare 13.5",
    "match from keys, 512 blocks, 64 publishers": "Dynamo 24.5 from Python (1.2 in Rust), llm-d 1,490, AIBrix 1,066",
    "match from tokens, 512 blocks, 64 publishers": "Dynamo 92 from Python (3.4 in Rust), llm-d 1,800 to 14,000, "
    "AIBrix 1,066",
    "memory, 1 holder": "Dynamo 72, llm-d 1,126, AIBrix 402",
    "memory, 64 holders": "Dynamo 35, llm-d 237, AIBrix 80",
    "socket to visible, 32 per message": "Dynamo 1.13; pyzmq alone 3.6",
    "socket to visible, 512 per message": "Dynamo 1.76; pyzmq alone 18",
    "match of 8,192 tokens, one client, median": "Dynamo 550 to 610; a health call 80",
    "replay, 1 worker, round_robin": "Dynamo 5,130",
    "replay, 4 workers, round_robin": "Dynamo 4,210",
    "replay, 4 workers, kv": "Dynamo 2,480, not reproducible",
    "streaming completions of 16 tokens": "llm-d's simulator 6,170",
    "blocks stored, as many removed, cache of 1,024": "llm-d's simulator 27,900 (8,900 at 4,096)",
    "resident, idle": "llm-d's simulator 43",
}
