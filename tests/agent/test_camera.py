"""The caller's camera, as far as it needs no room: a picture's size, way up and age."""

import base64
import io

import numpy as np
import pytest
from livekit import rtc
from PIL import Image

from daemons.agent.camera import FRESH_S, LONG_SIDE_PX, MOST_BYTES, Camera, jpeg_bytes
from daemons.clock import FakeClock


def opened(jpeg: bytes | None) -> Image.Image:
    assert jpeg is not None
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1280, 720), (512, 288)), ((720, 1280), (288, 512)), ((320, 240), (320, 240)), ((4000, 30), (512, 4))],
)
def test_a_picture_is_scaled_down_and_never_up(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert opened(jpeg_bytes(Image.new("RGB", size, "green"))).size == expected


def test_the_worst_picture_stays_within_its_bytes() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (LONG_SIDE_PX, LONG_SIDE_PX, 3), np.uint8)
    jpeg = jpeg_bytes(Image.fromarray(noise))
    assert jpeg is None or len(jpeg) <= MOST_BYTES


def test_a_phone_held_upright_is_seen_upright() -> None:
    lying = Image.new("RGB", (64, 32), "blue")
    lying.paste("red", (0, 0, 32, 32))
    upright = opened(jpeg_bytes(lying, turned_by=90))
    assert upright.size == (32, 64)
    red, _, blue = upright.getpixel((16, 16))  # type: ignore[misc]
    assert red > blue, "what was on the left is on top"


async def test_what_was_seen_long_ago_is_not_shown() -> None:
    clock = FakeClock()
    camera = Camera(clock, limit_s=20)
    assert await camera.picture() is None
    frame = rtc.VideoFrame(64, 48, rtc.VideoBufferType.I420, bytes(64 * 48 * 3 // 2))
    camera.see(rtc.VideoFrameEvent(frame, 0, rtc.VideoRotation.VIDEO_ROTATION_0))  # type: ignore[arg-type]
    url = await camera.picture()
    assert url is not None
    assert opened(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))).size == (64, 48)
    await clock.advance(FRESH_S + 0.1)
    assert await camera.picture() is None
