"""Objects in an S3 bucket: conditional writes, requests sent again, errors as OSErrors."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore import exceptions as obstore_errors
from obstore.store import S3Store

from storage.errors import LocationError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

# Long enough for a server to restart; longer outages are for the task's own retries.
RETRIES: "RetryConfig" = {"max_retries": 8, "retry_timeout": timedelta(seconds=30)}

# obstore itself sends neither a conditional write nor a deletion again when a connection breaks.
RESEND_AFTER_S = (0.1, 0.5, 2.0, 8.0)

_METADATA_SERVICE = "169.254.169.254"
"""Address of a cloud's metadata service, obstore's last source of credentials."""

_ANSWERS = (
    FileNotFoundError,
    obstore_errors.NotFoundError,
    obstore_errors.AlreadyExistsError,
    obstore_errors.PreconditionError,
)
"""Answers of a server that was reached: refusals, not broken connections."""

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Environment variables of the S3 endpoint; the first one that is set counts."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class S3Objects:
    """The objects under a prefix of a bucket, by key.

    Raises LocationError where the AWS variables do not name a server that can be used.
    """

    def __init__(self, bucket: str, name: str) -> None:
        self.url = f"s3://{bucket}/{name}"
        self._bucket = bucket
        options = _client_options()
        try:
            self.store = S3Store(bucket, prefix=name, client_options=options, retry_config=RETRIES)
        except obstore_errors.BaseError as error:
            reason = str(error).split("\n", 1)[0]
            raise LocationError(
                f"{self.url} cannot be reached as the AWS_… variables are set: {reason}"
            ) from error

    def whole_bucket(self) -> S3Store:
        """Return the bucket without the prefix, to copy objects within it on the server."""
        return S3Store(self._bucket, client_options=_client_options(), retry_config=RETRIES)

    @contextmanager
    def os_errors(self) -> Iterator[None]:
        """Return a context in which obstore's errors are OSErrors, or LocationErrors."""
        try:
            yield
        except obstore_errors.BaseError as error:
            # The rest of the message is obstore's own source of the error, many lines of it.
            reason = str(error).split("\n", 1)[0]
            if _METADATA_SERVICE in str(error):
                raise LocationError(
                    f"no credentials for {self.url}: neither AWS_ACCESS_KEY_ID with "
                    "AWS_SECRET_ACCESS_KEY is set, nor does a cloud's metadata service answer; "
                    "set them, or AWS_SKIP_SIGNATURE=true for a public bucket"
                ) from error
            raise ConnectionError(f"{self.url}: {reason}") from error

    def read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """Return an object and the tag of its version, None where there is none."""
        with self.os_errors():
            try:
                found = self.store.get(key)
                return bytes(found.bytes()), found.meta["e_tag"]
            except (FileNotFoundError, obstore_errors.NotFoundError):
                return None

    def tag_of(self, key: str) -> str | None:
        """Return the tag of an object's version, None where there is none."""
        with self.os_errors():
            try:
                return self.store.head(key)["e_tag"]
            except (FileNotFoundError, obstore_errors.NotFoundError):
                return None

    def put_if(self, key: str, data: bytes, mode: Any) -> bool:
        """Write an object under a condition; false when that does not hold.

        True also where the object already holds just these data.
        """
        with self.os_errors():
            try:
                self.send(lambda: self.store.put(key, data, mode=mode))
            except _ANSWERS:
                # Refused, or it was done before and the answer was lost on its way.
                return self._holds(key, data)
        return True

    def delete(self, keys: str | list[str]) -> None:
        """Delete objects, those that exist."""
        with self.os_errors():
            self.send(lambda: self.store.delete(keys))

    def _holds(self, key: str, data: bytes) -> bool:
        found = self.read_tagged(key)
        return found is not None and found[0] == data

    @staticmethod
    def send(request: Callable[[], object]) -> None:
        """Send a modifying request, and again where the connection broke."""
        for pause_s in RESEND_AFTER_S:
            try:
                request()
            except _ANSWERS:
                raise
            except obstore_errors.BaseError:
                time.sleep(pause_s)
            else:
                return
        request()


def _client_options() -> "ClientConfig":
    """Return the client's options; plain HTTP is for a server on this machine.

    Raises LocationError where the server's address is no URL, or plain HTTP would go elsewhere.
    """
    options: ClientConfig = {"timeout": timedelta(seconds=120)}
    variable = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if variable is None:
        return options
    endpoint = os.environ[variable]
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or parts.query:
        raise LocationError(
            f"{variable} is {endpoint!r}: expected the S3 server's address with its protocol, such "
            "as https://s3.example.org or http://127.0.0.1:9000"
        )
    if parts.scheme == "http":
        allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")
        if host not in _LOOPBACK and not allowed:
            raise LocationError(
                f"{variable} is {endpoint!r}: plain HTTP to another machine shows images and keys "
                "to the network between; use https://, or set AWS_ALLOW_HTTP=true where the "
                "network is trusted"
            )
        options["allow_http"] = True
    return options
