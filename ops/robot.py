"""A robot caller: dials as the page does, speaks PCM in real time, records what it hears, keeps every event.

All times are CLOCK_MONOTONIC in ns, so that they stand on one line with the traces of agents on the same machine.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
from livekit import rtc
from pydantic import TypeAdapter

from daemons import wire
from daemons.audio import FRAME_MS, Pcm, Samples, level_dbfs
from daemons.errors import AtCapacity, Unavailable, in_words
from daemons.media import LEFT_FOR_GOOD, join_room, join_token, leave_room
from daemons.settings import Settings

RATE_HZ = 48_000
FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
AUDIBLE_DBFS = -50.0
FILM_HZ = 10
CONNECT_TIMEOUT_S = 15.0
QUEUE_POLL_S = 1.0
STREAM_CLOSE_S = 1.0
RETURN_FOR_S = 20.0
RETURN_EACH_S = 1.0
LEAK_BLOCKS = 10  # that may wait to be heard by the microphone; older ones are dropped

_answer: TypeAdapter[wire.CallGranted | wire.CallQueued | wire.CallRefused] = TypeAdapter(
    wire.CallGranted | wire.CallQueued | wire.CallRefused
)


@dataclass(slots=True)
class Heard:
    """The agent's track on the robot's time line: gaps are silence of their true length."""

    began_ns: int = 0
    blocks: list[Samples] = field(default_factory=list)
    length: int = 0

    def add(self, samples: Samples, at_ns: int) -> None:
        """`samples` (int16 [n] at 48 kHz) ended at `at_ns`."""
        if not self.blocks:
            self.began_ns = at_ns - round(len(samples) / RATE_HZ * 1e9)
        missing = round((at_ns - self.began_ns) * RATE_HZ / 1e9) - self.length - len(samples)
        if missing > RATE_HZ // 5:  # less is jitter of the delivery
            self._append(np.zeros(missing, np.int16))
        self._append(samples)

    def audible_ns(self, after_ns: int) -> int | None:
        """When the first audible 10 ms after this moment began."""
        step = RATE_HZ // 100
        samples = self.pcm().samples
        start = max(0, round((after_ns - self.began_ns) * RATE_HZ / 1e9))
        for at in range(start, len(samples) - step, step):
            if level_dbfs(samples[at : at + step]) > AUDIBLE_DBFS:
                return self.began_ns + round(at / RATE_HZ * 1e9)
        return None

    def silent_ns(self, after_ns: int, before_ns: int) -> int:
        """When the last audible 10 ms between these moments ended; `after_ns` when there are none."""
        step = RATE_HZ // 100
        samples = self.pcm().samples
        start = max(0, round((after_ns - self.began_ns) * RATE_HZ / 1e9))
        end = min(len(samples), round((before_ns - self.began_ns) * RATE_HZ / 1e9))
        for at in range(end - step, start, -step):
            if level_dbfs(samples[at : at + step]) > AUDIBLE_DBFS:
                return self.began_ns + round((at + step) / RATE_HZ * 1e9)
        return after_ns

    def longest_silence_s(self, from_ns: int, to_ns: int) -> float:
        """The longest stretch between these moments without an audible 10 ms."""
        step = RATE_HZ // 100
        samples = self.between(from_ns, to_ns).samples
        longest = silent = 0
        for at in range(0, len(samples), step):
            silent = 0 if level_dbfs(samples[at : at + step]) > AUDIBLE_DBFS else silent + 1
            longest = max(longest, silent)
        return longest * step / RATE_HZ

    def between(self, from_ns: int, to_ns: int) -> Pcm:
        first, last = (max(0, round((at - self.began_ns) * RATE_HZ / 1e9)) for at in (from_ns, to_ns))
        return Pcm(self.pcm().samples[first:last], RATE_HZ)

    def pcm(self) -> Pcm:
        return Pcm(np.concatenate(self.blocks) if self.blocks else np.zeros(0, np.int16), RATE_HZ)

    def _append(self, samples: Samples) -> None:
        self.blocks.append(samples)
        self.length += len(samples)


@dataclass(frozen=True, slots=True)
class Reception:
    """What WebRTC counted of the agent's track. Concealed is what did not come in time, and was made up."""

    samples: int
    concealed: int
    packets_lost: int


class Robot:
    """One call, from `dial` to hang-up.

    `ask_again` gets a fresh token for the same call: a robot whose room is lost comes back, as the page does.
    """

    def __init__(self, ask_again: Callable[[], Awaitable[wire.CallGranted]]) -> None:
        self._ask_again = ask_again
        self.call_id = ""
        self.heard = Heard()
        self.events: list[dict[str, Any]] = []
        self.ended: wire.CallEnded | None = None
        self.leak_db: float | None = None  # how loud what is heard comes back through the microphone
        self._noise: Iterator[Samples] = itertools.repeat(np.zeros(FRAME_SAMPLES, np.int16))
        self._heard_now: deque[Samples] = deque(maxlen=LEAK_BLOCKS)
        self._room = rtc.Room()
        self._track: rtc.Track | None = None
        self._source = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=100)
        self._to_say: asyncio.Queue[tuple[Samples, asyncio.Future[int]]] = asyncio.Queue()
        self._happened = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def say(self, pcm: Pcm) -> int:
        """Speak in real time; returns when the first sample was sent, in ns, once the last one is."""
        began: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._to_say.put((pcm.resampled(RATE_HZ).samples, began))
        began_ns = await began
        await asyncio.sleep(max(0.0, began_ns / 1e9 + pcm.duration_ms / 1000 - time.monotonic()))
        return began_ns

    def surround(self, noise: Samples) -> None:
        """Noise is around the caller from now on, over and over: int16 [n] at 48 kHz, of whole frames."""
        self._noise = itertools.cycle(noise.reshape(-1, FRAME_SAMPLES))

    async def show(self, picture: npt.NDArray[np.uint8]) -> None:
        """Hold uint8 [height, width, 3], RGB, into the camera from now on. Raises Unavailable when none is allowed."""
        height, width, _ = picture.shape
        source = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track("camera", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False)
        try:
            await self._room.local_participant.publish_track(track, options)
        except rtc.participant.PublishTrackError as error:
            raise Unavailable(f"the camera is not let in: {error}") from error
        frame = rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, picture.tobytes())
        self._spawn(self._film(source, frame))

    async def write(self, text: str) -> None:
        """Type instead of speaking."""
        await self._room.local_participant.send_text(text, topic=wire.CHAT_TOPIC)

    async def event(self, matches: Callable[[dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
        """The first trace event that matches, past or to come. Raises TimeoutError; Unavailable when the call ends."""

        def found() -> dict[str, Any] | None:
            return next((event for event in self.events if matches(event)), None)

        try:
            async with asyncio.timeout(timeout_s), self._happened:
                await self._happened.wait_for(lambda: found() is not None or self.ended is not None)
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s in vain for the agent's next step") from None
        if (event := found()) is None:
            raise Unavailable(f"the call ended: {self.ended.message if self.ended else ''}")
        return event

    async def until_ended(self, timeout_s: float) -> wire.CallEnded:
        """The box's last word, to come or past. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._happened:
            await self._happened.wait_for(lambda: self.ended is not None)
        assert self.ended is not None  # noqa: S101 - for the type checker: that was waited for
        return self.ended

    async def reception(self) -> Reception:
        """Of the track that is heard now, so far; nothing where none has come."""
        stats = await self._track.get_stats() if self._track is not None else []
        rtp = next((entry.inbound_rtp for entry in stats if entry.HasField("inbound_rtp")), None)
        if rtp is None:
            return Reception(0, 0, 0)
        return Reception(rtp.inbound.total_samples_received, rtp.inbound.concealed_samples, rtp.received.packets_lost)

    async def join(self, granted: wire.CallGranted) -> None:
        """Enter the room and open the microphone. Raises Unavailable."""
        self.call_id = granted.call_id
        await self._enter(granted)
        self._spawn(self._speak())

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._room.disconnect()
        await self._source.aclose()

    async def _enter(self, granted: wire.CallGranted) -> None:
        room = rtc.Room()
        room.on("data_received", self._on_data)
        room.on("track_subscribed", self._on_track)
        room.on("disconnected", lambda reason: self._on_disconnected(room, reason))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await join_room(room, granted.url, granted.token, rtc.RoomOptions())
                self._room = room
                track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
                options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
                await room.local_participant.publish_track(track, options)
        except (rtc.ConnectError, rtc.participant.PublishTrackError, TimeoutError) as error:
            self._room = rtc.Room()
            await leave_room(room)
            why = str(error) or f"no connection within {CONNECT_TIMEOUT_S:g} s"
            raise Unavailable(f"the media server at {granted.url} is not reached: {why}") from error

    def _on_disconnected(self, room: rtc.Room, reason: "rtc.DisconnectReason.ValueType") -> None:
        if room is not self._room:
            return
        why = rtc.DisconnectReason.Name(reason)
        if self.ended is not None or reason in LEFT_FOR_GOOD:
            self._end(why)
        else:
            self._spawn(self._return(why))

    async def _return(self, why: str) -> None:
        deadline = time.monotonic() + RETURN_FOR_S
        while time.monotonic() < deadline:
            try:
                return await self._enter(await self._ask_again())
            except (Unavailable, AtCapacity):
                await asyncio.sleep(RETURN_EACH_S)
        self._end(why)

    async def _speak(self) -> None:
        """A microphone never stops: what is to be said, else silence, a frame each 20 ms by the clock."""
        silence = np.zeros(FRAME_SAMPLES, np.int16)
        samples, at = silence, len(silence)
        due_s = time.monotonic()
        while True:
            if at >= len(samples) and not self._to_say.empty():
                samples, began = self._to_say.get_nowait()
                at = 0
                began.set_result(time.monotonic_ns())
            frame = samples[at : at + FRAME_SAMPLES] if at < len(samples) else silence
            at += FRAME_SAMPLES
            padded = self._with_leak(added(np.pad(frame, (0, FRAME_SAMPLES - len(frame))), next(self._noise)))
            await self._source.capture_frame(rtc.AudioFrame(padded.tobytes(), RATE_HZ, 1, FRAME_SAMPLES))
            due_s = max(due_s + FRAME_MS / 1000, time.monotonic() - FRAME_MS / 1000)
            await asyncio.sleep(due_s - time.monotonic())

    async def _film(self, source: rtc.VideoSource, frame: rtc.VideoFrame) -> None:
        try:
            while True:
                source.capture_frame(frame)
                await asyncio.sleep(1 / FILM_HZ)
        finally:
            await source.aclose()

    def _with_leak(self, frame: Samples) -> Samples:
        """As a speakerphone's microphone does it: with what is heard, softer."""
        heard = np.zeros(0, np.int16)
        while self._heard_now and len(heard) < len(frame):
            heard = np.concatenate([heard, self._heard_now.popleft()])
        if self.leak_db is None:
            return frame
        heard, rest = heard[: len(frame)], heard[len(frame) :]
        if len(rest):
            self._heard_now.appendleft(rest)
        return added(frame, np.pad(heard, (0, len(frame) - len(heard))) * 10 ** (self.leak_db / 20))

    def _on_track(self, track: rtc.Track, _publication: Any, _participant: Any) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._track = track
            self._spawn(self._record(track))

    async def _record(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1)
        try:
            async for event in stream:
                samples = np.frombuffer(event.frame.data, np.int16).copy()
                self.heard.add(samples, time.monotonic_ns())
                self._heard_now.append(samples)
        finally:
            with contextlib.suppress(TimeoutError):  # a room being torn down may not send the last event
                await asyncio.wait_for(stream.aclose(), STREAM_CLOSE_S)

    def _on_data(self, packet: rtc.DataPacket) -> None:
        match packet.topic:
            case wire.TRACE_TOPIC:
                self.events.append(json.loads(packet.data))
            case wire.ENDED_TOPIC:
                self.ended = wire.CallEnded.model_validate_json(packet.data)
        self._spawn(self._notify())

    def _end(self, why: str) -> None:
        if self.ended is None:
            self.ended = wire.CallEnded(reason="media_lost", message=f"the room is gone ({why})")
        self._spawn(self._notify())

    async def _notify(self) -> None:
        async with self._happened:
            self._happened.notify_all()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def no_way_back() -> wire.CallGranted:
    """For a robot in a room without a call."""
    raise Unavailable("there is no call to come back to")


def way_into(settings: Settings, room: str, identity: str = wire.CALLER_IDENTITY) -> wire.CallGranted:
    """Into a room without a call."""
    token = join_token(settings, room, identity)
    return wire.CallGranted(call_id=room, secret="", room=room, url=settings.livekit_url, token=token, expires_at=0)


def added(samples: Samples, others: npt.NDArray[Any]) -> Samples:
    """Both int16 [n], or of its range; what is too loud together is clipped."""
    return np.clip(samples + others.astype(np.float64), -32768, 32767).astype(np.int16)


def happened(event: str, after_ns: int = 0, **data: Any) -> Callable[[dict[str, Any]], bool]:
    """Matches trace events of this name from that moment on with this data."""
    wanted = {"event": event, **data}
    return lambda record: record["t_ns"] >= after_ns and wanted.items() <= record.items()


@contextlib.asynccontextmanager
async def dial(
    door_url: str,
    *,
    access_key: str = "",
    camera: bool = False,
    record: bool = False,
    tts: wire.TtsRole = "tts",
    patience_s: float = 120,
    on_queued: Callable[[wire.CallQueued], None] = lambda _: None,
) -> AsyncIterator[Robot]:
    """Ask the box at `door_url` for a call, wait in its queue if need be, and join; hangs up at the end.

    `tts` is the role that speaks; another than "tts" is had with the operator's key, as `access_key`.
    Raises AtCapacity or Unavailable with the box's own words.
    """
    headers = {"Authorization": f"Bearer {access_key}"} if access_key else {}
    async with aiohttp.ClientSession(door_url, headers=headers) as session:
        asked = {name: "true" for name, wanted in (("camera", camera), ("record", record)) if wanted}
        asked["tts"] = tts
        granted = await _admitted(session, asked, patience_s, on_queued)
        robot = Robot(lambda: _granted_again(session, granted, asked))
        try:
            await robot.join(granted)
            yield robot
        finally:
            await robot.leave()
            with contextlib.suppress(aiohttp.ClientError):
                await session.delete(f"/api/calls/{granted.call_id}", headers={wire.CALL_SECRET: granted.secret})


async def _admitted(
    session: aiohttp.ClientSession,
    asked: dict[str, str],
    patience_s: float,
    on_queued: Callable[[wire.CallQueued], None],
) -> wire.CallGranted:
    deadline = time.monotonic() + patience_s
    answer = await _ask(session, "POST", "/api/calls", json={}, params=asked)
    place: int | None = None
    while not isinstance(answer, wire.CallGranted):
        if isinstance(answer, wire.CallRefused):
            raise (AtCapacity if answer.error == "full" else Unavailable)(answer.message)
        if answer.position != place:
            place = answer.position
            on_queued(answer)
        if time.monotonic() > deadline:
            raise AtCapacity(f"still number {answer.position} in the queue after {patience_s:g} s")
        await asyncio.sleep(QUEUE_POLL_S)
        answer = await _ask(
            session,
            "GET",
            f"/api/calls/{answer.call_id}",
            params=asked,
            headers={wire.CALL_SECRET: answer.secret},
        )
    return answer


async def _granted_again(
    session: aiohttp.ClientSession, granted: wire.CallGranted, asked: dict[str, str]
) -> wire.CallGranted:
    headers = {wire.CALL_SECRET: granted.secret}
    answer = await _ask(session, "GET", f"/api/calls/{granted.call_id}", headers=headers, params=asked)
    if not isinstance(answer, wire.CallGranted):
        raise Unavailable(answer.message if isinstance(answer, wire.CallRefused) else "the call's place is lost")
    return answer


async def _ask(
    session: aiohttp.ClientSession, method: str, path: str, **request: Any
) -> wire.CallGranted | wire.CallQueued | wire.CallRefused:
    try:
        async with session.request(method, path, **request) as response:
            text = await response.text()
    except aiohttp.ClientConnectorCertificateError as error:
        why = error.certificate_error
        raise Unavailable(f"the box's certificate is not trusted here ({why}); name it in SSL_CERT_FILE") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"the box does not answer: {in_words(error)}") from error
    try:
        return _answer.validate_json(text)
    except ValueError as error:
        raise Unavailable(f"the box answered {response.status}: {text[:200]}") from error
