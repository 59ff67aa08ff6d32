"""A tiny checkpoint of chance, laid out as the published ones: python -m tests.tts.qwen3.checkpoint FOLDER

With `--say TEXT` (and `--seed N`) what it says is written beside it, made all at once: said.npy, float32 at 24 kHz.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, trainers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from daemons.tts.engines.qwen3.codec.config import CodecConfig
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder
from daemons.tts.engines.qwen3.codec.weights import build, random_weights
from daemons.tts.engines.qwen3.prompt import prompt
from daemons.tts.engines.qwen3.sampling import CodeSampler, read_sampling, request_key
from daemons.tts.engines.qwen3.talker import Talker
from daemons.tts.engines.qwen3.text import byte_level, read_tokenizer, role_ids, text_ids
from tests.tts.qwen3.codec.streams import TINY
from tests.tts.qwen3.tiny import CONFIG, DOCUMENT, speak, tiny_talker

VOICE = "ryan"
SEED = 5
LONG = {"top_k": 25}  # half of its codes are ruled out at each frame, and so is its end
FRAMES = 500  # far more than chance lets it say
CORPUS = ["The quick brown fox jumps over the lazy dog, and the dog says hello."] * 20


def write(folder: Path) -> None:
    codec = folder / "speech_tokenizer"
    codec.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(DOCUMENT), encoding="utf-8")
    save_file({f"talker.{name}": value for name, value in talker().state_dict().items()}, folder / "model.safetensors")
    (folder / "generation_config.json").write_text(json.dumps(LONG), encoding="utf-8")
    described = {"model_type": "qwen3_tts_tokenizer_12hz", "decoder_config": described_decoder(TINY)}
    (codec / "config.json").write_text(json.dumps(described), encoding="utf-8")
    save_file(random_weights(TINY, SEED), codec / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))


def talker() -> Talker:
    """Its end is no likelier than any code."""
    made = tiny_talker()
    with torch.no_grad():
        made.codec_head.weight[CONFIG.codec_ids.eos] = 0
    return made


def described_decoder(config: CodecConfig) -> dict[str, object]:
    return {**asdict(config), "num_key_value_heads": config.num_attention_heads}


def tokenizer() -> Tokenizer:
    """Byte-level, of fewer tokens than the tiny talker has text ids."""
    made = byte_level(BPE())
    alphabet = ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=min(285, len(alphabet) + 29), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def said(folder: Path, text: str, seed: int) -> np.ndarray:
    """float32 [n]: the codes of one stream alone, decoded in one piece."""
    ids = read_tokenizer(folder)
    first, *rest = text_ids(ids, text)
    with torch.inference_mode():
        asked = prompt(CONFIG, role_ids(ids, CONFIG.text_ids), first, speaker=VOICE)
        sampler = CodeSampler(CONFIG, read_sampling(folder))
        trailing = [*rest, CONFIG.text_ids.tts_eos]
        codes = list(speak(talker(), asked, trailing, sampler, key=request_key(seed, ""), frames=FRAMES))
        decoder = IncrementalDecoder(build(TINY, random_weights(TINY, SEED)))
        whole: np.ndarray = decoder.decode(torch.tensor(codes).T[None])[0].numpy()
    return whole


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--say")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.folder.exists():
        write(asked.folder)
    if asked.say is not None:
        np.save(asked.folder / "said.npy", said(asked.folder, asked.say, asked.seed))
