"""The agent's side of one LiveKit room: the caller's audio in, the agent's audio, captions, state and traces out."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
from livekit import rtc

from daemons import wire
from daemons.agent.camera import Camera
from daemons.agent.playout import QUEUE_MS
from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Samples
from daemons.clock import SystemClock
from daemons.errors import Unavailable, in_words
from daemons.media import LEFT_FOR_GOOD, Rooms, join_room, join_token, leave_room
from daemons.settings import Settings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
STREAM_CLOSE_S = 1.0
PLAY_TIMEOUT_S = 5.0  # a frame waits for a few ms at most
LAST_WORDS_S = 1.0  # to a caller who may be gone already
ON_THEIR_WAY_S = 0.5  # the end of the room may overtake what was published before it
OUTBOX_MESSAGES = 256
RETURN_EACH_S = 0.5
SUBSCRIBED_AFTER_S = 0.5  # a caller who comes back is not all ears in the same breath
CAPTURE_FRAMES = 50  # 10 ms each; an agent that falls further behind drops the oldest


class CallRoom:
    """Made, opened and closed once. What happens in it is told through the callbacks given to `open`.

    Captions, state and traces go out in order from a bounded outbox: a slow data channel never holds up the audio.
    While the media server or the caller is away, what is to be heard and read waits for them.
    """

    def __init__(self, settings: Settings, rooms: Rooms, name: str) -> None:
        self._settings = settings
        self._rooms = rooms
        self._name = name
        self._room = rtc.Room()  # another one after each time that LiveKit's library has given up
        self._source = rtc.AudioSource(TTS_RATE_HZ, 1, queue_size_ms=QUEUE_MS + 20)
        self._camera = Camera(SystemClock())
        self._outbox: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue(OUTBOX_MESSAGES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._reachable = asyncio.Event()
        self._reachable.set()
        self._cleared = 0  # how often the playout took back what was to be played
        self._state: wire.AgentState = "initializing"
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._track_sid = ""
        self._caller_track_sid = ""
        self._on_audio: Callable[[Samples], None] = lambda _: None
        self._on_audible: Callable[[], None] = lambda: None
        self._on_caller: Callable[[bool, bool], None] = lambda _present, _on_purpose: None
        self._on_text: Callable[[str], None] = lambda _: None
        self._on_link: Callable[[bool], None] = lambda _: None
        self._on_lost: Callable[[str], None] = lambda _: None

    async def open(
        self,
        *,
        on_audio: Callable[[Samples], None],
        on_audible: Callable[[], None],
        on_caller: Callable[[bool, bool], None],
        on_text: Callable[[str], None],
        on_link: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """Create the room, join it and publish the agent's track.

        on_audio(int16 [n] at 16 kHz), as it comes. on_audible: the caller can hear the agent. on_caller(present,
        on_purpose): came or went. on_text: the caller typed. on_link(up): the media server is away, or is back.
        on_lost(why): the room is gone for good.
        Raises Unavailable.
        """
        self._on_audio, self._on_audible, self._on_caller = on_audio, on_audible, on_caller
        self._on_text, self._on_link, self._on_lost = on_text, on_link, on_lost
        await self._rooms.create(self._name)
        await self._join()
        self._spawn(self._send_outbox())

    async def close(self, ended: wire.CallEnded) -> None:
        """Say why, delete the room and leave nothing behind. Bounded, never raises."""
        if self._returning is not None:
            self._returning.cancel()
        if self._room.isconnected():
            with contextlib.suppress(TimeoutError, rtc.participant.PublishDataError):
                await asyncio.wait_for(self._publish(wire.ENDED_TOPIC, ended.model_dump_json()), LAST_WORDS_S)
                if self._room.remote_participants:
                    await asyncio.sleep(ON_THEIR_WAY_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        try:
            await self._rooms.delete(self._name)
        except Unavailable as error:
            log.warning("%s: %s; the server's own time-out will end it", self._name, error)
        await leave_room(self._room)
        await self._source.aclose()

    # The playout's sink

    async def play(self, samples: Samples) -> None:
        """Waits for who cannot be reached. A source that takes no more audio makes a room that is lost."""
        cleared = self._cleared
        await self._reachable.wait()
        if cleared != self._cleared:
            return
        try:
            async with asyncio.timeout(PLAY_TIMEOUT_S):
                await self._source.capture_frame(rtc.AudioFrame(samples.tobytes(), TTS_RATE_HZ, 1, len(samples)))
        except Exception as error:  # rtc raises bare Exception
            self._on_lost(f"it takes no audio: {in_words(error)}")

    def clear(self, unsent_samples: int) -> None:
        self._cleared += 1
        self._source.clear_queue()

    # What the page is told

    def tell_state(self, state: wire.AgentState) -> None:
        self._state = state
        self._post(lambda: self._room.local_participant.set_attributes({wire.AGENT_STATE_ATTRIBUTE: state}))

    def tell_trace(self, record: dict[str, Any]) -> None:
        self._post(lambda: self._publish(wire.TRACE_TOPIC, json.dumps(record)))

    def caption(self, text: str, *, segment: str, caller: bool, final: bool) -> None:
        """`text` is the whole segment so far; a later one of the same segment takes its place."""
        attributes = {
            "lk.segment_id": segment,
            "lk.transcription_final": "true" if final else "false",
            "lk.transcribed_track_id": self._caller_track_sid if caller else self._track_sid,
        }
        self._post(
            lambda: self._room.local_participant.send_text(text, topic=wire.TRANSCRIPTION_TOPIC, attributes=attributes)
        )

    def kept_as(self, generation: int) -> str | None:
        caller = self._room.remote_participants.get(wire.CALLER_IDENTITY)
        recorded = caller is not None and caller.attributes.get(wire.RECORDED) == "true"
        return wire.recording_of(self._name, generation) if recorded else None

    async def picture(self) -> str | None:
        """What the caller's camera sees now, as a `data:` URL; None when there is none to be had at once."""
        return await self._camera.picture()

    # Joining, and joining again

    async def _join(self) -> None:
        room = rtc.Room()
        room.on("track_subscribed", self._on_track)
        room.on("track_unsubscribed", self._on_track_gone)
        room.on("participant_connected", lambda person: self._presence(person, True))
        room.on("participant_disconnected", lambda person: self._presence(person, False))
        room.on("local_track_subscribed", lambda _track: self._on_audible())
        room.on("local_track_republished", self._on_republished)
        room.on("reconnecting", self._on_away)
        room.on("reconnected", self._on_back)
        room.on("disconnected", lambda reason: self._on_disconnected(room, reason))
        room.register_text_stream_handler(wire.CHAT_TOPIC, self._on_chat)
        token = join_token(self._settings, self._name, wire.AGENT_IDENTITY, agent=True)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                options = rtc.RoomOptions(auto_subscribe=True, connect_timeout=CONNECT_TIMEOUT_S)
                await join_room(room, self._settings.livekit_url, token, options)
                self._room = room
                track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
                microphone = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
                publication = await room.local_participant.publish_track(track, microphone)
        except (rtc.ConnectError, rtc.participant.PublishTrackError, TimeoutError) as error:
            await self._abandon(room)
            raise Unavailable(f"the media server did not let the agent in: {str(error) or 'time-out'}") from error
        self._track_sid = publication.sid
        for person in room.remote_participants.values():
            self._presence(person, True)

    async def _abandon(self, room: rtc.Room) -> None:
        self._room = rtc.Room()
        await leave_room(room)

    def _on_away(self) -> None:
        if self._returning is None:
            log.warning("%s: the media server is away", self._name)
            self._reachable.clear()
            self._returning = self._spawn(self._return())
            self._on_link(False)

    def _on_back(self) -> None:
        log.info("%s: the media server is back", self._name)
        if self._returning is not None:
            self._returning.cancel()
            self._returning = None
        self._on_link(True)
        self.tell_state(self._state)  # a server that was restarted has forgotten it
        self._reach()

    async def _return(self) -> None:
        """Until the call ends or its agent is in its room again.

        A server that was restarted has no rooms. LiveKit's library finds its way back by itself once there is one; it
        tries ten times, though, and then not any more.
        """
        while True:
            try:
                await self._rooms.create(self._name)
                if self._room.connection_state == rtc.ConnectionState.CONN_DISCONNECTED:
                    await self._join()
                    self._returning = None
                    return self._on_back()
            except Unavailable as error:
                log.info("%s: %s", self._name, error)
            await asyncio.sleep(RETURN_EACH_S)

    def _on_disconnected(self, room: rtc.Room, reason: "rtc.DisconnectReason.ValueType") -> None:
        if room is not self._room:
            return
        if reason in LEFT_FOR_GOOD:
            self._on_lost(rtc.DisconnectReason.Name(reason))
        else:
            self._on_away()

    def _on_republished(self, publication: rtc.LocalTrackPublication, _former_sid: str) -> None:
        self._track_sid = publication.sid

    # Inside

    def _post(self, send: Callable[[], Awaitable[object]]) -> None:
        try:
            self._outbox.put_nowait(send)
        except asyncio.QueueFull:
            log.warning("%s: the data channel does not keep up; a caption or trace is dropped", self._name)

    async def _send_outbox(self) -> None:
        while True:
            send = await self._outbox.get()
            await self._reachable.wait()
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await send()
            except Exception as error:  # rtc raises bare RuntimeError and Exception
                log.warning("%s: not sent: %s", self._name, in_words(error))

    async def _publish(self, topic: str, payload: str) -> None:
        await self._room.local_participant.publish_data(payload, topic=topic)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """A room that can no longer listen or tell is lost; better an end in words than a deaf agent."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", self._name, error, exc_info=error)
            self._on_lost(in_words(error))

    def _presence(self, person: rtc.RemoteParticipant, present: bool) -> None:
        if person.identity == wire.CALLER_IDENTITY:
            if present:
                self._reach()
            else:
                self._reachable.clear()
            self._on_caller(present, person.disconnect_reason == rtc.DisconnectReason.CLIENT_INITIATED)

    def _reach(self) -> None:
        def reach() -> None:
            if wire.CALLER_IDENTITY in self._room.remote_participants:
                self._reachable.set()

        asyncio.get_running_loop().call_later(SUBSCRIBED_AFTER_S, reach)

    def _on_track(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, person: rtc.RemoteParticipant
    ) -> None:
        if person.identity != wire.CALLER_IDENTITY:
            return
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._caller_track_sid = publication.sid
            if self._reading is not None:
                self._reading.cancel()  # the caller changed the microphone
            self._reading = self._spawn(self._read(track))
        elif self._settings.llm_sees:
            if self._watching is not None:
                self._watching.cancel()
            self._watching = self._spawn(self._camera.watch(track))

    def _on_track_gone(
        self, track: rtc.Track, _publication: rtc.RemoteTrackPublication, _person: rtc.RemoteParticipant
    ) -> None:
        if track.kind == rtc.TrackKind.KIND_VIDEO and self._watching is not None:
            self._watching.cancel()

    async def _read(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=STT_RATE_HZ, num_channels=1, capacity=CAPTURE_FRAMES)
        try:
            async for event in stream:
                self._on_audio(np.frombuffer(event.frame.data, np.int16))
        finally:
            with contextlib.suppress(TimeoutError):  # a room being torn down may not send the last event
                async with asyncio.timeout(STREAM_CLOSE_S):
                    await stream.aclose()

    def _on_chat(self, reader: rtc.TextStreamReader, identity: str) -> None:
        async def read() -> None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    text = await reader.read_all()
            except TimeoutError:
                log.warning("%s: what the caller typed did not arrive whole", self._name)
                return
            if identity == wire.CALLER_IDENTITY and text.strip():
                self._on_text(text.strip()[:1000])

        self._spawn(read())
