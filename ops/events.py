"""What happened to a call, a worker or a program: the registry's audit log in words."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any

from daemons.errors import BadRequest, Unavailable
from daemons.monitor.recovery import WORDS
from daemons.registry import Event, Registry, connect

POLL_S = 0.5
RETRY_S = 1.0
PAGE = 1000
FIRST = "0-0"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Fields = Mapping[str, str]


def _granted(event: Fields) -> str:
    waited_s = int(event["waited_ms"]) / 1000
    members = ", ".join(member.replace("=", " ") for member in event["members"].split())
    return f"got its slots {f'after {waited_s:.1f} s' if waited_s >= 0.05 else 'at once'}: {members}; fence {{fence}}"


def _queued(event: Fields) -> str:
    return "waits for free slots, place {position}" if "position" in event else "waits again, where it was: {why}"


def _expired(event: Fields) -> str:
    if event["was"] == "RESERVED":
        return "did not come for the slots that were kept for it: given to the next"
    return "lost its place in the queue: nobody asked for it any more"


def _cancelled(event: Fields) -> str:
    return "gave up the slots that were kept for it" if event["was"] == "RESERVED" else "left the queue"


def _gone(event: Fields) -> str:
    return "has said goodbye" if event["why"] == "deregistered" else "is gone: {why}; whoever held it has lost it"


# Of a call or a worker, which stands before it. Their kinds are made in daemons/registry/lua/.
_SENTENCES: Mapping[str, str | Callable[[Fields], str]] = {
    "queued": _queued,
    "refused": "was refused: every slot is taken, and so is every place in the queue",
    "reserved": "is next: slots are kept for it until it asks, for 6 s; fence {fence}",
    "granted": _granted,
    "cancelled": _cancelled,
    "expired": _expired,
    "released": "has ended; its slots are free",
    "lost": "was ENDED by the registry: {why}",
    "revoked": "has lost its {role} {worker}: {why}; it looks for another",
    "swapped": "moved to {role} {worker}, away from {was}; fence {fence}",
    "adopted": "was given back by its agent, which still held it, to a registry that had lost it; fence {fence}",
    "registered": "has started; slots: {slots}, boot {boot:.8}",
    "retired": "was replaced: boot {boot:.8}, which was {was}, may never come back",
    "starting": "is loading, and answers again",
    "available": "is ready for calls (was {was})",
    "unhealthy": "is NOT WELL: {why}; it gets no new calls and keeps those it has",
    "draining": "gets no more calls: it is being stopped or restarted, and its calls move to another",
    "gone": _gone,
}
KINDS = frozenset(_SENTENCES) | frozenset(map(str, WORDS))


def line(event: Event) -> str:
    """When, who and what. What is not known by its kind is shown as it is."""
    return f"{moment(event).strftime('%Y-%m-%d %H:%M:%S.%f')[:-3]}  {_printable(sentence(event))}"


def sentence(event: Event) -> str:
    fields = event.data
    try:
        words = WORDS.get(event.kind) or _SENTENCES[event.kind]  # type: ignore[call-overload]
        text = (words if isinstance(words, str) else words(fields)).format_map(fields)
        who = fields["call"] if "call" in fields else f"{fields['role']} {fields['worker']}" if "role" in fields else ""
    except (LookupError, ValueError):
        return " ".join([event.kind, *(f"{name}={value}" for name, value in sorted(fields.items()))])
    return f"{who} {text}".strip()


def as_data(event: Event) -> dict[str, Any]:
    when = moment(event).isoformat(timespec="milliseconds")
    return {"id": event.id, "time": when, "kind": event.kind, **event.data, "text": sentence(event)}


def moment(event: Event) -> datetime:
    """When it was by the clock of Redis's machine, in the time zone of this one."""
    return datetime.fromtimestamp(int(event.id.partition("-")[0]) / 1000).astimezone()


def concerns(event: Event, call: str | None, worker: str | None) -> bool:
    """Whether it is about this call (the beginning of its name will do) and this worker (host:port, role, program)."""
    fields = event.data
    if call is not None and not fields.get("call", "").startswith(call):
        return False
    if worker is None:
        return True
    members = re.split(r"[ =/]", fields.get("members", ""))
    return worker in (fields.get("worker"), fields.get("role"), fields.get("program"), *members) or (
        event.kind == "swapped" and worker == fields.get("was")
    )


def since(text: str, now_ms: float) -> str:
    """The stream id of a while ago: 90s, 10m, 2h, 1d."""
    matched = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if matched is None:
        raise BadRequest(f"--since {text}: a number with s, m, h or d is wanted, as in 10m")
    return f"{max(0, round(now_ms) - int(matched[1]) * UNITS_S[matched[2]] * 1000)}-0"


async def read(registry: Registry, after: str = FIRST) -> AsyncIterator[Event]:
    """What the registry still knows (about 10,000 entries), oldest first. Raises Unavailable."""
    while events := await registry.events(after, PAGE):
        for event in events:
            yield event
        after = events[-1].id


async def follow(registry: Registry, after: str | None, say: Callable[[str], None]) -> AsyncIterator[Event]:
    """The same and then what happens, for ever; only what happens from now on when `after` is None.

    An outage of Redis is told to `say`, and waited for.
    """
    away, newest = False, FIRST
    this = asyncio.current_task()
    while this is not None and not this.cancelling():  # Python 3.11 loses a cancel that meets Redis's answer
        try:
            if after is None or away:
                newest, before = (await registry.snapshot()).last_event, newest
                if away:
                    say("the registry answers again")
                if _place(newest) < _place(before):
                    say("it has lost its data; what follows is all that it knows")
                    after = FIRST
                after, away = newest if after is None else after, False
            async for event in read(registry, after):
                after = newest = event.id
                yield event
            await asyncio.sleep(POLL_S)
        except Unavailable as error:
            if not away:
                say(f"{error}; waiting for it")
            away = True
            await asyncio.sleep(RETRY_S)


async def tell(
    redis_url: str, after: str | None, *, call: str | None, worker: str | None, follows: bool, as_json: bool
) -> None:
    """Write to stdout what concerns a call or a worker, to stderr what becomes of the registry meanwhile."""
    registry = connect(redis_url)
    happened = follow(registry, after, _to_stderr) if follows else read(registry, after or FIRST)
    try:
        async for event in happened:
            if concerns(event, call, worker):
                text = json.dumps(as_data(event), ensure_ascii=False) if as_json else line(event)
                sys.stdout.write(text + "\n")
                if follows:
                    sys.stdout.flush()
        sys.stdout.flush()
    finally:
        await registry.close()


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"callbox: {text}\n")


def _place(entry_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split("-"))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
