"""Network namespaces of a test's own, a wire between two of them, and a tap that counts what crosses it."""

import contextlib
import ctypes
import ipaddress
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import pytest

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 0x0003
SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_OUTGOING = 4
HEADERS_BYTES = 256
TAP_BUFFER_BYTES = 32 << 20

BOX = "10.77.0.1"
CALLER = "10.77.0.2"  # the box's way out leads through the caller, so that whatever tries to leave is seen there
NAME_SERVER = "10.77.1.53"
BOX_V6, CALLER_V6 = "fd77::1", "fd77::2"
WIRE = "eth0"

_libc = ctypes.CDLL(None, use_errno=True)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Namespace:
    """A network of its own with loopback up; at the end it goes, with whatever still runs in it."""

    def __init__(self, label: str) -> None:
        self.name = f"cb{os.getpid()}-{label}"
        self._resolver = Path("/etc/netns") / self.name

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("network namespaces want root and iproute2's `ip`")
        try:
            _ip("netns", "add", self.name)
            _ip("netns", "exec", self.name, "true")  # wants / to be a mount, which in a chroot it is not
        except OSError as error:
            with contextlib.suppress(OSError):
                _ip("netns", "del", self.name)
            pytest.skip(f"no network namespaces here: {error}")
        try:
            self.ip("link", "set", "lo", "up")
            self._resolver.mkdir(parents=True)
            resolver = f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n"
            (self._resolver / "resolv.conf").write_text(resolver, encoding="ascii")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pid in _ip("netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "del", self.name)
        shutil.rmtree(self._resolver, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._resolver.parent.rmdir()  # other namespaces keep it

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to write before a command that is to run in here."""
        return ("ip", "netns", "exec", self.name)

    def ip(self, *words: str) -> str:
        return _ip("-n", self.name, *words)

    def run(
        self, *command: str | Path, env: dict[str, str] | None = None, timeout_s: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        words: Sequence[str | Path] = [*self.prefix, *command]
        return subprocess.run(words, env=env, timeout=timeout_s, capture_output=True, text=True, check=False)

    def without_udp(self) -> contextlib.AbstractContextManager[None]:
        """A network that lets no UDP out."""
        return self._without("ipproto", "udp")

    def cut_off(self) -> contextlib.AbstractContextManager[None]:
        """A network that lets nothing out."""
        return self._without("from", "all")

    @contextlib.contextmanager
    def _without(self, *what: str) -> Iterator[None]:
        rule = (*what, "blackhole")
        for family in ("-4", "-6"):
            self.ip(family, "rule", "add", *rule)
        try:
            yield
        finally:
            for family in ("-4", "-6"):
                self.ip(family, "rule", "del", *rule)

    def inside(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread whose new sockets belong in here."""

        def enter_and_work() -> T:
            with (Path("/run/netns") / self.name).open(encoding="ascii") as file:
                if _libc.setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {self.name}")
            return work()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(enter_and_work).result()


@contextlib.contextmanager
def wired() -> Iterator[tuple[Namespace, Namespace]]:
    """(the box's, the caller's): two namespaces with a wire between them, over which the box's default routes lead."""
    with Namespace("box") as box, Namespace("caller") as caller:
        box.ip("link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", caller.name)
        ends = ((box, BOX, BOX_V6), (caller, CALLER, CALLER_V6))
        for namespace, address, address_v6 in ends:
            namespace.ip("addr", "add", f"{address}/24", "dev", WIRE)
            namespace.ip("addr", "add", f"{address_v6}/64", "dev", WIRE, "nodad")
            namespace.ip("link", "set", WIRE, "up")
        box.ip("route", "add", "default", "via", CALLER)
        box.ip("-6", "route", "add", "default", "via", CALLER_V6)
        yield box, caller


class Packet(NamedTuple):
    """One kind of packet. `to` is what an ARP or neighbour request asks for; ports are 0 where there are none."""

    kind: str
    from_port: int
    to: str
    to_port: int


class Tap:
    """Counts each packet that reaches this end of the wire while the context lasts."""

    def __init__(self, namespace: Namespace) -> None:
        self.packets: Counter[Packet] = Counter()
        self._namespace = namespace
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._count, name="tap", daemon=True)

    def __enter__(self) -> Self:
        self._socket = self._namespace.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, TAP_BUFFER_BYTES)
        self._socket.bind((WIRE, ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def lost(self) -> int:
        """How many packets went by uncounted since the last time this was asked."""
        _, lost = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        return int(lost)

    def sent(self, kind: str, from_port: int) -> int:
        """How many packets of this kind came from this port."""
        return sum(count for packet, count in self.packets.items() if packet[:2] == (kind, from_port))

    def strays(self) -> dict[Packet, int]:
        """What went elsewhere than to the caller, and is no neighbour's word about the two ends."""
        return {packet: count for packet, count in self.packets.items() if not _is_expected(packet)}

    def _count(self) -> None:
        while not self._closing.is_set():
            try:
                data, (_, _, direction, *_) = self._socket.recvfrom(HEADERS_BYTES)
            except TimeoutError:
                continue
            if direction != PACKET_OUTGOING:
                self.packets[_parsed(data)] += 1


def _parsed(frame: bytes) -> Packet:
    ether_type = int.from_bytes(frame[12:14], "big")
    if ether_type == 0x0806:
        return Packet("arp", 0, str(ipaddress.ip_address(frame[38:42])), 0)
    if ether_type == 0x0800:
        header = 14 + (frame[14] & 0x0F) * 4
        return _transport(frame[23], frame[header:], str(ipaddress.ip_address(frame[30:34])))
    if ether_type == 0x86DD:
        protocol, payload = frame[20], frame[54:]
        if protocol == 0:  # hop-by-hop options, before multicast reports
            protocol, payload = payload[0], payload[(payload[1] + 1) * 8 :]
        return _transport(protocol, payload, str(ipaddress.ip_address(frame[38:54])))
    return Packet(f"ether {ether_type:#06x}", 0, frame[:6].hex(":"), 0)


def _transport(protocol: int, payload: bytes, to: str) -> Packet:
    match protocol:
        case socket.IPPROTO_TCP | socket.IPPROTO_UDP:
            from_port, to_port = struct.unpack_from("!HH", payload)
            return Packet("tcp" if protocol == socket.IPPROTO_TCP else "udp", from_port, to, to_port)
        case socket.IPPROTO_ICMPV6 if payload[0] == 135:
            return Packet("icmpv6 135", 0, str(ipaddress.ip_address(payload[8:24])), 0)
        case socket.IPPROTO_ICMPV6:
            return Packet(f"icmpv6 {payload[0]}", 0, to, 0)
    return Packet(f"ip {protocol}", 0, to, 0)


def _is_expected(packet: Packet) -> bool:
    match packet.kind:
        case "arp" | "icmpv6 135":  # who has …?
            return packet.to in (BOX, CALLER, BOX_V6, CALLER_V6) or packet.to.startswith("fe80:")
        case "icmpv6 133" | "icmpv6 136" | "icmpv6 143":  # the kernel's: is there a router, I am here, groups I hear
            return True
        case "tcp" | "udp":
            return packet.to in (CALLER, CALLER_V6)
    return False
