"""Every setting of the box, each with its default; the only reader of the environment.

Sources, strongest first: `CALLBOX_*` of the environment, `var/callbox.env` (the operator's, kept by `post_start.sh`),
`var/secrets.env` (made once, mode 0600), `etc/profiles/<profile>.env`, the defaults below.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from daemons import redis_url
from daemons.errors import ConfigurationError
from daemons.wire import CALL_ROLES, Role

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "CALLBOX_"

Port = Annotated[int, Field(ge=1, le=65534)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    profile: Literal["cpu", "gpu", "runpod"] = "cpu"
    var_dir: Path = ROOT / "var"
    models_dir: Path = Field(ROOT / "var/models", description="shared by every box of this clone")
    cache_dir: Path = Field(Path.home() / ".cache/callbox", description="build tools and livekit-server, by version")
    www_dir: Path | None = Field(None, description="where nginx's user can read the page; chosen when not given")
    hub_url: str = Field("https://huggingface.co", validation_alias=AliasChoices("CALLBOX_HUB_URL", "HF_ENDPOINT"))
    hub_token: SecretStr = Field(SecretStr(""), validation_alias=AliasChoices("CALLBOX_HUB_TOKEN", "HF_TOKEN"))
    hub_offline: bool = Field(False, validation_alias=AliasChoices("CALLBOX_HUB_OFFLINE", "HF_HUB_OFFLINE"))
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # The door. Everything listens on loopback until public_host names the address that callers use.
    public_host: str = Field("", description="address or name callers use; opens the box, with TLS")
    tls_cert: Path | None = Field(None, description="with tls_key; a self-signed one is made when not given")
    tls_key: Path | None = None
    tls_by_proxy: bool = Field(False, description="a proxy in front ends TLS: http_port itself listens to the outside")
    access_key: SecretStr = Field(SecretStr(""), description="asked for by /api and by the workers' doors when set")
    operator_key: SecretStr = Field(
        SecretStr(""), description="does what access_key does, and gets calls whose workers are not everybody's"
    )
    http_port: Port = 8080
    https_port: Port = 8443

    redis_url: str = ""
    redis_port: Port = 6380

    livekit_bin: Path | None = None
    livekit_port: Port = 7880
    livekit_udp_port: Port = 7882
    livekit_tcp_port: Port = 7881
    livekit_node_ip: str = Field("", description="address in ICE candidates; public_host's when empty")
    stun_servers: str = Field("", description="host:port, comma-separated, handed to callers; none when empty")
    livekit_api_key: str = "callbox"
    livekit_api_secret: SecretStr = SecretStr("")
    token_secret: SecretStr = Field(SecretStr(""), description="signs the secret that proves who owns a call")

    # Processes. Port+1 of each is its health.
    stt_port: Port = 9020
    llm_port: Port = 9010
    tts_port: Port = 9000
    agent_port: Port = 8089
    token_port: Port = 8021
    monitor_port: Port = 9040
    advertise_host: str = Field("127.0.0.1", description="address under which other hosts' processes reach this host's")

    # Capacity
    slots: Annotated[int, Field(ge=1, le=64)] = Field(2, description="calls at once, for each worker")
    direct_slots: Count = Field(2, description="requests without a call at once, for each speech or chat worker")
    queue_max: Count = Field(8, description="callers who may wait for a free slot")
    drain_s: Seconds = Field(30, description="how long work may go on after SIGTERM")
    stall_s: Seconds = Field(30, description="work in flight without progress for so long makes a worker not live")
    load_timeout_s: Seconds = Field(300, description="how long loading and warming up an engine may take")

    # Engines; models are names in etc/models.toml, or a path
    stt_engine: Literal["moonshine", "omni"] = "moonshine"
    stt_model: str = "moonshine-tiny-en"
    stt_threads: Annotated[int, Field(ge=1)] = 1
    stt_omni_url: str = Field(
        "", description="of the engine omni: a chat model that hears, as its clients take it; the LLM worker when empty"
    )
    stt_omni_model: str = Field("", description="the first that it lists when empty")
    stt_omni_api_key: SecretStr = SecretStr("")
    llm_engine: Literal["llamacpp", "transformers", "openai"] = "llamacpp"
    llm_model: str = "qwen2.5-coder-0.5b"
    llm_threads: Annotated[int, Field(ge=1)] = 2
    llm_niceness: Annotated[int, Field(ge=0, le=19)] = Field(
        5, description="how far the chat engine's threads stand behind those of speech on the cores; 0: not at all"
    )
    llm_context_tokens: Annotated[int, Field(ge=512)] = 4096
    llm_omni: bool = Field(
        False,
        description="the engine hears and sees: input_audio and image_url parts are passed on, a caller's voice goes "
        "straight to it, and stt runs only when stt_engine is omni",
    )
    llm_upstream_url: str = Field(
        "", description="of the engine openai, as its clients take it: http://host:8000/v1; the program vllm when empty"
    )
    llm_upstream_model: str = Field("", description="the first that the upstream lists when empty")
    llm_upstream_api_key: SecretStr = SecretStr("")
    tts_engine: Literal["hibari", "piper", "qwen3"] = "hibari"
    tts_voice: str = Field("", description="of the engines hibari (heart when empty) and qwen3 (ryan when empty)")
    tts_model: str = Field("joe-us", description="of the engine piper: its voice; of qwen3: a Qwen3-TTS CustomVoice")
    tts_device: str = Field("cpu", description="of the engine qwen3: cpu, cuda, or a card as in cuda:1")
    tts_quantization: Literal["none", "int8", "fp8"] = Field("none", description="of the engine qwen3's talker")
    piper_bin: Path | None = Field(None, description="the program piper; cache_dir/piper/bin/piper when not given")
    tts_threads: Annotated[int, Field(ge=1)] = 1
    vad_model: str = "silero-v6"
    turn_model: str = Field("smart-turn-v3.2", description="hears whether a turn is over; none: the words alone decide")

    # The program vllm: it runs here when it has cards and the engine openai has no other upstream
    vllm_devices: str = Field("", description="the cards it is given, as nvidia-smi counts them: 0, or 0,1")
    vllm_model: str = Field("", description="hf:OWNER/REPOSITORY, or the path of a folder")
    vllm_pipeline: str = Field("none", description="of vLLM-Omni, one that ends in text; none: vLLM itself serves")
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="share of each card")
    vllm_bin: Path | None = Field(None, description="the program vllm; cache_dir/vllm/bin/vllm when not given")
    vllm_port: Port = 8000
    vllm_api_key: SecretStr = SecretStr("")

    # The call
    persona: Path = ROOT / "etc/persona.toml"
    call_max_s: Seconds = 1800
    idle_s: Seconds = Field(120, description="nobody speaks for so long: the call ends")
    replace_s: Seconds = Field(  # one that hangs is restarted after 20 to 25 s
        35, description="how long a call waits for another worker in the place of one that is gone"
    )
    absent_s: Seconds = Field(20, description="how long a caller's network may be gone")

    @property
    def redis(self) -> str:
        return self.redis_url or f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def call_roles(self) -> tuple[Role, ...]:
        """What a call needs a worker of."""
        return tuple(role for role in CALL_ROLES if role != "stt" or not self.llm_omni)

    @property
    def stt_runs(self) -> bool:
        """Where the LLM hears callers itself, stt is there for other clients, and only with the engine omni."""
        return not self.llm_omni or self.stt_engine == "omni"

    @property
    def llm_sees(self) -> bool:
        """The engine `transformers` hears, and passes no pictures on."""
        return self.llm_omni and self.llm_engine == "openai"

    @property
    def vllm_runs(self) -> bool:
        return bool(self.vllm_devices) and self.llm_engine == "openai" and not self.llm_upstream_url

    @property
    def vllm_url(self) -> str:
        """As its clients take it."""
        return f"http://127.0.0.1:{self.vllm_port}/v1"

    @property
    def vllm_cards(self) -> tuple[int, ...]:
        return tuple(int(card) for card in self.vllm_devices.split(",")) if self.vllm_runs else ()

    @property
    def tts_card(self) -> int | None:
        """None when speech is made on the processor."""
        if self.tts_engine != "qwen3" or self.tts_device == "cpu":
            return None
        return int(self.tts_device.partition(":")[2] or 0)

    @property
    def supervisord_socket(self) -> Path:
        return self.var_dir.resolve() / "run/supervisor.sock"

    @property
    def livekit_url(self) -> str:
        return f"ws://127.0.0.1:{self.livekit_port}"

    @property
    def door_url(self) -> str:
        """Where this machine's own programs find nginx."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def page_url(self) -> str:
        """What a caller opens."""
        if not self.public_host:
            return f"http://localhost:{self.http_port}/"
        if self.tls_by_proxy:
            return f"https://{self.public_host}/"
        return f"https://{self.public_host}:{self.https_port}/"

    @field_validator("access_key", "operator_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr) -> SecretStr:
        if not re.fullmatch(r"([A-Za-z0-9._~+/=-]{8,})?", key.get_secret_value()):
            raise ValueError("at least 8 letters, digits or . _ ~ + / = - are wanted")
        return key

    @field_validator("redis_url")
    @classmethod
    def _names_a_redis(cls, url: str) -> str:
        if url:
            redis_url.parse(url)
        return url

    @field_validator("tts_device")
    @classmethod
    def _names_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ValueError("cpu, cuda or cuda:NUMBER is wanted")
        return device

    @field_validator("vllm_devices")
    @classmethod
    def _names_cards(cls, devices: str) -> str:
        cards = devices.split(",") if devices else []
        if not all(re.fullmatch(r"\d+", card) for card in cards) or len({*map(int, cards)}) < len(cards):
            raise ValueError("numbers of cards are wanted, each once: 0, or 0,1")
        return devices

    @model_validator(mode="after")
    def _knows_what_vllm_serves(self) -> Self:
        if self.vllm_runs and "/" not in self.vllm_model:
            raise ValueError(f"{PREFIX}VLLM_DEVICES wants {PREFIX}VLLM_MODEL: hf:OWNER/REPOSITORY, or a folder's path")
        return self

    @model_validator(mode="after")
    def _hears_with_an_engine_that_can(self) -> Self:
        if self.llm_omni and self.llm_engine == "llamacpp":
            raise ValueError(f"{PREFIX}LLM_OMNI wants {PREFIX}LLM_ENGINE=openai or transformers: llamacpp only reads")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        taken: dict[int, str] = {}
        for name, port in self.ports():
            if port in taken:
                other = PREFIX + taken[port].upper()
                raise ValueError(f"{PREFIX}{name.upper()} takes port {port}, which {other} (or its health) takes too")
            taken[port] = name
        return self

    def ports(self) -> Iterator[tuple[str, int]]:
        """(setting, port) of everything that may listen, health ports included."""
        for name in ("http_port", "https_port", "redis_port", "livekit_port", "livekit_udp_port", "livekit_tcp_port"):
            yield name, getattr(self, name)
        for name in ("stt_port", "llm_port", "tts_port", "agent_port", "token_port", "monitor_port"):
            yield name, getattr(self, name)
            yield name, getattr(self, name) + 1
        if self.vllm_runs:
            yield "vllm_port", self.vllm_port


def load() -> Settings:
    """Read the settings of this process. Raises ConfigurationError with one line a bad setting."""
    var_dir = this_var_dir()
    kept = var_dir / "callbox.env"
    files = [var_dir / "secrets.env", kept]
    try:
        if profile := os.environ.get(f"{PREFIX}PROFILE") or dotenv_values(kept).get(f"{PREFIX}PROFILE"):
            files.insert(0, ROOT / "etc/profiles" / f"{profile}.env")
        settings = Settings(_env_file=tuple(files), var_dir=var_dir)
        if settings.profile != "runpod":
            return settings
        pod = {name: value for name, value in _pod(settings).items() if name not in settings.model_fields_set}
        return Settings(_env_file=tuple(files), var_dir=var_dir, **pod)
    except ValidationError as error:
        lines = [_sentence(problem) for problem in error.errors(include_url=False, include_input=False)]
        raise ConfigurationError("bad settings:\n  " + "\n  ".join(lines)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"settings cannot be read: {error}") from error


def this_var_dir() -> Path:
    """Where this box keeps its state; also told when its settings are bad."""
    return Path(os.environ.get(f"{PREFIX}VAR_DIR") or ROOT / "var").absolute()


def given() -> dict[str, str]:
    """The CALLBOX_* variables of this process's environment."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


def environment_without_settings() -> dict[str, str]:
    """This process's environment for a program that must see kept settings only."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _pod(settings: Settings) -> dict[str, Any]:
    """What RunPod says of this pod; the mapping of ports changes with each of its boots."""
    pod_id = os.environ.get("RUNPOD_POD_ID")
    said = {
        "public_host": pod_id and f"{pod_id}-{settings.http_port}.proxy.runpod.net",
        "livekit_node_ip": os.environ.get("RUNPOD_PUBLIC_IP"),
        "livekit_tcp_port": os.environ.get("RUNPOD_TCP_PORT_70000"),
    }
    return {name: value for name, value in said.items() if value}


def _sentence(problem: ErrorDetails) -> str:
    """What is wrong with which setting; what is wrong between several names them itself."""
    name = "_".join(map(str, problem["loc"])).upper().removeprefix(PREFIX)
    said = problem["msg"].removeprefix("Value error, ")
    return f"{PREFIX}{name}: {said}" if name else said
