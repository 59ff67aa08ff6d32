"""What the caller's camera sees: the newest frame of its track, as a picture that a model is shown."""

import asyncio
import base64
import contextlib
import io
import logging
from typing import cast

from livekit import rtc
from PIL import Image

from daemons.clock import Clock

log = logging.getLogger(__name__)

LONG_SIDE_PX = 512
MOST_BYTES = 64 * 1024  # of the JPEG file
QUALITIES = (80, 60, 40, 20)
EVERY_S = 0.2
FRESH_S = 2.0  # what was seen longer ago is not what the caller speaks of: the camera is off, or its network away
LIMIT_S = 0.25  # it is asked for while the voice is judged, and takes no longer than that
STREAM_CLOSE_S = 1.0


class Camera:
    """Without a track it costs nothing; with one, a frame each EVERY_S is looked at and only the newest is kept."""

    def __init__(self, clock: Clock, limit_s: float = LIMIT_S) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._newest: rtc.VideoFrameEvent | None = None
        self._seen_ns = 0

    async def watch(self, track: rtc.Track) -> None:
        """Until cancelled."""
        stream = rtc.VideoStream(track, capacity=1)
        try:
            await asyncio.to_thread(Image.preinit)  # the first picture need not wait for its encoder
            async for event in stream:
                self.see(event)
                await asyncio.sleep(EVERY_S)
        finally:
            self._newest = None
            with contextlib.suppress(TimeoutError):  # a room being torn down may not send the last event
                async with asyncio.timeout(STREAM_CLOSE_S):
                    await stream.aclose()

    def see(self, event: rtc.VideoFrameEvent) -> None:
        """This is the newest frame."""
        self._newest, self._seen_ns = event, self._clock.now_ns()

    async def picture(self) -> str | None:
        """As a `data:` URL; None when nothing was seen of late, or it cannot be had in time."""
        newest = self._newest
        if newest is None or self._clock.now_ns() - self._seen_ns > FRESH_S * 1e9:
            return None
        try:
            async with asyncio.timeout(self._limit_s):
                jpeg = await asyncio.to_thread(_jpeg_of, newest)
        except TimeoutError:
            log.info("the camera's picture took too long and does not go with the turn")
            return None
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else None


def _jpeg_of(event: rtc.VideoFrameEvent) -> bytes | None:
    frame = event.frame.convert(rtc.VideoBufferType.RGB24)
    picture = Image.frombytes("RGB", (frame.width, frame.height), bytes(frame.data))
    return jpeg_bytes(picture, turned_by=90 * cast(int, event.rotation))


def jpeg_bytes(picture: Image.Image, *, turned_by: int = 0) -> bytes | None:
    """A JPEG file of at most LONG_SIDE_PX and MOST_BYTES, turned clockwise by degrees; None if that is too little."""
    picture = picture.copy()
    picture.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
    if turned_by:
        picture = picture.rotate(-turned_by, expand=True)
    for quality in QUALITIES:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality)
        if out.tell() <= MOST_BYTES:
            return out.getvalue()
    return None
