"""How far a quantized talker strays from the one that it was made of, frame by frame on the same past.

The exact one speaks, and both read what it has said: so each frame tells of the rounding alone, and not of how two
voices go on that once chose differently.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from daemons.tts.engines.qwen3.cache import StaticCache
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder
from daemons.tts.engines.qwen3.config import TalkerConfig
from daemons.tts.engines.qwen3.sampling import CodeSampler
from daemons.tts.engines.qwen3.talker import Talker


@dataclass(frozen=True, slots=True)
class Frame:
    codes: Tensor  # int64 [codebooks]
    logits: Tensor  # [codes of the talker]: what the first was chosen by
    other_logits: Tensor  # [codebooks - 1, codes]: what the predictor's were chosen by


class Speaker:
    """One stream of a talker; `opening` [length, hidden_size] as `Batch` is given it."""

    def __init__(
        self, talker: Talker, config: TalkerConfig, sampler: CodeSampler, opening: Tensor, *, key: int, frames: int
    ) -> None:
        """`frames`: how many it may say."""
        device, dtype = opening.device, opening.dtype
        length = torch.tensor([len(opening)], device=device)
        self._talker, self._sampler = talker, sampler
        self._cache = StaticCache.empty(config.transformer, 1, len(opening) + frames, device=device, dtype=dtype)
        self._predictor_cache = StaticCache.empty(
            config.predictor.transformer, 1, config.codebooks, device=device, dtype=dtype
        )
        self._key = torch.tensor([key], device=device)
        self._begins = length
        self._frames = torch.zeros_like(length)
        self._heard = torch.zeros(1, config.codes, dtype=torch.bool, device=device)
        self._said = talker.embed_code(torch.tensor([config.codec_ids.bos], device=device))
        talker.prefill(opening[None], length, self._cache)

    def say(self, token: int, instead: Tensor | None = None) -> Frame:
        """The next frame, with the next token of text. If `instead` is given, what follows goes on from that."""
        noise = self._sampler.noise(self._key, self._frames)
        text = self._talker.embed_text(self._frames.new_tensor([token]))
        hidden, logits = self._talker.read(self._said + text, self._begins + self._frames, self._cache)
        chosen = [self._sampler.first(logits, self._heard.clone(), self._frames, noise)]
        other_logits = []

        def choose(scores: Tensor, codebook: int) -> Tensor:
            other_logits.append(scores[0])
            chosen.append(self._sampler.other(noise, scores, codebook))
            return chosen[codebook] if instead is None else instead[None, codebook]

        first = chosen[0] if instead is None else instead[:1]
        codes = self._talker.frame(hidden, first, choose, self._predictor_cache)
        self._heard[0, first] = True
        self._said = self._talker.embed_frame(codes)
        self._frames += 1
        return Frame(torch.cat(chosen), logits[0], torch.stack(other_logits))


@torch.inference_mode()
def drift(exact: Speaker, rounded: Speaker, tokens: Sequence[int], decoder: IncrementalDecoder) -> dict[str, Any]:
    """Of a frame for each token of text: what `exact` says, and what `rounded` would have said in its place.

    Figures as JSON has them: the logits' drift, the share of codes drawn alike (by the same noise), and how far the
    sound of all codes of the one is from that of the other.
    """
    said, meant = [], []
    for token in tokens:
        said.append(exact.say(token))
        meant.append(rounded.say(token, instead=said[-1].codes))
    codes, meant_codes = (torch.stack([frame.codes for frame in frames], 1) for frames in (said, meant))
    return {
        "frames": len(tokens),
        "talker": logit_drift(*(torch.stack([frame.logits for frame in frames]) for frames in (said, meant))),
        "predictor": logit_drift(*(torch.cat([frame.other_logits for frame in frames]) for frames in (said, meant))),
        "same_codes": float((codes == meant_codes).double().mean()),
        "audio_snr_db": snr_db(decoder.decode(codes[None]).double(), decoder.decode(meant_codes[None]).double()),
    }


def logit_drift(exact: Tensor, rounded: Tensor) -> dict[str, float]:
    """Of logits [n, codes]. What all codes of a row have in common chooses nothing, and does not count as signal."""
    exact, rounded = exact.double(), rounded.double()
    divergence = functional.kl_div(
        rounded.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    return {
        "n": len(exact),
        "snr_db": snr_db(exact - exact.mean(-1, keepdim=True), rounded - rounded.mean(-1, keepdim=True)),
        "kl_nats": float(divergence),
        "same_likeliest": float((exact.argmax(-1) == rounded.argmax(-1)).double().mean()),
    }


def snr_db(exact: Tensor, found: Tensor) -> float:
    signal, error = float(exact.square().sum()), float((found - exact).square().sum())
    return 10 * math.log10(max(signal, 1e-30) / max(error, 1e-30))
