"""How the values of other ranks get to rank 0: one small message a rank and update, over TCP.

Strategy: nothing here is a collective operation. Another rank only ever sends, into the buffer of
its socket, and never waits; rank 0 reads, and waits a bounded time for a rank that is behind. So a
rank that is gone, stopped, or logs something else can hold up nobody, and the order of the
training's own collectives is left alone. A rank that dies is known by the end of its stream at
once.

A message is its length, its kind, and: of *names*, the number and the JSON of a list of names; of
*values*, the number of such a list, the key (step, and which update of that step it is) and one
float64 each. Keys of a rank ascend while its steps do.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.frontends.history.statistics import combine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackboxml.frontends.history.statistics import Part, Statistics

logger = logging.getLogger("blackboxml")

Key = tuple[int, int]
"""A step, and which update of that step in a row."""

Shape = tuple[int, tuple[str, ...]]
"""What is gathered: its kind, and its names."""

UPDATES: Final = 0
QUESTIONS: Final = 1
_NAMES: Final = 2

_HEAD: Final = struct.Struct("<IB")
_PLACE: Final = struct.Struct("<IqI")
_NUMBER: Final = struct.Struct("<I")
_TOKEN_BYTES: Final = 32
_READ_BYTES: Final = 2**18
_LARGEST_MESSAGE: Final = 2**26
_MOST_UNSENT: Final = 2**22
_HELLO_SECONDS: Final = 1.0
_MISSES: Final = 3
"""A rank that ran out its time so often is not waited for again."""


class Sender:
    """Sends the values of one rank to rank 0, and never waits for it."""

    def __init__(self, place: Mapping[str, Any], rank: int, wait: float) -> None:
        """Connect.

        Args:
            place: Where rank 0 listens, as `Receiver.place` says.
            rank: Rank of this process.
            wait: Most seconds to connect.

        Raises:
            OSError: If rank 0 cannot be reached.
        """
        self._tables: dict[tuple[str, ...], int] = {}
        self._unsent = bytearray()
        self._socket = _connect(place["hosts"], place["port"], wait)
        self._socket.sendall(bytes.fromhex(place["token"]) + _NUMBER.pack(rank))
        self._socket.settimeout(0.0)

    def put(self, kind: int, key: Key, numbers: Mapping[str, Any]) -> None:
        """Make a message ready to be sent; it is dropped where too much waits already."""
        names = tuple(numbers)
        number = self._tables.get(names)
        if number is None:
            number = self._tables[names] = len(self._tables)
            self._add(_NAMES, _NUMBER.pack(number) + json.dumps(names).encode())
        elif len(self._unsent) > _MOST_UNSENT:
            return
        values = struct.pack(f"<{len(names)}d", *numbers.values())
        self._add(kind, _PLACE.pack(number, *key) + values)

    def _add(self, kind: int, body: bytes) -> None:
        self._unsent += _HEAD.pack(len(body), kind)
        self._unsent += body

    def send(self) -> None:
        """Send what the system takes just now.

        Raises:
            OSError: If rank 0 is gone.
        """
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return
            del self._unsent[:sent]

    def close(self, wait: float) -> None:
        """Send the rest, within so many seconds, and close."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(wait)
            self._socket.sendall(self._unsent)
            self._socket.shutdown(socket.SHUT_WR)
        self._unsent.clear()
        self._socket.close()


@dataclass(slots=True)
class Peer:
    """Another rank, as rank 0 sees it.

    Attributes:
        rank: Which.
        stream: Its connection; None before it came, and after it went.
        gone: It was there and went.
        late: It let its time run out, and was not up to date since.
        misses: How often it did.
    """

    rank: int
    stream: socket.socket | None = None
    gone: bool = False
    late: bool = False
    misses: int = 0
    _buffer: bytearray = field(default_factory=bytearray)
    _tables: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _inboxes: tuple[deque[tuple[Key, Part]], ...] = field(
        default_factory=lambda: (deque(), deque())
    )

    def take(self, kind: int, key: Key) -> Part | None:
        """Return what it sent under a key, and forget what it sent before that."""
        inbox = self._inboxes[kind]
        for at, (own, _) in enumerate(inbox):
            if own == key:
                for _ in range(at):
                    inbox.popleft()
                return inbox.popleft()[1]
        return None

    def passed(self, kind: int, key: Key) -> bool:
        """Tell whether it sent something later than a key, which it then left out."""
        inbox = self._inboxes[kind]
        return bool(inbox) and inbox[-1][0] > key

    def receive(self, seconds: float) -> bool:
        """Read what comes within a time; tell whether anything came."""
        if self.stream is None:
            return False
        try:
            self.stream.settimeout(max(0.0, seconds))
            data = self.stream.recv(_READ_BYTES)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            data = b""
        if not data:
            self.leave()
            return False
        self._buffer += data
        try:
            self._parse()
        except (KeyError, IndexError, ValueError, struct.error):
            self.leave()
        return True

    def leave(self) -> None:
        """Close the connection for good."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        self.gone = True

    def _parse(self) -> None:
        """Take the whole messages out of the buffer.

        Raises:
            ValueError: If they are not as they should be.
        """
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _HEAD.size:
            size, kind = _HEAD.unpack_from(buffer, at)
            if size > _LARGEST_MESSAGE:
                raise ValueError(f"a message of {size} bytes")
            if len(buffer) - at < _HEAD.size + size:
                break
            body = bytes(buffer[at + _HEAD.size : at + _HEAD.size + size])
            at += _HEAD.size + size
            if kind == _NAMES:
                self._tables[_NUMBER.unpack_from(body)[0]] = tuple(json.loads(body[4:]))
            else:
                number, step, times = _PLACE.unpack_from(body)
                values = np.frombuffer(body, dtype="<f8", offset=_PLACE.size)
                self._inboxes[kind].append(((step, times), (self._tables[number], values)))
        del buffer[:at]


class Receiver:
    """Takes the values of all other ranks, on rank 0."""

    def __init__(self, world: int, wait: float, token: bytes) -> None:
        """Listen.

        Args:
            world: Number of ranks.
            wait: Most seconds that one exchange waits.
            token: 32 secret bytes, by which the other ranks are known.

        Raises:
            OSError: If the system has no port.
        """
        self._wait = wait
        self._token = token
        self._peers = [Peer(rank) for rank in range(1, world)]
        self._absent = len(self._peers)
        self._alone: set[Shape] = set()
        self._silences = 0
        self._said = False
        hosts, local = _own_hosts()
        self._listener = _listen(world, local=local)
        port = self._listener.getsockname()[1]
        self.place = {"hosts": hosts, "port": port, "token": token.hex()}

    def gather(self, kind: int, key: Key, names: tuple[str, ...], values: Any) -> Statistics:
        """Return the statistics of what all ranks have under a key; wait for those behind.

        Args:
            kind: `UPDATES` or `QUESTIONS`.
            key: Which update.
            names: Metrics of this rank.
            values: Their values.
        """
        shape = (kind, names)
        patience = 0.0 if shape in self._alone else self._wait
        deadline = time.monotonic() + patience
        if self._absent:
            self._welcome(deadline)
        parts: list[Part] = [(names, np.array(values, dtype=np.float64))]
        missing: list[Peer] = []
        for peer in self._peers:
            part = peer.take(kind, key)
            if part is None:
                part = self._await(peer, kind, key, deadline)
            if part is not None:
                parts.append(part)
                peer.late = False
            elif not (peer.gone or peer.late or peer.passed(kind, key)):
                missing.append(peer)
        if missing and patience:
            self._note(shape, missing, alone=len(parts) == 1 and len(missing) == len(self._peers))
        if len(parts) <= len(self._peers):
            self._complain(parts)
        return combine(parts)

    def _note(self, shape: Shape, missing: Sequence[Peer], *, alone: bool) -> None:
        """Remember who let the time run out, so that it is not waited for as long again.

        Args:
            shape: What was gathered.
            missing: Who did not answer.
            alone: Nobody did: perhaps this rank alone has such updates, which is no fault of them.
        """
        if alone:
            self._alone.add(shape)
            self._silences += 1
        if not alone or self._silences > _MISSES:
            for peer in missing:
                peer.late = True
                peer.misses += 1

    def _await(self, peer: Peer, kind: int, key: Key, deadline: float) -> Part | None:
        """Read from a rank until it sent what belongs to a key, or cannot any more."""
        waits = not peer.late and peer.misses < _MISSES
        while peer.stream is not None and not peer.passed(kind, key):
            left = deadline - time.monotonic() if waits else 0.0
            if not peer.receive(left) and (left <= 0 or peer.stream is None):
                break
            part = peer.take(kind, key)
            if part is not None:
                return part
        return peer.take(kind, key)

    def _welcome(self, deadline: float) -> None:
        """Accept ranks that have not come yet; after the first time, without waiting for them."""
        absent = {peer.rank: peer for peer in self._peers if peer.stream is None and not peer.gone}
        waited = any(not peer.late for peer in absent.values())
        while absent:
            left = deadline - time.monotonic() if waited else 0.0
            try:
                self._listener.settimeout(max(0.0, left))
                stream, _ = self._listener.accept()
            except OSError:
                break
            rank = self._recognise(stream)
            peer = absent.pop(rank, None) if rank is not None else None
            if peer is None:
                stream.close()
            else:
                peer.stream = stream
        self._absent = len(absent)

    def _recognise(self, stream: socket.socket) -> int | None:
        """Return the rank of who connected, None if it is not one of us."""
        wanted = _TOKEN_BYTES + _NUMBER.size
        data = b""
        try:
            stream.settimeout(_HELLO_SECONDS)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while len(data) < wanted:
                part = stream.recv(wanted - len(data))
                if not part:
                    return None
                data += part
        except OSError:
            return None
        if not hmac.compare_digest(data[:_TOKEN_BYTES], self._token):
            return None
        return int(_NUMBER.unpack(data[_TOKEN_BYTES:])[0])

    def _complain(self, parts: Sequence[Part]) -> None:
        """Say once that statistics are of fewer ranks than there are."""
        if self._said:
            return
        self._said = True
        missing = [peer for peer in self._peers if peer.gone or peer.late or peer.stream is None]
        names = ", ".join(str(peer.rank) for peer in missing[:8]) or "some"
        logger.warning(
            "statistics across ranks are partial: %d of %d ranks reported (missing: %s); "
            "`count` says of how many each is, and this is not said again",
            *(len(parts), len(self._peers) + 1, names),
        )

    def close(self) -> None:
        """Close all connections."""
        for peer in self._peers:
            peer.leave()
        self._listener.close()


def _own_hosts() -> tuple[list[str], bool]:
    """Return by what names this machine may be reached, and whether only from itself."""
    import os

    hosts = []
    master = os.environ.get("MASTER_ADDR", "")
    if master in {"127.0.0.1", "localhost", "::1"}:
        return ["127.0.0.1"], True
    if master:
        hosts.append(master)
    hosts.append(socket.gethostname())
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; the system chooses the address to go by
        hosts.append(probe.getsockname()[0])
    return list(dict.fromkeys(hosts)), False


def _listen(world: int, *, local: bool) -> socket.socket:
    """Return a socket that listens.

    Raises:
        OSError: If the system has no port.
    """
    backlog = max(world, 128)
    if not local and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("", 0), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
    return socket.create_server(("127.0.0.1" if local else "", 0), backlog=backlog)


def _connect(hosts: Sequence[str], port: int, wait: float) -> socket.socket:
    """Return a connection to the first of some hosts that takes it.

    Raises:
        OSError: If none does.
    """
    deadline = time.monotonic() + wait
    last = OSError(f"no address of rank 0 among {list(hosts)}")
    for at, host in enumerate(hosts):
        left = max(0.1, (deadline - time.monotonic()) / (len(hosts) - at))
        try:
            found = socket.create_connection((host, port), timeout=left)
        except OSError as error:
            last = error
        else:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return found
    raise last
