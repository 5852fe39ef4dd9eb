"""What the router reads of a request: a field that is not there is None, whatever the form of the prompt."""

import pytest

from kvsync_router.decisions.requests import parse_request


@pytest.mark.parametrize("body", [b'{"prompt": [1, 2]}', b'{"prompt": "a"}', b'{"prompt": [1], "messages": null}'])
def test_a_request_without_messages_has_none(body):
    assert parse_request(body).messages is None


def test_the_messages_of_a_chat_are_kept_as_they_came():
    assert parse_request(b'{"messages": [{"role": "user"}]}').messages == b'[{"role": "user"}]'
