"""etc/*.tmpl → var/etc/*: nginx, supervisord, redis and livekit-server cannot compute."""

import hashlib
import ipaddress
import os
import pwd
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from daemons.errors import EXIT_DO_NOT_RESTART, ConfigurationError
from daemons.settings import PREFIX, ROOT, Settings
from ops import page, tls, vllm
from ops.kept import write_private
from ops.programs import LISTENER, NGINX_SAYS, Program, daemons, nginx_command, programs
from ops.supervise import BOX_VARIABLE

# Nobody listens on the discard port of the caller's own machine, so a browser that asks there learns nothing and
# tells nobody; an empty list would make livekit-server name public servers.
STUN_NOBODY = "127.0.0.1:9"
SECRET_CHARACTERS = 32  # livekit-server warns about shorter ones
SOCKET_PATH_BYTES = 100  # sun_path holds 108, and supervisord adds a suffix while it binds
DOORS = (
    ("/tts/", "tts"),
    ("= /stream", "tts"),
    ("= /config", "tts"),
    ("= /v1/audio/speech", "tts"),
    ("= /v1/audio/transcriptions", "stt"),
    ("= /stt/live", "stt"),
    ("= /v1/chat/completions", "llm"),
    ("= /v1/models", "llm"),
)


@dataclass(frozen=True)
class SupervisedProgram:
    """A program as supervisord's configuration spells it."""

    name: str
    command: str
    environment: str
    stop_wait_s: int
    is_daemon: bool
    is_listener: bool


def render(settings: Settings, livekit_bin: Path) -> None:
    """Write everything under var/etc. Raises ConfigurationError when the settings do not go together."""
    var_dir = settings.var_dir.resolve()
    etc = var_dir / "etc"
    run_dir, log_dir, redis_dir = var_dir / "run", var_dir / "log", var_dir / "redis"
    if len(f"{run_dir}/supervisor.sock".encode()) > SOCKET_PATH_BYTES:
        raise ConfigurationError(
            f"{run_dir} is too long a path for a Unix socket; set {PREFIX}VAR_DIR to a shorter one"
        )
    if strange := next((path for path in (var_dir, ROOT) if "%" in str(path)), None):
        raise ConfigurationError(f"{strange}: supervisord takes % for a variable; use a path without it")
    for folder in (etc, run_dir, log_dir, redis_dir):
        folder.mkdir(parents=True, exist_ok=True)
    run_dir.chmod(0o700)

    rendered = {
        "redis": redis_conf(settings.redis_port, redis_dir),
        "livekit": _livekit(settings),
        "nginx": _nginx(settings, run_dir),
    }
    files = {"redis": "redis.conf", "livekit": "livekit.yaml", "nginx": "nginx.conf"}
    if settings.vllm_runs:
        rendered[vllm.NAME] = vllm.deploy_yml(settings)
        files[vllm.NAME] = "vllm.yaml"
    for name, file_name in files.items():
        write_private(etc / file_name, rendered[name])
    code = code_fingerprint()
    everything = settings.model_dump_json() + "".join(_revealed(settings))
    supervised = [
        SupervisedProgram(
            name=program.name,
            command=" ".join(_quoted(word) for word in program.command),
            environment=_environment(settings, program, rendered.get(program.name, everything + code)),
            stop_wait_s=program.stop_wait_s,
            is_daemon=program.is_daemon,
            is_listener=program.name == LISTENER,
        )
        for program in programs(settings, livekit_bin)
    ]
    conf = _fill(
        "supervisord.conf.tmpl",
        programs=supervised,
        root=ROOT,
        run_dir=run_dir,
        log_dir=log_dir,
        is_root=os.geteuid() == 0,
        do_not_restart=EXIT_DO_NOT_RESTART,
    )
    write_private(etc / "supervisord.conf", conf)
    write_private(etc / "prometheus.yml", prometheus_yml(settings, ROOT / "etc/prometheus/callbox.rules.yml"))
    _check_nginx(settings)


def redis_conf(port: int, folder: Path) -> str:
    """The registry's server: on loopback, with its data in `folder`."""
    return _fill("redis.conf.tmpl", redis_port=port, redis_dir=folder)


def prometheus_yml(settings: Settings, rules: Path) -> str:
    """For a Prometheus on this machine, which is not one of the box's programs."""
    return _fill(
        "prometheus/prometheus.yml.tmpl",
        var_dir=settings.var_dir.resolve(),
        rules=rules,
        health_ports=[(name, getattr(settings, f"{name}_port") + 1) for name in daemons(settings)],
    )


def link_for_supervisorctl(settings: Settings, venv: Path, system: Path = Path("/etc/supervisord.conf")) -> None:
    """Let `supervisorctl` find this box from anywhere: it looks beside its own bin folder, and in /etc.

    Only the clone's own box is linked; a file in /etc that another service put there stays.
    """
    if settings.var_dir.resolve() != ROOT / "var":
        return
    conf = settings.var_dir.resolve() / "etc/supervisord.conf"
    links = [venv / "etc/supervisord.conf"]
    if os.geteuid() == 0 and (not os.path.lexists(system) or (system.is_symlink() and not system.exists())):
        links.append(system)
    for link in links:
        if link.is_symlink() and link.readlink() == conf:
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        new = link.with_name(link.name + ".new")
        new.unlink(missing_ok=True)
        new.symlink_to(conf)
        new.replace(link)


def code_fingerprint() -> str:
    """One hash over what the daemons run: their own sources and the packages' lock."""
    whole = hashlib.sha256((ROOT / "requirements.lock").read_bytes())
    for path in sorted((ROOT / "daemons").rglob("*")):
        if path.suffix in {".py", ".lua"}:
            whole.update(path.read_bytes())
    return whole.hexdigest()


def node_ip(settings: Settings) -> str:
    """The address in LiveKit's ICE candidates. Raises ConfigurationError when a name cannot be resolved."""
    wanted = settings.livekit_node_ip or settings.public_host
    if not wanted:
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(wanted))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(wanted, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise ConfigurationError(
            f"{wanted} has no address ({error.strerror}); set {PREFIX}LIVEKIT_NODE_IP to the one that callers reach"
        ) from error


def interfaces(settings: Settings) -> list[str]:
    """The network interfaces that media use: of all whose address node_ip stands in for, livekit-server uses only one.

    The one that has node_ip; when none has (it is a router's or a pod's), the one that leads out; none means all.
    """
    wanted = node_ip(settings)
    holding = [name for name, known in psutil.net_if_addrs().items() if any(each.address == wanted for each in known)]
    return holding or _default_route()


def _default_route() -> list[str]:
    try:
        lines = Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    ways = [line.split() for line in lines]
    outward = [(int(way[6]), way[0]) for way in ways if way[1] == way[7] == "00000000"]  # (metric, name)
    return [min(outward)[1]] if outward else []


def _livekit(settings: Settings) -> str:
    secret = settings.livekit_api_secret.get_secret_value()
    if len(secret) < SECRET_CHARACTERS:
        raise ConfigurationError(f"{PREFIX}LIVEKIT_API_SECRET must have at least {SECRET_CHARACTERS} characters")
    stun_servers = [server.strip() for server in settings.stun_servers.split(",") if server.strip()]
    return _fill(
        "livekit.yaml.tmpl",
        settings=settings,
        node_ip=node_ip(settings),
        interfaces=interfaces(settings),
        livekit_api_secret=secret,
        stun_servers=stun_servers or [STUN_NOBODY],
    )


def _nginx(settings: Settings, run_dir: Path) -> str:
    www_dir = page.www_dir(settings)
    temp_dir = www_dir.parent / "nginx"
    temp_dir.mkdir(parents=True, exist_ok=True)
    is_root = os.geteuid() == 0
    listens = [f"{'0.0.0.0' if settings.tls_by_proxy else '127.0.0.1'}:{settings.http_port}"]  # noqa: S104
    certificate: tls.Certificate | None = None
    if settings.public_host and not settings.tls_by_proxy:
        listens += [f"{settings.https_port} ssl"] + ([f"[::]:{settings.https_port} ssl"] if _has_ipv6() else [])
        certificate = tls.certificate(settings)
    return _fill(
        "nginx.conf.tmpl",
        settings=settings,
        run_dir=str(run_dir),
        temp_dir=str(temp_dir),
        www_dir=str(www_dir),
        nginx_user=_unprivileged_user() if is_root else "",
        mime_types=str(_mime_types()),
        listens=listens,
        tls_cert=certificate and str(certificate.cert),
        tls_key=certificate and str(certificate.key),
        tls_fingerprint=certificate and certificate.fingerprint,
        access_key=settings.access_key.get_secret_value(),
        doors=DOORS,
        nginx_says=NGINX_SAYS,
    )


def _check_nginx(settings: Settings) -> None:
    said = subprocess.run((*nginx_command(settings), "-t"), capture_output=True, text=True, timeout=20, check=False)
    if said.returncode:
        raise ConfigurationError(f"nginx refuses its configuration:\n  {said.stderr.strip()}")


def _environment(settings: Settings, program: Program, content: str) -> str:
    """The fingerprint is there to be different: supervisord restarts what differs, and nothing else."""
    known = {
        "CONFIG_FINGERPRINT": hashlib.sha256(content.encode()).hexdigest()[:16],
        BOX_VARIABLE: str(settings.var_dir.resolve()),
    }
    if program.name == vllm.NAME:
        known |= vllm.environment(settings)
    if program.is_daemon:
        known |= {
            # llama.cpp's threads wait for each other by spinning. Where cores are shared that starves the very thread
            # they wait for: with two busy neighbours 19 tokens/s against 5, and a first token after 0.4 s against 2.5.
            "GOMP_SPINCOUNT": "300",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # cards are counted as nvidia-smi does
            "HF_HUB_OFFLINE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "PYTHONUNBUFFERED": "1",
        }
    return ",".join(f"{name}={_quoted(value)}" for name, value in known.items())


def _revealed(settings: Settings) -> tuple[str, ...]:
    """The secrets, which a dump hides: a changed one must change the fingerprint."""
    hidden = (
        settings.access_key,
        settings.operator_key,
        settings.livekit_api_secret,
        settings.token_secret,
        settings.llm_upstream_api_key,
        settings.vllm_api_key,
        settings.stt_omni_api_key,
    )
    return tuple(secret.get_secret_value() for secret in hidden)


def _quoted(word: str) -> str:
    """For supervisord, which splits like a shell and expands `%`."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if re.search(r"[^\w./:@+=%-]", word) or not word else escaped


def _fill(template: str, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "etc"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - none of these files is HTML
    )
    environment.filters["quote"] = lambda value: '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    environment.filters["regex"] = re.escape
    return environment.get_template(template).render(**values)


def _unprivileged_user() -> str:
    for name in ("www-data", "nginx", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise ConfigurationError("none of the users www-data, nginx, nobody exists; nginx needs one to serve as")


def _mime_types() -> Path:
    found = next((path for path in (Path("/etc/nginx/mime.types"),) if path.exists()), None)
    if found is None and (nginx := shutil.which("nginx")):
        found = Path(nginx).parent.parent / "conf/mime.types"
    if found is None or not found.exists():
        raise ConfigurationError("nginx's mime.types is not to be found; install the distribution's nginx package")
    return found


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
