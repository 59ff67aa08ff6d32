"""How scores become codes: what is ruled out, what is drawn, and a randomness that depends on nothing but its key.

The filters are those of transformers' `generate`, in its order, with the arguments that qwen-tts gives it. Everything
is tensors in, tensors out, without a look at a value: it can lie within a CUDA graph.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daemons.errors import ConfigurationError
from daemons.tts.engines.qwen3.config import CODE_SUPPRESSED_TAIL, TalkerConfig

LEAST_FRAMES = 2  # the end is not taken for one of the first choices

# SplitMix64 (Steele, Lea & Flood 2014), its constants as signed 64-bit integers; torch wraps around as they want it.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FIRST_FACTOR = 0xBF58476D1CE4E5B9 - 2**64
_SECOND_FACTOR = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature 0 takes the highest score; top-k 0 and top-p 1 rule nothing out."""

    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 <= self.top_p <= 1:
            raise ValueError(f"no codes can be drawn by {self}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


GREEDY = Sampling(temperature=0)


@dataclass(frozen=True, slots=True)
class SpeechSampling:
    """How a talker's and its code predictor's codes are chosen; the defaults are qwen-tts's."""

    talker: Sampling = Sampling()
    predictor: Sampling = Sampling()
    repetition_penalty: float = 1.05  # of first codes that the stream has had


def read_sampling(folder: Path) -> SpeechSampling:
    """What the checkpoint's `generation_config.json` wants. Raises ConfigurationError when that cannot be read."""
    path = folder / "generation_config.json"
    if not path.exists():
        return SpeechSampling()
    try:
        wishes = json.loads(path.read_text(encoding="utf-8"))
        return SpeechSampling(
            _sampling(wishes, "do_sample", ""),
            _sampling(wishes, "subtalker_dosample", "subtalker_"),
            float(wishes.get("repetition_penalty", SpeechSampling().repetition_penalty)),
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _sampling(wishes: dict[str, Any], draws: str, prefix: str) -> Sampling:
    if not wishes.get(draws, True):
        return GREEDY
    usual = Sampling()
    return Sampling(
        float(wishes.get(f"{prefix}temperature", usual.temperature)),
        int(wishes.get(f"{prefix}top_k", usual.top_k)),
        float(wishes.get(f"{prefix}top_p", usual.top_p)),
    )


def request_key(seed: int, request: str) -> int:
    """What all randomness of a request hangs on, besides frame and codebook: a signed 64-bit integer."""
    digest = hashlib.blake2b(f"{seed}/{request}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def gumbel_noise(keys: Tensor, frames: Tensor, codebooks: int, codes: int) -> Tensor:
    """Of `keys` and `frames`, each int64 [rows]: float32 [rows, codebooks, codes].

    The highest of logits + noise is a draw from their softmax (Gumbel-max). Row by row it is a pure function of key,
    frame, codebook and code: neighbours, packets and what was drawn before change nothing.
    """
    device = keys.device
    columns = frames[:, None] * codebooks + torch.arange(1, codebooks + 1, device=device)
    streams = _mixed(keys[:, None] + columns * _GAMMA)
    bits = _mixed(streams[..., None] + torch.arange(1, codes + 1, device=device) * _GAMMA)
    uniform = (_shifted(bits, 11).double() + 0.5) * 2.0**-53
    return -(-uniform.log()).log().float()


def draw(scores: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
    """Scores float32 [rows, codes] → codes int64 [rows]; `noise` is of their shape."""
    if sampling.is_greedy:
        return scores.argmax(-1)
    return (filtered(scores, sampling) + noise).argmax(-1)


def filtered(scores: Tensor, sampling: Sampling) -> Tensor:
    """The logits of the distribution that is drawn from: what is ruled out has -inf."""
    scores = scores / sampling.temperature
    if sampling.top_k:
        least = scores.topk(min(sampling.top_k, scores.shape[-1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, places = scores.sort(stable=True)
        unlikely = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        unlikely[:, -1] = False  # the likeliest stays
        scores = scores.masked_fill(unlikely.scatter(1, places, unlikely), -torch.inf)
    return scores


class CodeSampler:
    """Draws the codes of frames as `Qwen3TTSForConditionalGeneration.generate` would.

    `heard`, bool [rows, codes], is which first codes a row has had: the caller's, who clears a row when it begins anew.
    """

    def __init__(self, config: TalkerConfig, sampling: SpeechSampling, *, device: torch.device | str = "cpu") -> None:
        self._sampling = sampling
        self._codebooks, self._codes, self._eos = config.codebooks, config.codes, config.codec_ids.eos
        places = torch.arange(config.codes, device=device)
        self._is_eos = places == self._eos
        self._is_no_code = (places >= config.codes - CODE_SUPPRESSED_TAIL) & ~self._is_eos

    def noise(self, keys: Tensor, frames: Tensor) -> Tensor:
        """For a frame of each row, of all its codebooks at once: float32 [rows, codebooks, codes]."""
        return gumbel_noise(keys, frames, self._codebooks, self._codes)

    def first(self, scores: Tensor, heard: Tensor, frames: Tensor, noise: Tensor) -> Tensor:
        """The frame's first code, or the end, int64 [rows], by the talker's scores [rows, codes]; `heard` learns it.

        `frames`, int64 [rows]: how many frames the row has had.
        """
        scores = scores.float()
        penalty = self._sampling.repetition_penalty
        scores = torch.where(heard, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        is_out = self._is_no_code | (self._is_eos & (frames < LEAST_FRAMES)[:, None])
        codes = draw(scores.masked_fill(is_out, -torch.inf), self._sampling.talker, noise[:, 0])
        heard.scatter_(1, codes[:, None], True)
        return codes

    def other(self, noise: Tensor, scores: Tensor, codebook: int) -> Tensor:
        """The frame's code of codebook 1 …, int64 [rows], by the predictor's scores [rows, codes].

        With the frame's noise bound to it, this is what `Talker.frame` chooses by.
        """
        return draw(scores.float(), self._sampling.predictor, noise[:, codebook, : scores.shape[1]])

    def is_end(self, first: Tensor) -> Tensor:
        """bool [rows]: whether that was no code, but the end."""
        return first == self._eos


def _mixed(bits: Tensor) -> Tensor:
    """SplitMix64's finalizer, of int64 [...]."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST_FACTOR
    bits = (bits ^ _shifted(bits, 27)) * _SECOND_FACTOR
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """To the right, with zeros from the left: torch's own shift repeats the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
