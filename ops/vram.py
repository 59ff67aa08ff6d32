"""Whether the memory of the graphics cards is enough for what this box wants to put there: speech, vLLM, or both.

What speech needs is computed, not measured: weights, K/V cache and codec state for each place and for a stream that
waits beside it, and allowances.
"""

import csv
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from daemons.errors import ConfigurationError
from daemons.models import is_path, model_folder
from daemons.settings import PREFIX, Settings
from ops import vllm
from ops.fit import SPEECH_TOKENIZER

MIB = 2**20
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,name,memory.total,memory.used", "--format=csv,noheader,nounits")
NVIDIA_SMI_TIMEOUT_S = 15.0  # without persistence mode the driver wakes each card first

# Of Qwen3-TTS-12Hz as published: talker and predictor in bf16, the codec in float32, in bytes.
TALKER_BYTES = {"0.6B": 1.83e9, "1.7B": 3.86e9}
CODEC_BYTES = 0.68e9
# What its layers' matrices take less in 8 bits than in 16.
QUANTIZATION_SAVES_BYTES = {"0.6B": 0.52e9, "1.7B": 1.49e9}
# Of both sizes: 28 layers, K and V, 8 heads of 128, 2 bytes each.
KV_POSITION_BYTES = 28 * 2 * 8 * 128 * 2
POSITIONS = 2048  # of a phrase: its text, and 12.5 a second
WAITING_POSITIONS = 800  # of an answer that has begun and waits beside the one that is heard: a minute of it
CODEC_STATE_BYTES = 5e6
# Allowances, not measured yet: CUDA's context with its libraries, captured graphs, and what a step works with.
CONTEXT_MIB = 500
GRAPHS_MIB = 700
WORKSPACE_MIB = 400

SMALLEST_SHARE = 0.1  # of a card for vLLM; nothing fits into less
MARGIN_MIB = 500  # of each card that must stay free: memory comes in pieces


class Card(NamedTuple):
    """As nvidia-smi shows it."""

    number: int  # as nvidia-smi counts them
    name: str
    total_mib: int
    used_mib: int


class Budget(NamedTuple):
    """What one card shall hold. `others_mib` is in use there by programs that are not this box's."""

    card: Card
    tts_mib: int
    vllm_mib: int
    others_mib: int

    @property
    def over_mib(self) -> int:
        """How much is missing; what is left over where it is negative."""
        return self.tts_mib + self.vllm_mib + self.others_mib + MARGIN_MIB - self.card.total_mib

    def __str__(self) -> str:
        parts = {"tts": self.tts_mib, "vllm": self.vllm_mib, "others": self.others_mib}
        said = ", ".join(f"{who} {mib} MiB" for who, mib in parts.items() if mib)
        card = self.card
        return f"card {card.number} ({card.name}, {card.total_mib} MiB): {said}, {MARGIN_MIB} MiB in reserve"


def wanted(settings: Settings) -> bool:
    """Whether this box puts anything on a card."""
    return settings.tts_card is not None or settings.vllm_runs


def check(settings: Settings, *, in_use: bool) -> list[Budget]:
    """What the settings put on each card. Raises ConfigurationError, in words, where that cannot be.

    `in_use`: what the cards hold now is others'. Not while this box itself may be on them.
    """
    if not wanted(settings):
        return []
    vllm.check(settings)
    budgets = budgets_of(settings, read_cards(), in_use=in_use)
    refuse_impossible(settings, budgets)
    return budgets


def read_cards() -> dict[int, Card]:
    """This machine's cards by their number. Raises ConfigurationError when nvidia-smi cannot tell."""
    try:
        said = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise ConfigurationError(
            "nvidia-smi is not to be found, so no NVIDIA driver is installed here, or this container was started "
            f"without its cards (docker: --gpus all). {_without_cards()}"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"nvidia-smi does not answer within {NVIDIA_SMI_TIMEOUT_S:g} s: the driver or a card hangs; see `dmesg`"
        ) from None
    if said.returncode:
        words = (said.stdout + said.stderr).strip()
        raise ConfigurationError(f"nvidia-smi ends with {said.returncode}: {words[:300]}. {_without_cards()}")
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(said.stdout.splitlines()) if row]
        cards = [Card(int(number), name, int(total), int(used)) for number, name, total, used in rows]
    except ValueError:
        raise ConfigurationError(f"nvidia-smi tells no card's memory: {said.stdout.strip()[:300]}") from None
    return {card.number: card for card in cards}


def budgets_of(settings: Settings, cards: Mapping[int, Card], *, in_use: bool) -> list[Budget]:
    """By card. Raises ConfigurationError where a setting names a card that is not there."""
    chosen = {"TTS_DEVICE": _on_tts(settings), "VLLM_DEVICES": settings.vllm_cards}
    for setting, numbers in chosen.items():
        if gone := [number for number in numbers if number not in cards]:
            there = ", ".join(f"{card.number} ({card.name})" for card in cards.values()) or "none"
            value = getattr(settings, setting.lower())
            raise ConfigurationError(f"{PREFIX}{setting}={value}: there is no card {gone[0]}; nvidia-smi lists {there}")
    share, need_mib = settings.vllm_gpu_memory_utilization, tts_mib(settings)
    return [
        Budget(
            card,
            tts_mib=need_mib if card.number in chosen["TTS_DEVICE"] else 0,
            vllm_mib=round(share * card.total_mib) if card.number in settings.vllm_cards else 0,
            others_mib=card.used_mib if in_use else 0,
        )
        for card in cards.values()
        if card.number in {*chosen["TTS_DEVICE"], *settings.vllm_cards}
    ]


def refuse_impossible(settings: Settings, budgets: Iterable[Budget]) -> None:
    """Raises ConfigurationError with a sentence for each card that is too small, and what would help."""
    if too_full := [budget for budget in budgets if budget.over_mib > 0]:
        sentences = [f"{budget}: {budget.over_mib} MiB too many. {_mend(settings, budget)}" for budget in too_full]
        raise ConfigurationError("\n  ".join(sentences))


def tts_mib(settings: Settings) -> int:
    """What the engine qwen3 takes of its card; 0 when it has none."""
    if settings.tts_card is None:
        return 0
    places = settings.slots + settings.direct_slots
    each_bytes = (POSITIONS + WAITING_POSITIONS) * KV_POSITION_BYTES + 2 * CODEC_STATE_BYTES
    return round((weights_bytes(settings) + places * each_bytes) / MIB) + CONTEXT_MIB + GRAPHS_MIB + WORKSPACE_MIB


def weights_bytes(settings: Settings) -> float:
    """Of the model's files where they are here; else as published, of the larger model when its name tells no size.

    Quantization saves what it saves of the smaller model then.
    """
    name = settings.tts_model
    saved = 0.0 if settings.tts_quantization == "none" else quantization_saves_bytes(settings)
    place = Path(name).expanduser() if is_path(name) else model_folder(settings, name)
    files = [*place.glob("*.safetensors"), *place.glob(f"{SPEECH_TOKENIZER}/*.safetensors")]
    if files:
        return sum(file.stat().st_size for file in files) - saved
    return TALKER_BYTES.get(_size(name), TALKER_BYTES["1.7B"]) + CODEC_BYTES - saved


def quantization_saves_bytes(settings: Settings) -> float:
    return QUANTIZATION_SAVES_BYTES.get(_size(settings.tts_model), QUANTIZATION_SAVES_BYTES["0.6B"])


def _size(model: str) -> str:
    """As its name tells it: 0.6B."""
    found = re.search(r"\d\.\d+B", model)
    return found[0] if found else ""


def _on_tts(settings: Settings) -> tuple[int, ...]:
    return () if settings.tts_card is None else (settings.tts_card,)


def _mend(settings: Settings, budget: Budget) -> str:
    ways = []
    if budget.vllm_mib:
        share = (budget.vllm_mib - budget.over_mib) / budget.card.total_mib
        if share >= SMALLEST_SHARE:
            ways.append(f"lower {PREFIX}VLLM_GPU_MEMORY_UTILIZATION to {int(share * 100) / 100:g} or less")
    here = [setting for setting, mib in (("TTS_DEVICE", budget.tts_mib), ("VLLM_DEVICES", budget.vllm_mib)) if mib]
    ways.append(f"choose another card ({' or '.join(PREFIX + setting for setting in here)})")
    if budget.tts_mib:
        weights_mib = round(weights_bytes(settings) / MIB)
        ways.append(f"choose a smaller voice ({PREFIX}TTS_MODEL; this one has {weights_mib} MiB of weights)")
        if settings.tts_quantization == "none":
            saved_mib = round(quantization_saves_bytes(settings) / MIB)
            ways.append(f"set {PREFIX}TTS_QUANTIZATION=int8, which saves {saved_mib} MiB of these")
    if budget.others_mib:
        ways.append("end what others run there (`nvidia-smi` names it)")
    return f"What helps: {'; '.join(ways)}"


def _without_cards() -> str:
    return f"Without a card leave {PREFIX}TTS_DEVICE at cpu and {PREFIX}VLLM_DEVICES empty ({PREFIX}PROFILE=cpu)"
