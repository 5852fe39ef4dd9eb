"""The TLS settings of the HTTP server, from vLLM's `--ssl-*` flags."""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.errors import ConfigError

_DEFAULT_CIPHERS = "TLSv1"
"""What uvicorn uses without an own choice."""


def tls_settings(config: PodConfig) -> dict[str, Any]:
    """The settings for uvicorn, empty for plain HTTP.

    Raises:
        ConfigError: a file cannot be read, or is not what its flag says.
    """
    if config.ssl_certfile is None:
        return {}
    _check(config)
    return {
        "ssl_certfile": str(config.ssl_certfile),
        "ssl_keyfile": None if config.ssl_keyfile is None else str(config.ssl_keyfile),
        "ssl_ca_certs": None if config.ssl_ca_certs is None else str(config.ssl_ca_certs),
        "ssl_cert_reqs": config.ssl_cert_reqs,
        "ssl_ciphers": config.ssl_ciphers or _DEFAULT_CIPHERS,
    }


def _check(config: PodConfig) -> None:
    """Load every file once, so that a wrong one is refused with the name of its flag."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if config.ssl_certfile is not None:
        with _naming("ssl_certfile", config.ssl_certfile):
            context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
    if config.ssl_ca_certs is not None:
        with _naming("ssl_ca_certs", config.ssl_ca_certs):
            context.load_verify_locations(config.ssl_ca_certs)
    if config.ssl_ciphers is not None:
        with _naming("ssl_ciphers", config.ssl_ciphers):
            context.set_ciphers(config.ssl_ciphers)


@contextlib.contextmanager
def _naming(field: str, value: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise ConfigError(f"{field}: {str(value)!r} refused: {reason.lower().replace('_', ' ')}") from None
