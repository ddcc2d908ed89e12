"""The address of a Ray cluster, tried before Ray is imported, which takes seconds."""

import socket

from stage1_proposals.common.errors import UserError

CONNECT_SECONDS = 10.0
CLIENT_SCHEME, CLIENT_PORT = "ray://", 10001  # of Ray's client, and where its server listens by default


def check_reachable(address: str) -> None:
    """Connect to `host:port` or `ray://host:port` once, because Ray itself would try for minutes.

    Args:
        address: `RAY_ADDRESS`; what is no address of these forms is left to Ray.

    Raises:
        UserError: nobody listens there.
    """
    server = address.removeprefix(CLIENT_SCHEME)
    host, colon, port = server.rpartition(":")
    if address.startswith(CLIENT_SCHEME) and not port.isdigit():
        host, colon, port = server, ":", str(CLIENT_PORT)
    if not (colon and port.isdigit() and "/" not in host):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:  # the last two: a host or a port that cannot be one
        raise unreachable(address, error) from error


def unreachable(address: str, error: Exception) -> UserError:
    """The message that there is no Ray at an address; none: on this machine."""
    place = address or "this machine"
    return UserError(f"Ray at {place}: cannot be reached or started ({error}); WORKERS=0 does without")
