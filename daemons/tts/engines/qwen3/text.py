"""Text → token ids, by the checkpoint's own files: all at once, or as it is written.

Byte-pair encoding joins nothing across the words that the tokenizer's regular expression cuts text into, so the ids of
a word are final once more text can no longer change where it ends. Markup such as `<|im_end|>` in a text is text here.
"""

import json
import unicodedata
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from daemons.errors import ConfigurationError
from daemons.tts.engines.qwen3.config import TextIds

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# How Qwen's tokenizer cuts text into words (transformers' models/qwen2/tokenization_qwen2.py). qwen-tts asks for
# `fix_mistral_regex`, by which transformers 4.57.3 may put Mistral's expression in its place: for a checkpoint in a
# local folder that the same version has saved. By its name the same checkpoint keeps this one, and so it does here.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_tokenizer(folder: Path) -> "Tokenizer":
    """From tokenizer.json, or vocab.json and merges.txt. Raises ConfigurationError when neither is to be had."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - a bench on random weights reads no text
    from tokenizers.models import BPE  # noqa: PLC0415

    try:
        if (whole := folder / "tokenizer.json").exists():
            cutting = json.loads(whole.read_text(encoding="utf-8"))["pre_tokenizer"]["pretokenizers"][0]
            if cutting["pattern"]["Regex"] != WORDS:  # then a word may be final later than is thought here
                raise ValueError("it cuts text into other words than Qwen's does")
            return Tokenizer.from_file(str(whole))
        return byte_level(BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    except Exception as error:  # tokenizers raises nothing more special
        raise ConfigurationError(f"{folder} holds no tokenizer that can be read: {error}") from error


def byte_level(model: object) -> "Tokenizer":
    """Qwen's tokenizer around a byte-pair model."""
    from tokenizers import Regex, Tokenizer  # noqa: PLC0415
    from tokenizers.normalizers import NFC  # noqa: PLC0415
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split  # noqa: PLC0415

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(WORDS), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


class Tokens:
    """The ids of a text that is still being written: the same ones, however it is cut into pieces."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._settled = ""  # normalized, and not yet cut into words that are final
        self._open = ""  # may still melt with what comes, as a letter does with its accent

    def put(self, piece: str) -> list[int]:
        """The ids that `piece` makes final."""
        self._open += piece
        start = _last_start(self._open)
        if start is None:
            return []
        self._settled += self._normalized(self._open[:start])
        self._open = self._open[start:]
        return self._words(self._settled + self._open[0], len(self._settled))

    def end(self) -> list[int]:
        """The ids that are left, when nothing more comes."""
        self._settled += self._normalized(self._open)
        self._open = ""
        return self._words(self._settled, len(self._settled))

    def _words(self, text: str, settled: int) -> list[int]:
        """The ids of `text`'s words as far as they end within what is settled, which are then done with."""
        ids: list[int] = []
        done = 0
        for word, (_, end) in self._tokenizer.pre_tokenizer.pre_tokenize_str(text):
            if end > settled:
                break
            ids += [token.id for token in self._tokenizer.model.tokenize(word)]
            done = end
        self._settled = self._settled[done:]
        return ids

    def _normalized(self, text: str) -> str:
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))


class TextFeed:
    """The line of text that the talker reads, token by token, while it is still being written.

    White space before the text is left out: a line break there would melt with the one that the prompt ends its
    role by.
    """

    def __init__(self, tokenizer: "Tokenizer", ids: TextIds) -> None:
        self._tokens = Tokens(tokenizer)
        self._ids = ids
        self._ready: deque[int] = deque()
        self._has_begun = False
        self._has_ended = False

    @property
    def has_text(self) -> bool:
        """Whether a token of the text is ready; the prompt needs one. False for good when an empty text has ended."""
        return bool(self._ready) and self._ready[0] != self._ids.tts_eos

    def put(self, piece: str) -> None:
        """Raises ValueError after `end`."""
        if self._has_ended:
            raise ValueError("text comes after its end")
        if not self._has_begun:
            piece = piece.lstrip()
            self._has_begun = bool(piece)
        self._ready.extend(self._tokens.put(piece))

    def end(self) -> None:
        """Nothing more comes. A second call changes nothing."""
        if not self._has_ended:
            self._has_ended = True
            self._ready.extend((*self._tokens.end(), self._ids.tts_eos))

    def take(self) -> int | None:
        """The next token: of the text, then `tts_eos`, then `tts_pad` for ever. None: not yet, the text is late."""
        if self._ready:
            return self._ready.popleft()
        return self._ids.tts_pad if self._has_ended else None


def text_ids(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Of a text that is all there."""
    tokens = Tokens(tokenizer)
    return [*tokens.put(text), *tokens.end()]


def role_ids(tokenizer: "Tokenizer", ids: TextIds) -> list[int]:
    """Of what stands before the text: the beginning of the assistant's turn."""
    return [ids.im_start, *text_ids(tokenizer, "assistant\n")]


def instruction_ids(tokenizer: "Tokenizer", ids: TextIds, instruction: str) -> list[int]:
    """Of the user's turn that tells how to speak; none for no instruction."""
    if not instruction:
        return []
    return [ids.im_start, *text_ids(tokenizer, f"user\n{instruction}"), ids.im_end, *text_ids(tokenizer, "\n")]


def _last_start(text: str) -> int | None:
    """The last place where nothing that follows melts with what is before: a letter, digit or sign, no mark, no space.

    The one character there also tells where words before it end, as no later one does: every alternative of the
    regular expression looks at most at white space and the one character after it.
    """
    for place in range(len(text) - 1, -1, -1):
        character = text[place]
        is_joining_hangul = "\u1160" <= character <= "\u11ff"
        if unicodedata.category(character)[0] in "LNPS" and not is_joining_hangul:
            return place
    return None
