import configparser
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
from livekit import api
from livekit.protocol import rtc as proto
from supervisor.options import ServerOptions

from daemons.errors import ConfigurationError
from daemons.settings import Settings
from ops import livekit
from ops.programs import LISTENER, programs
from ops.render import interfaces, link_for_supervisorctl, node_ip, render
from tests.ops.conftest import MakeSettings

LIVEKIT = Path("/usr/bin/env")  # any program: these tests only render its name
START_S = 15.0


def supervisord_options(settings: Settings) -> ServerOptions:
    options = ServerOptions()
    options.realize(["-c", str(settings.var_dir / "etc/supervisord.conf"), "-n"], doc="supervisord")
    return options


def section(settings: Settings, name: str) -> dict[str, str]:
    conf = configparser.RawConfigParser()
    conf.read(settings.var_dir / "etc/supervisord.conf")
    return dict(conf[name])


def fingerprints(settings: Settings) -> dict[str, str]:
    kinds = {p.name: "eventlistener" if p.name == LISTENER else "program" for p in programs(settings)}
    return {name: section(settings, f"{kind}:{name}")["environment"] for name, kind in kinds.items()}


@contextmanager
def running(*command: str | Path) -> Iterator[psutil.Process]:
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        try:
            yield psutil.Process(it.pid)
        finally:
            it.terminate()


def listening(process: psutil.Process) -> set[tuple[str, str, int]]:
    """(kind, address, port) of the process and its children, once there is any."""
    deadline = time.monotonic() + START_S
    while True:
        found = {
            ("udp" if each.type.name == "SOCK_DGRAM" else "tcp", each.laddr.ip, each.laddr.port)
            for member in (process, *process.children())
            for each in member.net_connections("inet")
            if each.laddr and not each.raddr
        }
        if len(found) >= 2:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_supervisord_reads_what_is_rendered(settings: Settings) -> None:
    render(settings, LIVEKIT)
    groups = supervisord_options(settings).process_group_configs
    assert [group.name for group in sorted(groups, key=lambda group: group.priority)] == [
        *("listener", "redis", "livekit", "stt", "llm", "tts", "agent", "token", "monitor", "nginx")
    ]
    for group in groups:
        (process,) = group.process_configs
        assert process.exitcodes == [78]
        assert process.startsecs == 1
        assert process.stdout_logfile_maxbytes > 0
        assert process.environment["CONFIG_FINGERPRINT"]
    tts = next(group for group in groups if group.name == "tts").process_configs[0]
    assert tts.stopwaitsecs == settings.drain_s + 5
    assert tts.command.endswith("-m daemons.tts")
    assert tts.environment["CALLBOX_VAR_DIR"] == str(settings.var_dir)
    assert tts.environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert tts.environment["HF_HUB_OFFLINE"] == "1"
    listener = next(group for group in groups if group.name == "listener").process_configs[0]
    assert listener.command.endswith("-m daemons.monitor.listener stt llm tts agent token monitor")
    assert (listener.stdout_logfile, listener.redirect_stderr) == (None, False), "its stdout is a protocol"
    assert listener.stderr_logfile == str(settings.var_dir / "log/listener.log")
    assert listener.stderr_logfile_maxbytes > 0


def test_odd_paths_survive(make_settings: MakeSettings, var_dir: Path) -> None:
    odd = var_dir / "half of it"
    settings = make_settings(var_dir=odd, www_dir=odd / "www")
    render(settings, LIVEKIT)
    options = supervisord_options(settings)
    redis = next(group for group in options.process_group_configs if group.name == "redis").process_configs[0]
    assert redis.stdout_logfile == str(odd / "log/redis.log")
    assert redis.command.endswith(f'"{odd}/etc/redis.conf"')


def test_a_path_that_supervisord_cannot_read_is_named(make_settings: MakeSettings, var_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match="%"):
        render(make_settings(var_dir=var_dir / "50%"), LIVEKIT)


def test_files_with_secrets_are_for_nobody_else(settings: Settings) -> None:
    render(settings, LIVEKIT)
    for path in (settings.var_dir / "etc").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((settings.var_dir / "run").stat().st_mode) == 0o700


def test_only_what_a_setting_touches_looks_changed(make_settings: MakeSettings) -> None:
    render(make_settings(), LIVEKIT)
    before = fingerprints(make_settings())
    render(make_settings(), LIVEKIT)
    assert fingerprints(make_settings()) == before
    render(make_settings(slots=5), LIVEKIT)
    after = fingerprints(make_settings())
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"stt", "llm", "tts", "agent", "token", "monitor", "listener"}


def test_a_changed_secret_looks_changed(make_settings: MakeSettings) -> None:
    render(make_settings(access_key="first-key"), LIVEKIT)
    before = fingerprints(make_settings())
    render(make_settings(access_key="second-key"), LIVEKIT)
    assert fingerprints(make_settings())["token"] != before["token"]


def test_a_remote_redis_has_no_program_here(make_settings: MakeSettings) -> None:
    settings = make_settings(redis_url="redis://elsewhere:6379/0")
    render(settings, LIVEKIT)
    assert "redis" not in {group.name for group in supervisord_options(settings).process_group_configs}


def test_where_the_model_hears_stt_has_no_program(make_settings: MakeSettings) -> None:
    settings = make_settings(llm_omni=True, llm_engine="openai")
    render(settings, LIVEKIT)
    by_name = {program.name: program for program in programs(settings)}
    assert "stt" not in by_name
    assert "stt" not in by_name["listener"].command
    assert "stt" not in (settings.var_dir / "etc/prometheus.yml").read_text()
    assert "stt" in {program.name for program in programs(make_settings())}


def test_nginx_refuses_a_bad_certificate_in_words(make_settings: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ConfigurationError, match="nginx refuses"):
        render(
            make_settings(public_host="127.0.0.1", tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem"),
            LIVEKIT,
        )


def test_half_a_certificate_is_refused(make_settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CALLBOX_TLS_KEY"):
        render(make_settings(public_host="127.0.0.1", tls_cert=tmp_path / "cert.pem"), LIVEKIT)


def test_the_self_signed_certificate_names_the_host_and_stays(make_settings: MakeSettings) -> None:
    settings = make_settings(public_host="198.51.100.9", livekit_node_ip="198.51.100.9")
    render(settings, LIVEKIT)
    cert = settings.var_dir / "tls/cert.pem"
    first = cert.read_bytes()
    said = subprocess.run(
        ("openssl", "x509", "-in", cert, "-noout", "-ext", "subjectAltName"), capture_output=True, text=True, check=True
    )
    assert "198.51.100.9" in said.stdout
    render(settings, LIVEKIT)
    assert cert.read_bytes() == first
    render(make_settings(public_host="box.example", livekit_node_ip="198.51.100.9"), LIVEKIT)
    assert cert.read_bytes() != first
    assert stat.S_IMODE((settings.var_dir / "tls/key.pem").stat().st_mode) == 0o600


def test_media_stays_on_loopback_until_the_box_is_opened(make_settings: MakeSettings) -> None:
    assert node_ip(make_settings()) == "127.0.0.1"
    assert interfaces(make_settings()) == ["lo"]
    behind_a_router = make_settings(public_host="box.example", livekit_node_ip="203.0.113.4")
    assert node_ip(behind_a_router) == "203.0.113.4"
    assert len(interfaces(behind_a_router)) <= 1
    assert "lo" not in interfaces(behind_a_router)


def test_a_host_without_an_address_is_named(make_settings: MakeSettings) -> None:
    with pytest.raises(ConfigurationError, match="CALLBOX_LIVEKIT_NODE_IP"):
        node_ip(make_settings(public_host="nobody.invalid"))


def test_too_long_a_path_for_a_socket_is_named(make_settings: MakeSettings, tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 25)
    with pytest.raises(ConfigurationError, match="CALLBOX_VAR_DIR"):
        render(make_settings(var_dir=deep), LIVEKIT)


def test_only_the_clones_own_box_is_linked(settings: Settings, tmp_path: Path) -> None:
    link_for_supervisorctl(settings, tmp_path / "venv", tmp_path / "supervisord.conf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_redis_takes_its_configuration_and_listens_on_loopback(settings: Settings) -> None:
    render(settings, LIVEKIT)
    redis = programs(settings)[0]
    with running(*redis.command) as process:
        deadline = time.monotonic() + START_S
        while not (settings.var_dir / "redis/appendonlydir").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        addresses = {each.laddr.ip for each in process.net_connections("inet") if each.laddr}
    assert addresses == {"127.0.0.1"}


@pytest.mark.integration
async def test_livekit_stays_on_loopback_and_names_no_foreign_server(settings: Settings) -> None:
    binary = livekit.find(settings)
    if binary is None:
        pytest.skip("livekit-server is not installed; `callbox up` does it")
    render(settings, binary)
    program = next(program for program in programs(settings, binary) if program.name == "livekit")
    with running(*program.command) as process:
        assert listening(process) == {
            ("tcp", "127.0.0.1", settings.livekit_port),
            ("udp", "127.0.0.1", settings.livekit_udp_port),
        }
        key, secret = settings.livekit_api_key, settings.livekit_api_secret.get_secret_value()
        async with api.LiveKitAPI(f"http://127.0.0.1:{settings.livekit_port}", key, secret) as server:
            await server.room.create_room(api.CreateRoomRequest(name="here"))
        grants = api.VideoGrants(room_join=True, room="here")
        token = api.AccessToken(key, secret).with_identity("me").with_grants(grants).to_jwt()
        join = await join_response(settings, token)
        urls = [url for server in join.ice_servers for url in server.urls]
        assert urls == ["stun:127.0.0.1:9"]
        elsewhere = api.VideoGrants(room_join=True, room="nowhere")
        stranger = api.AccessToken(key, secret).with_identity("me").with_grants(elsewhere).to_jwt()
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await join_response(settings, stranger)


async def join_response(settings: Settings, token: str) -> proto.JoinResponse:
    """What livekit-server tells a client that joins."""
    url = f"ws://127.0.0.1:{settings.livekit_port}/rtc?access_token={token}&protocol=15"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as socket:
        while True:
            response = proto.SignalResponse()
            response.ParseFromString(await socket.receive_bytes())
            if response.HasField("join"):
                return response.join
