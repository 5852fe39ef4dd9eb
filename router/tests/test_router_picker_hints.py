"""Addresses as gateways write them, and the endpoints' own addresses."""

import pytest

from kvsync_router.decisions.endpoints import Endpoint, EndpointInfo
from kvsync_router.decisions.subset import Subset, host_and_port, split_address
from kvsync_router.picker.book import AddressBook


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("10.0.0.1:8000", ("10.0.0.1", 8000)),
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:", ("10.0.0.1", None)),
        ("[fd00::1]:8000", ("fd00::1", 8000)),
        ("[FD00:0:0::1]", ("fd00::1", None)),
        ("fd00::1", ("fd00::1", None)),
        ("engine:8000", None),
        ("10.0.0.1:0", None),
        ("10.0.0.1:65536", None),
        ("10.0.0.1:99999999999999999999", None),
        ("10.0.0.1:8000:1", None),
        ("10.0.0.1:-1", None),
        ("10.0.0.1:８０", None),
        ("[fd00::1", None),
        ("[fd00::1]8000", None),
        ("", None),
    ],
)
def test_addresses(text, split):
    assert split_address(text) == split


def test_a_subset_permits_what_it_names_and_nothing_else():
    subset = Subset(["10.0.0.1:8000", "10.0.0.2", "[fd00::1]:8000", "nonsense", ""])
    assert subset.permits("10.0.0.1:8000")
    assert not subset.permits("10.0.0.1:8001")
    assert subset.permits("10.0.0.2:1")
    assert subset.permits("10.0.0.2:2")
    assert subset.permits("[fd00:0::1]:8000")
    assert not subset.permits("10.0.0.3:8000")
    assert not Subset([]).permits("10.0.0.1:8000")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://a:1", ("a", 1)),
        ("http://a", ("a", 80)),
        ("https://a/v1", ("a", 443)),
        ("http://[::1]:9", ("::1", 9)),
        ("http://a:99999", None),
        ("ftp://a", None),
        ("http://", None),
    ],
)
def test_urls(url, found):
    assert host_and_port(url) == found


def endpoint(url):
    return Endpoint(EndpointInfo(url, url, "m"))


def book_of(urls, names):
    async def resolver(host, _port):
        if host not in names:
            raise OSError("unknown name")
        return names[host]

    endpoints = [endpoint(url) for url in urls]
    return AddressBook(lambda: endpoints, resolver), endpoints


async def test_names_are_looked_up_and_link_local_addresses_are_never_given_out():
    urls = [
        "http://10.0.0.1:8",
        "http://engine:9",
        "http://[::1]:7",
        "http://bad:1",
        "http://169.254.169.254:80",
        "http://x:1",
    ]
    book, endpoints = book_of(urls, {"engine": "10.0.0.2", "bad": "169.254.169.254"})
    assert [book.address(each) for each in endpoints] == ["10.0.0.1:8", None, "[::1]:7", None, None, None]
    await book.refresh()
    assert [book.address(each) for each in endpoints] == ["10.0.0.1:8", "10.0.0.2:9", "[::1]:7", None, None, None]


async def test_a_name_keeps_its_address_while_it_cannot_be_looked_up_and_follows_a_change():
    names = {"engine": "10.0.0.2"}
    book, (one,) = book_of(["http://engine:9"], names)
    await book.refresh()
    names.clear()
    for _ in range(11):
        await book.refresh()
    assert book.address(one) == "10.0.0.2:9"
    names["engine"] = "10.0.0.3"
    for _ in range(11):
        await book.refresh()
    assert book.address(one) == "10.0.0.3:9"
