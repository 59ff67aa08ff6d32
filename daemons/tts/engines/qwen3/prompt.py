"""What the talker reads before its first frame, as `generate_custom_voice` builds it with `non_streaming_mode=False`.

Two lines are read at once, text above codes, and their embeddings added:

    [user instruction]  im_start assistant \\n  pad   pad       pad       pad        …        bos  first text token
                                              think think_bos language  think_eos  speaker  pad  bos

The rest of the text follows one token a frame, then `tts_eos`, then `tts_pad`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from daemons.errors import BadRequest
from daemons.tts.engines.qwen3.config import TalkerConfig
from daemons.tts.engines.qwen3.talker import Talker

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids of both lines. They end together; where the codec's has not yet begun, the text stands alone."""

    text: tuple[int, ...]
    codec: tuple[int, ...]

    def embedded(self, talker: Talker, device: torch.device | str = "cpu") -> Tensor:
        """[1, length, hidden_size]."""
        above = talker.embed_text(torch.tensor([self.text], device=device))
        below = talker.embed_code(torch.tensor([self.codec], device=device))
        above[:, -len(self.codec) :] += below
        return above


def prompt(
    config: TalkerConfig,
    role: Sequence[int],
    first_token: int,
    *,
    speaker: str,
    language: str = AUTO,
    instruction: Sequence[int] = (),
) -> Prompt:
    """`role` and `instruction`: see `text.role_ids`, `text.instruction_ids`. `first_token`: of the text.

    Raises BadRequest for a voice or language that the checkpoint lacks, or an instruction that it was not trained on.
    """
    if instruction and not config.hears_instructions:
        raise BadRequest("this size of Qwen3-TTS takes no instruction")
    text, codec = config.text_ids, config.codec_ids
    spoken = language_id(config, speaker, language)
    thought = (codec.no_think, codec.think_bos) if spoken is None else (codec.think, codec.think_bos, spoken)
    below = (*thought, codec.think_eos, config.speakers[speaker.lower()], codec.pad, codec.bos)
    above = (*instruction, *role, *[text.tts_pad] * (len(below) - 2), text.tts_bos, first_token)
    return Prompt(above, below)


def language_id(config: TalkerConfig, speaker: str, language: str) -> int | None:
    """What the talker is told to speak; None: it finds that out. A speaker of a dialect speaks it for Chinese.

    Raises BadRequest for a voice or language that the checkpoint lacks.
    """
    if speaker.lower() not in config.speakers:
        raise BadRequest(f"there is no voice {speaker}; there are {', '.join(sorted(config.speakers))}")
    asked = language.lower()
    if asked in (AUTO, "chinese") and speaker.lower() in config.dialects:
        return config.languages[config.dialects[speaker.lower()]]
    if asked == AUTO:
        return None
    if asked not in languages(config):
        raise BadRequest(f"there is no language {language}; there are {', '.join(languages(config))}")
    return config.languages[asked]


def languages(config: TalkerConfig) -> tuple[str, ...]:
    """What can be asked for: no dialects, which their speakers speak of themselves."""
    return AUTO, *sorted(set(config.languages) - set(config.dialects.values()))
