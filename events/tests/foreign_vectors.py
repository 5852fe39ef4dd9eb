"""Payloads of other engines and versions with their expected events, and payloads that a decoder must refuse.

The cases are written by hand, without the code under test. `make_vectors.py` writes them to `vectors/foreign.json`.
"""

import msgspec


def make_foreign():
    """Return the cases: payloads with their expected events, and malformed payloads."""
    pack = msgspec.msgpack.encode
    removed = {"type": "BlockRemoved", "block_hashes": [5]}
    accepted = [
        (
            "sglang map: no lora_name, no medium, signed hash",
            [
                1.0,
                [
                    {
                        "type": "BlockStored",
                        "block_hashes": [-5],
                        "parent_block_hash": None,
                        "token_ids": [1, 2],
                        "block_size": 2,
                        "lora_id": None,
                    }
                ],
                0,
            ],
            [{"type": "BlockStored", "block_hashes": [-5], "token_ids": [1, 2], "block_size": 2}],
            {"data_parallel_rank": 0},
        ),
        (
            "sglang array of 0.5.17",
            [1.0, [["BlockStored", [-(2**63)], -1, [1, 2, 3, 4], 4, None, "CPU_PINNED"]]],
            [
                {
                    "type": "BlockStored",
                    "block_hashes": [-(2**63)],
                    "parent_block_hash": -1,
                    "token_ids": [1, 2, 3, 4],
                    "block_size": 4,
                    "medium": "CPU_PINNED",
                }
            ],
            {},
        ),
        (
            "sglang array with a metadata map in the place of lora_name",
            [1.0, [["BlockStored", [1], None, [1], 1, None, "GPU", {"session_id": "x"}]]],
            [{"type": "BlockStored", "block_hashes": [1], "token_ids": [1], "block_size": 1, "medium": "GPU"}],
            {},
        ),
        (
            "sglang cache_salt becomes the first block's extra key",
            [
                1.0,
                [
                    {
                        "type": "BlockStored",
                        "block_hashes": [1, 2],
                        "parent_block_hash": None,
                        "token_ids": [1, 2],
                        "block_size": 1,
                        "cache_salt": "t",
                    }
                ],
            ],
            [
                {
                    "type": "BlockStored",
                    "block_hashes": [1, 2],
                    "token_ids": [1, 2],
                    "block_size": 1,
                    "extra_keys": [["t"], None],
                }
            ],
            {},
        ),
        (
            "sglang cache_salt on a continued chain is the parent's already",
            [
                1.0,
                [
                    {
                        "type": "BlockStored",
                        "block_hashes": [2],
                        "parent_block_hash": 1,
                        "token_ids": [2],
                        "block_size": 1,
                        "cache_salt": "t",
                    }
                ],
            ],
            [{"type": "BlockStored", "block_hashes": [2], "parent_block_hash": 1, "token_ids": [2], "block_size": 1}],
            {},
        ),
        (
            "bigram pairs cannot be matched",
            [1.0, [["BlockStored", [1], None, [[1, 2], [2, 3]], 2, None]]],
            [{"type": "BlockStored", "block_hashes": [1], "token_ids": [], "block_size": 2}],
            {"opaque_tokens": 1},
        ),
        (
            "string tokens cannot be matched",
            [
                1.0,
                [
                    {
                        "type": "BlockStored",
                        "block_hashes": [1],
                        "parent_block_hash": None,
                        "token_ids": ["12", "13"],
                        "block_size": 2,
                    },
                    removed,
                ],
            ],
            [{"type": "BlockStored", "block_hashes": [1], "token_ids": [], "block_size": 2}, removed],
            {"opaque_tokens": 1},
        ),
        (
            "negative and too large tokens cannot be matched",
            [1.0, [["BlockStored", [1], None, [-1], 1, None], ["BlockStored", [1], None, [2**32], 1, None]]],
            [{"type": "BlockStored", "block_hashes": [1], "token_ids": [], "block_size": 1}] * 2,
            {"opaque_tokens": 2},
        ),
        (
            "unknown tags lose their event only",
            [1.0, [["BlockMoved", [1]], removed, {"type": "KvHello", "epoch": 1}, ["AllBlocksCleared"]], 2],
            [removed, {"type": "AllBlocksCleared"}],
            {"data_parallel_rank": 2, "unknown_events": 2},
        ),
        (
            "extra elements and unknown fields",
            [
                1.0,
                [
                    ["BlockRemoved", [5], "GPU", 1, "LOCAL", "fs", "?", 1, {}],
                    {"type": "BlockRemoved", "block_hashes": [5], "colour": [1, {"a": None}]},
                ],
                None,
                "x",
                [1],
            ],
            [
                {
                    "type": "BlockRemoved",
                    "block_hashes": [5],
                    "medium": "GPU",
                    "group_idx": 1,
                    "locality": "LOCAL",
                    "ownership": "fs",
                },
                removed,
            ],
            {},
        ),
        (
            "arrays and maps in one batch, keys in any order",
            [1, [["BlockRemoved", [5]], {"block_hashes": [5], "type": "BlockRemoved"}]],
            [removed, removed],
            {},
        ),
        (
            "a tier is cleared",
            [1.0, [["AllBlocksCleared", "CPU"], {"type": "AllBlocksCleared", "medium": "DISK"}]],
            [{"type": "AllBlocksCleared", "medium": "CPU"}, {"type": "AllBlocksCleared", "medium": "DISK"}],
            {},
        ),
        ("a batch as a map", {"ts": 1.0, "events": [removed], "attn_dp_rank": 1}, [removed], {"data_parallel_rank": 1}),
        ("no events", [1.0, [], None], [], {}),
        (
            "bytes and integers as hashes",
            [1.0, [["BlockStored", [b"\x01" * 32, 7], b"\x02" * 16, [1, 2], 1, None]]],
            [
                {
                    "type": "BlockStored",
                    "block_hashes": [b"\x01" * 32, 7],
                    "parent_block_hash": b"\x02" * 16,
                    "token_ids": [1, 2],
                    "block_size": 1,
                }
            ],
            {},
        ),
        (
            "masked blocks: more tokens than hashes, or no hash at all",
            [1.0, [["BlockStored", [], None, [1, 2], 2, None], ["BlockStored", [3], None, [1, 2, 3, 4], 2, None]]],
            [
                {"type": "BlockStored", "block_hashes": [], "token_ids": [1, 2], "block_size": 2},
                {"type": "BlockStored", "block_hashes": [3], "token_ids": [1, 2, 3, 4], "block_size": 2},
            ],
            {},
        ),
    ]
    stored = ["BlockStored", [1], None, [1], 1, None, "GPU", None, None, 0, "full_attention", None]
    changed = lambda position, value: [1.0, [[*stored[:position], value, *stored[position + 1 :]]]]  # noqa: E731
    rejected = [
        ("nothing", b""),
        ("nil", pack(None)),
        ("an integer", pack(1)),
        ("an empty array", pack([])),
        ("no events", pack([1.0])),
        ("events not an array", pack([1.0, {}])),
        ("ts a string", pack(["1", []])),
        ("ts null", pack([None, []])),
        ("ts not a number", pack([float("nan"), []])),
        ("ts infinite", pack([float("inf"), []])),
        ("rank a string", pack([1.0, [], "0"])),
        ("rank negative", pack([1.0, [], -1])),
        ("event an integer", pack([1.0, [1]])),
        ("event without a tag", pack([1.0, [[]]])),
        ("event map without a type", pack([1.0, [{"block_hashes": [1]}]])),
        ("tag an integer", pack([1.0, [[1, 2]]])),
        ("hashes missing", pack([1.0, [["BlockRemoved"]]])),
        ("hashes null", pack(changed(1, None))),
        ("hash a string", pack(changed(1, ["1"]))),
        ("hash a float", pack(changed(1, [1.0]))),
        ("hash a boolean", pack(changed(1, [True]))),
        ("hash empty bytes", pack(changed(1, [b""]))),
        ("hash too long", pack(changed(1, [b"x" * 65]))),
        ("parent a string", pack(changed(2, "1"))),
        ("tokens a string", pack(changed(3, "abc"))),
        ("tokens of floats", pack(changed(3, [1.5]))),
        ("tokens of null", pack(changed(3, [None]))),
        ("tokens in threes", pack(changed(3, [[1, 2, 3]]))),
        ("tokens of booleans", pack(changed(3, [True]))),
        ("block_size missing", pack([1.0, [["BlockStored", [1], None, [1]]]])),
        ("block_size negative", pack(changed(4, -1))),
        ("block_size a float", pack(changed(4, 16.0))),
        ("lora_id a string", pack(changed(5, "1"))),
        ("medium an integer", pack(changed(6, 1))),
        ("lora_name an integer", pack(changed(7, 1))),
        ("extra_keys a map", pack(changed(8, {}))),
        ("extra key a string", pack(changed(8, ["salt"]))),
        ("extra key too deep", pack(changed(8, [[[[1]]]]))),
        ("group a string", pack(changed(9, "0"))),
        ("group negative", pack(changed(9, -1))),
        ("kind an integer", pack(changed(10, 1))),
        ("window a string", pack(changed(11, "1"))),
        ("truncated", pack(changed(1, [1]))[:-3]),
        ("trailing bytes", pack([1.0, []]) + b"\x00"),
        ("never a value", b"\xc1"),
        ("bad UTF-8", b"\x92\xcb" + bytes(8) + b"\x91\x91\xa2\xff\xfe"),
        ("an array that claims four billion", b"\x92\xcb" + bytes(8) + b"\xdd\xff\xff\xff\xff"),
        ("a map with an array as key", b"\x92\xcb" + bytes(8) + b"\x91\x81\x90\x01"),
    ]
    return {
        "accepted": [
            {
                "name": name,
                "payload": pack(raw),
                "events": events,
                "data_parallel_rank": None,
                "unknown_events": 0,
                "opaque_tokens": 0,
                **rest,
            }
            for name, raw, events, rest in accepted
        ],
        "rejected": [{"name": name, "payload": payload} for name, payload in rejected],
    }
