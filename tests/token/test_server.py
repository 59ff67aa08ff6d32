import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import rtc

from daemons import media, wire
from daemons.errors import EXIT_DO_NOT_RESTART, EXIT_OK
from daemons.media import Rooms, join_token
from daemons.registry import CallState
from daemons.runtime import Runtime
from daemons.token import server
from daemons.token.server import TokenServer
from ops.livekit_server import LiveKitServer
from ops.redis_server import RedisServer
from tests.token.box import Box, box_settings
from tests.token.conftest import MakeBox
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def rooms(box: Box) -> AsyncIterator[Rooms]:
    rooms = Rooms(box.settings)
    yield rooms
    await rooms.close()


async def granted(box: Box) -> dict[str, Any]:
    answer = await box.ask()
    assert answer.status == 201, answer
    return answer.body


async def queued(box: Box) -> dict[str, Any]:
    answer = await box.ask()
    assert answer.status == 202, answer
    return answer.body


def payload(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return read


# Granted


async def test_a_call_is_granted_once_its_agent_is_in_the_room(box: Box, rooms: Rooms) -> None:
    box.agent.delay_s = 0.5
    began_s = time.monotonic()
    call = await granted(box)
    assert await rooms.has(call["room"], wire.AGENT_IDENTITY)
    assert time.monotonic() - began_s > 0.5
    assert await box.state(call) is CallState.HELD
    assert wire.CallGranted(**call).url == box.settings.livekit_url


async def test_without_its_agent_a_call_is_refused_in_time_and_costs_no_slot(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ROOM_READY_S", 0.5)
    box.agent.comes = False
    began_s = time.monotonic()
    answer = await box.ask()
    assert 0.5 < time.monotonic() - began_s < 2
    assert (answer.status, answer.body["error"]) == (503, "unavailable")
    assert "the agent did not come to the room in time" in answer.body["message"]
    assert answer.headers["Retry-After"] == "5"
    assert await box.is_free()


async def test_a_call_whose_agent_died_on_the_way_gets_the_next_one(box: Box) -> None:
    box.agent.comes = False
    asking = asyncio.create_task(box.ask())
    await asyncio.sleep(0.3)
    await box.start_agent("agent-2")
    answer = await asking
    async with asyncio.timeout(20):
        while answer.status == 202:  # the one was gone before the other was ready: it waits, and asks as a page does
            await asyncio.sleep(0.1)
            answer = await box.ask("GET", f"/{answer.body['call_id']}", answer.body["secret"])
    assert answer.status == 201


async def test_a_reloaded_page_gets_a_fresh_token_for_the_same_call(box: Box) -> None:
    call = await granted(box)
    again = await box.ask("GET", f"/{call['call_id']}", call["secret"])
    assert (again.status, again.body["room"]) == (201, call["room"])
    assert again.headers["Cache-Control"] == "no-store"


async def test_a_call_goes_on_when_its_page_reloads_while_the_media_server_is_away(
    box: Box, livekit: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "API_TIMEOUT_S", 0.3)
    call = await granted(box)
    livekit.pause()
    try:
        again = await box.ask("GET", f"/{call['call_id']}", call["secret"])
    finally:
        livekit.resume()
    assert (again.status, again.body["error"]) == (503, "unavailable")
    assert await box.state(call) is CallState.HELD
    assert (await box.ask("GET", f"/{call['call_id']}", call["secret"])).status == 201


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"X_Forwarded_Host": "box.example:8443", "X_Forwarded_Proto": "https"}, "wss://box.example:8443"),
        ({"X_Forwarded_Host": "localhost:8080", "X_Forwarded_Proto": "http"}, "ws://localhost:8080"),
        ({"X_Forwarded_Host": "pod.example", "X_Forwarded_Proto": "https,http"}, "wss://pod.example"),
        ({"X_Forwarded_Host": "box.example"}, "ws://box.example"),
    ],
)
async def test_a_page_reaches_the_media_where_it_reached_the_door(box: Box, headers: dict[str, str], url: str) -> None:
    assert (await box.ask(**headers)).body["url"] == url


# What a caller's token allows


async def test_a_token_is_for_one_room_a_microphone_and_data_and_not_for_long(box: Box) -> None:
    call = await granted(box)
    claims = payload(call["token"])
    assert claims["video"] == {
        "roomJoin": True,
        "room": call["room"],
        "canPublish": True,
        "canPublishSources": ["microphone"],
        "canPublishData": True,
        "canSubscribe": True,
        "canUpdateOwnMetadata": False,
    }
    assert set(claims) <= {"video", "sub", "iss", "nbf", "exp", "name", "metadata", "attributes", "kind", "sha256"}
    assert (claims["sub"], claims.get("kind", "standard")) == (wire.CALLER_IDENTITY, "standard")
    assert 590 < claims["exp"] - time.time() <= 600
    assert call["expires_at"] == pytest.approx(claims["exp"], abs=2)


async def test_the_media_server_lets_a_caller_speak_and_send_data_and_nothing_else(box: Box) -> None:
    call = await granted(box)
    caller, agent = rtc.Room(), rtc.Room()
    got_data: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    agent.on("data_received", lambda packet: got_data.set_result(packet.data))
    listener = join_token(box.settings, call["room"], "listener")
    await agent.connect(box.settings.livekit_url, listener)
    await caller.connect(call["url"], call["token"])
    try:
        await caller.local_participant.publish_track(microphone(), source_of("SOURCE_MICROPHONE"))
        await caller.local_participant.publish_data(b"hello", topic="lk.chat")
        assert await asyncio.wait_for(got_data, 5) == b"hello"
        with pytest.raises((rtc.participant.PublishTrackError, TimeoutError)):
            await asyncio.wait_for(
                caller.local_participant.publish_track(microphone(), source_of("SOURCE_SCREENSHARE_AUDIO")), 2
            )
    finally:
        await caller.disconnect()
        await agent.disconnect()


def microphone() -> rtc.LocalAudioTrack:
    return rtc.LocalAudioTrack.create_audio_track("audio", rtc.AudioSource(48_000, 1))


def source_of(name: str) -> rtc.TrackPublishOptions:
    return rtc.TrackPublishOptions(source=rtc.TrackSource.Value(name))


async def test_a_caller_cannot_administrate(box: Box) -> None:
    call = await granted(box)
    base = box.settings.livekit_url.replace("ws", "http", 1)
    headers = {"Authorization": f"Bearer {call['token']}"}
    for method, body in [("ListRooms", {}), ("DeleteRoom", {"room": call["room"]}), ("CreateRoom", {"name": "mine"})]:
        url = f"{base}/twirp/livekit.RoomService/{method}"
        async with aiohttp.ClientSession() as http, http.post(url, json=body, headers=headers) as answer:
            assert answer.status in (401, 403), method


async def test_an_old_token_opens_no_empty_room(box: Box, rooms: Rooms) -> None:
    call = await granted(box)
    await box.ask("DELETE", f"/{call['call_id']}", call["secret"])

    async def is_empty() -> bool:
        return not await rooms.has(call["room"], wire.AGENT_IDENTITY)

    await until(is_empty, within_s=5)
    caller = rtc.Room()
    with pytest.raises(rtc.ConnectError):
        await caller.connect(call["url"], call["token"])


# The queue


async def test_who_finds_it_full_waits_and_gets_the_next_turn(box: Box) -> None:
    first = await granted(box)
    second, third = await queued(box), await queued(box)
    assert (second["position"], third["position"], second["eta_s"]) == (1, 2, None)
    fourth = await box.ask()
    assert (fourth.status, fourth.body["error"], fourth.headers["Retry-After"]) == (503, "full", "5")
    assert "2 callers wait already" in fourth.body["message"]

    seen: list[tuple[str, int | None]] = []
    async with box.events(second) as events, box.events(third) as of_third:
        assert (await anext(events))["position"] == 1
        seen.append(place(await anext(of_third)))
        assert (await box.ask("DELETE", f"/{first['call_id']}", first["secret"])).status == 204
        turn = await anext(events)
        assert turn["status"] == "granted"
        seen.append(place(await anext(of_third)))
        assert (await box.ask("DELETE", f"/{second['call_id']}", second["secret"])).status == 204
        async for event in of_third:
            seen.append(place(event))
    assert seen == [("queued", 2), ("queued", 1), ("granted", None)], "and the stream ends with the grant"
    assert payload(turn["token"])["video"]["room"] == second["call_id"]


def place(event: dict[str, Any]) -> tuple[str, int | None]:
    return event["status"], event.get("position")


async def test_asking_again_keeps_the_place(box: Box) -> None:
    await granted(box)
    waiting = await queued(box)
    before = await box.registry.lookup(waiting["call_id"])
    await asyncio.sleep(0.5)
    again = await box.ask("GET", f"/{waiting['call_id']}", waiting["secret"])
    assert (again.status, again.body["position"]) == (202, 1)
    after = await box.registry.lookup(waiting["call_id"])
    assert before.expires_ms is not None
    assert after.expires_ms is not None
    assert after.expires_ms - before.expires_ms >= 400


async def test_a_page_that_closes_its_events_lets_its_place_lapse(box: Box) -> None:
    await granted(box)
    waiting = await queued(box)

    async def expires_ms() -> int:
        return (await box.registry.lookup(waiting["call_id"])).expires_ms or 0

    async with box.events(waiting) as events:
        await anext(events)
        at_first = await expires_ms()
        await asyncio.sleep(1.3)
        assert await expires_ms() > at_first, "an open stream keeps it"
    await asyncio.sleep(0.3)
    at_the_end = await expires_ms()
    await asyncio.sleep(1.5)
    assert await expires_ms() == at_the_end, "nobody asks for it any more"


async def test_who_leaves_the_queue_is_gone_from_it(box: Box) -> None:
    await granted(box)
    first, second = await queued(box), await queued(box)
    assert (await box.ask("DELETE", f"/{first['call_id']}", first["secret"])).status == 204
    assert await box.state(first) is CallState.NONE
    assert (await box.ask("GET", f"/{second['call_id']}", second["secret"])).body["position"] == 1


async def test_a_page_that_vanishes_while_it_asks_costs_no_slot(box: Box) -> None:
    box.agent.comes = False
    asking = asyncio.create_task(box.ask())
    await until(lambda: box.runtime.health.in_flight == 1, within_s=2)
    await asyncio.sleep(0.2)
    assert not await box.is_free()
    asking.cancel()
    await until(box.is_free, within_s=1)


async def test_an_outage_of_the_registry_costs_nobody_a_place(make_box: MakeBox, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        async with make_box(redis_url=redis.url) as box:
            await box.add_workers("agent", "stt", "llm", "tts")
            holder = await box.registry.acquire("holder", wire.CALL_ROLES)
            waiting = await queued(box)
            async with box.events(waiting) as events:
                assert (await anext(events))["position"] == 1
                redis.kill()
                refused = await box.ask()
                assert (refused.status, refused.body["error"]) == (503, "unavailable")
                assert "registry does not answer" in refused.body["message"]
                for method in ("GET", "DELETE"):
                    refused = await box.ask(method, f"/{waiting['call_id']}", waiting["secret"])
                    assert (refused.status, refused.body["error"]) == (503, "unavailable")
                await asyncio.sleep(1.5)
                redis.start()
                await box.start_agent()
                assert holder.fence is not None
                await box.registry.release("holder", holder.fence)
                assert (await anext(events))["status"] == "granted"


async def test_where_the_model_hears_a_call_needs_no_stt(make_box: MakeBox) -> None:
    async with make_box(llm_omni=True, llm_engine="openai") as box:
        await box.add_workers("llm", "tts")
        await box.start_agent()
        call = await granted(box)
        held = await box.registry.lookup(call["call_id"])
        assert held.state is CallState.HELD


@pytest.mark.parametrize(
    ("asked", "engine", "allowed"),
    [("", "openai", False), ("?camera=true", "openai", True), ("?camera=true", "transformers", False)],
)
async def test_a_camera_is_allowed_when_it_is_asked_for_and_the_model_sees(
    make_box: MakeBox, asked: str, engine: str, allowed: bool
) -> None:
    async with make_box(llm_omni=True, llm_engine=engine) as box:
        await box.add_workers("llm", "tts")
        await box.start_agent()
        call = (await box.ask(path=asked)).body
        again = await box.ask("GET", f"/{call['call_id']}{asked}", call["secret"])
        for granted_camera in (call, again.body):
            assert granted_camera["camera"] is allowed
            sources = payload(granted_camera["token"])["video"]["canPublishSources"]
            assert sources == ["microphone", *(["camera"] if allowed else [])]


@pytest.mark.parametrize(("asked", "recorded"), [("", False), ("?record=true", True), ("?record=1", False)])
async def test_a_call_is_recorded_when_its_caller_asks_for_it(make_box: MakeBox, asked: str, recorded: bool) -> None:
    async with make_box() as box:
        await box.add_workers("stt", "llm", "tts")
        await box.start_agent()
        call = (await box.ask(path=asked)).body
        assert call["recorded"] is recorded
        assert payload(call["token"]).get("attributes", {}) == ({wire.RECORDED: "true"} if recorded else {})


# Refused


OPERATOR = {"Authorization": "Bearer turn-the-page"}


async def test_the_labs_voice_is_for_the_operator_alone(make_box: MakeBox) -> None:
    async with make_box(access_key="open-sesame", operator_key="turn-the-page") as box:
        await box.add_workers("stt", "llm", "tts", "tts-lab")
        await box.start_agent()
        refused = await box.ask(path="?tts=tts-lab", Authorization="Bearer open-sesame")
        assert (refused.status, refused.body["error"]) == (403, "forbidden")
        assert "CALLBOX_OPERATOR_KEY" in refused.body["message"]
        assert (await box.ask(path="?tts=tts-lab", **OPERATOR)).status == 201
        workers = (await box.registry.snapshot()).workers
        assert {worker.role for worker in workers if worker.leases} == {"agent", "stt", "llm", "tts-lab"}


@pytest.mark.parametrize("key", ["", "turn-the-page"])
async def test_others_get_the_usual_voice_and_none_but_that(make_box: MakeBox, key: str) -> None:
    async with make_box(operator_key=key) as box:
        await box.add_workers("stt", "llm", "tts", "tts-lab")
        await box.start_agent()
        for given in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer turn-the-pagE"}):
            refused = await box.ask(path="?tts=tts-lab", **given)
            assert (refused.status, refused.body["error"]) == (403, "forbidden"), given
        call = (await box.ask(path="?tts=tts")).body
        workers = (await box.registry.snapshot()).workers
        assert {worker.role for worker in workers if worker.leases} == set(wire.CALL_ROLES)
        for path in ("", "/events"):
            refused = await box.ask("GET", f"/{call['call_id']}{path}?tts=tts-lab", call["secret"])
            assert (refused.status, refused.body["error"]) == (403, "forbidden"), path


@pytest.mark.parametrize("role", ["agent", "tts-other", ""])
async def test_a_role_that_is_none_is_refused_by_name(make_box: MakeBox, role: str) -> None:
    async with make_box(operator_key="turn-the-page") as box:
        refused = await box.ask(path=f"?tts={role}", **OPERATOR)
        assert (refused.status, refused.body["error"]) == (400, "bad_request")
        assert "tts, tts-lab" in refused.body["message"]


async def test_without_a_worker_of_the_labs_nobody_waits_for_one(make_box: MakeBox) -> None:
    async with make_box(operator_key="turn-the-page", queue_max=2) as box:
        await box.add_workers("agent", "stt", "llm", "tts")
        refused = await box.ask(path="?tts=tts-lab", **OPERATOR)
        assert (refused.status, refused.body["error"]) == (503, "unavailable")
        assert "no tts-lab worker is running" in refused.body["message"]
        assert (await box.registry.snapshot()).queue == ()


@pytest.mark.parametrize("missing", ["agent", "tts"])
async def test_the_role_that_is_missing_is_named(make_box: MakeBox, missing: str) -> None:
    async with make_box() as box:
        await box.add_workers(*(role for role in wire.CALL_ROLES if role != missing))
        answer = await box.ask()
        assert (answer.status, answer.body["error"]) == (503, "unavailable")
        assert f"no {missing} worker is running" in answer.body["message"]
        assert "Retry-After" in answer.headers


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("DELETE", "")])
async def test_only_who_has_a_calls_secret_may_ask_for_it(box: Box, method: str, path: str) -> None:
    call = await granted(box)
    address = f"/{call['call_id']}{path}"
    without = await box.ask(method, address)
    assert (without.status, without.body["error"]) == (400, "bad_request")
    assert "X-Call-Secret" in without.body["message"]
    for wrong in ("guessed", call["secret"][:-1], "é"):
        answer = await box.ask(method, address, wrong)
        assert (answer.status, answer.body["error"]) == (403, "forbidden"), wrong
    assert b" 403 " in await first_line(box, f"{method} /api/calls{address}", b"X-Call-Secret: \xff\xfe")
    other = await box.ask(method, f"/call-of-another{path}", call["secret"])
    assert other.status == 403
    assert await box.state(call) is CallState.HELD


async def test_a_call_that_is_over_is_not_found(box: Box) -> None:
    call = await granted(box)
    assert (await box.ask("DELETE", f"/{call['call_id']}", call["secret"])).status == 204
    assert await box.is_free()
    answer = await box.ask("GET", f"/{call['call_id']}", call["secret"])
    assert (answer.status, answer.body["error"]) == (404, "not_found")
    async with box.events(call) as events:
        assert [event["error"] async for event in events] == ["not_found"]
    assert (await box.ask("DELETE", f"/{call['call_id']}", call["secret"])).status == 204, (
        "hanging up twice is no error"
    )


async def test_a_service_with_a_key_asks_for_it(make_box: MakeBox) -> None:
    async with make_box(access_key="open-sesame") as box:
        await box.add_workers("stt", "llm", "tts")
        await box.start_agent()
        for given in ({}, {"Authorization": "Bearer open-sesamE"}):
            answer = await box.ask(**given)
            assert (answer.status, answer.body["error"]) == (403, "forbidden"), given
        assert b" 403 " in await first_line(box, "POST /api/calls", b"Authorization: Bearer \xff")
        answer = await box.ask(Authorization="Bearer open-sesame")
        assert answer.status == 201
        again = await box.ask("GET", f"/{answer.body['call_id']}", answer.body["secret"])
        assert again.status == 201, "the secret of a call is key enough"


async def test_a_body_that_is_huge_or_never_comes_holds_nothing_up(box: Box) -> None:
    assert b" 201 " in await first_line(box, "POST /api/calls", b"Content-Length: 1000000000")


async def first_line(box: Box, request: str, header: bytes) -> bytes:
    """What a client is answered that writes bytes as it likes, and no body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", box.settings.token_port)
    try:
        writer.write(f"{request} HTTP/1.1\r\nHost: box\r\n".encode() + header + b"\r\n\r\n")
        return await asyncio.wait_for(reader.readline(), 3)
    finally:
        writer.close()
        await writer.wait_closed()


# Its beginning and its end


@pytest.mark.parametrize("name", ["token_secret", "livekit_api_secret"])
async def test_without_a_secret_it_does_not_start(
    redis_url: str, livekit: LiveKitServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = box_settings(redis_url, livekit.settings, **{name: ""})
    assert await Runtime(settings, TokenServer).run() == EXIT_DO_NOT_RESTART
    assert f"CALLBOX_{name.upper()} is empty" in caplog.text


async def test_told_to_end_it_grants_what_it_has_begun_and_sends_others_away(box: Box) -> None:
    box.agent.delay_s = 0.8
    asking = asyncio.create_task(box.ask())
    await until(lambda: box.runtime.health.in_flight == 1, within_s=2)
    box.runtime.stop(EXIT_OK, "SIGTERM")
    await until(box.runtime.draining.is_set, within_s=1)
    answer = await box.ask()
    assert (answer.status, answer.body["error"]) == (503, "unavailable")
    assert (await asking).status == 201
