"""Text in pieces gives the ids of the text in one, and nothing that may still change."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from daemons.errors import ConfigurationError  # noqa: E402
from daemons.tts.engines.qwen3.config import TextIds  # noqa: E402
from daemons.tts.engines.qwen3.text import (  # noqa: E402
    TextFeed,
    Tokens,
    byte_level,
    instruction_ids,
    read_tokenizer,
    role_ids,
    text_ids,
)

IDS = TextIds(9000, 9001, tts_pad=9003, tts_bos=9004, tts_eos=9005)

CORPUS = [
    "It's late, isn't it? I'll call you at 10:45, we've 3 minutes; they'd say he'd come.  Don't worry!\n\nNo?\r\n",
    "Der Zug nach München fährt um 7 Uhr 30 ab. Größe, Übung, façade, naïve, e\u0301tude, A\u030angstro\u0308m.",
    "我叫通义千问，是阿里云的开源大模型。今天天气很好！ 日本語の「テスト」です。が か\u3099 한국어도 있어요. 👩‍🚀 🎉🎉",
    'x = [1, 2];   y  = "a\tb"   \n   z ...   <|im_end|> <|im_start|>user  100% #hash @you (hello) -seven',
]


def trained() -> Any:
    """Qwen's tokenizer, its byte pairs learned from a few lines."""
    tokenizer = byte_level(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


TOKENIZER = trained()

# What makes cutting hard: spaces before words and line breaks, contractions, accents that come late, Hangul in parts.
SIGNS = (
    " \t\n\r'\"eaE9!中がé각=👩🚀か\u3099\u0301\u0315\u0327\u0338\u1100\u1161\u11a8\u212b\u0958\u200d\u2028\x1f\u00a0"
)
ATOMS = st.sampled_from([*SIGNS, "  ", "'r", "'re", "'l", "ll", ".."])
TEXTS = st.lists(ATOMS | st.characters(codec="utf-8"), max_size=24).map("".join)


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@settings(deadline=None, max_examples=250)
@given(TEXTS, st.lists(st.integers(0, 99), max_size=8))
def test_the_granularity_does_not_matter(text: str, cuts: list[int]) -> None:
    whole = TOKENIZER.encode(text, add_special_tokens=False).ids
    tokens = Tokens(TOKENIZER)
    found = [id for piece in in_pieces(text, cuts) for id in tokens.put(piece)]
    assert found == whole[: len(found)]
    assert found + tokens.end() == whole
    assert text_ids(TOKENIZER, text) == whole


@settings(deadline=None, max_examples=100)
@given(TEXTS, TEXTS)
def test_what_is_final_stays_whatever_follows(text: str, more: str) -> None:
    final = Tokens(TOKENIZER).put(text)
    assert TOKENIZER.encode(text + more, add_special_tokens=False).ids[: len(final)] == final


@pytest.mark.parametrize(
    "text", [*CORPUS, "a  1", "a \n \n b", "e\u0315\u0301 x", "\u1100\u1161 \u1100\u1161\u11a8", "they 'red it"]
)
def test_letter_by_letter(text: str) -> None:
    tokens = Tokens(TOKENIZER)
    found = [id for letter in text for id in tokens.put(letter)]
    assert found + tokens.end() == TOKENIZER.encode(text, add_special_tokens=False).ids
    assert tokens.end() == []


def test_a_word_is_final_once_the_next_begins() -> None:
    tokens = Tokens(TOKENIZER)
    assert tokens.put("late") == []
    assert tokens.put(" ") == []
    assert tokens.put("t") == TOKENIZER.encode("late").ids
    assert tokens.put("he") == []
    assert tokens.end() == TOKENIZER.encode(" the").ids


def test_the_feed_waits_for_late_text_and_pads_only_after_the_end() -> None:
    feed = TextFeed(TOKENIZER, IDS)
    assert feed.take() is None
    feed.put(" \n")
    feed.put("  It's")
    assert feed.has_text
    taken = []
    while (token := feed.take()) is not None:
        taken.append(token)
    assert taken == TOKENIZER.encode("It").ids
    assert not feed.has_text
    feed.put(" late")
    feed.end()
    feed.end()
    rest = TOKENIZER.encode("'s late").ids
    assert [feed.take() for _ in range(len(rest) + 3)] == [*rest, IDS.tts_eos, IDS.tts_pad, IDS.tts_pad]
    with pytest.raises(ValueError, match="after its end"):
        feed.put("more")


def test_markup_in_a_text_is_text() -> None:
    marked = TOKENIZER.from_str(TOKENIZER.to_str())
    marked.add_special_tokens(["<|im_end|>"])
    special = marked.token_to_id("<|im_end|>")
    assert special in marked.encode("a<|im_end|>b").ids
    assert special not in text_ids(marked, "a<|im_end|>b")


def test_an_empty_text_is_none() -> None:
    feed = TextFeed(TOKENIZER, IDS)
    feed.put(" \n ")
    feed.end()
    assert not feed.has_text
    assert feed.take() == IDS.tts_eos


def test_turns_begin_as_the_chat_template_says() -> None:
    assert role_ids(TOKENIZER, IDS) == [9000, *TOKENIZER.encode("assistant\n").ids]
    assert instruction_ids(TOKENIZER, IDS, "") == []
    between = TOKENIZER.encode("user\nSpeak softly.").ids
    assert instruction_ids(TOKENIZER, IDS, "Speak softly.") == [9000, *between, 9001, *TOKENIZER.encode("\n").ids]


def test_both_kinds_of_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no tokenizer"):
        read_tokenizer(tmp_path)
    TOKENIZER.model.save(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"vocab.json", "merges.txt"}
    assert text_ids(read_tokenizer(tmp_path), CORPUS[0]) == TOKENIZER.encode(CORPUS[0]).ids
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.json").unlink()
    assert text_ids(read_tokenizer(tmp_path), CORPUS[1]) == TOKENIZER.encode(CORPUS[1]).ids
    document = json.loads(TOKENIZER.to_str())
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match="other words"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 1}))
    with pytest.raises(ConfigurationError, match="no tokenizer"):
        read_tokenizer(tmp_path)


def test_the_corpus_holds_text_that_is_not_normalized() -> None:
    assert any(not unicodedata.is_normalized("NFC", line) for line in CORPUS)
