"""Several streams as one batch of fixed rows: none knows of the others."""

from dataclasses import dataclass
from functools import partial

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from daemons.tts.engines.qwen3.cache import DynamicCache, StaticCache
from daemons.tts.engines.qwen3.prompt import Prompt, prompt
from daemons.tts.engines.qwen3.sampling import GREEDY, CodeSampler, Sampling, SpeechSampling, request_key
from daemons.tts.engines.qwen3.talker import Talker
from tests.tts.qwen3.tiny import CONFIG, ROLE, speak, tiny_talker

ROWS, ROOM = 3, 40
SAMPLING = SpeechSampling(Sampling(top_k=20), Sampling(top_k=20, top_p=0.9))
DRAWN = CodeSampler(CONFIG, SAMPLING)


@dataclass
class Stream:
    prompt: Prompt
    text: list[int]
    key: int


def stream(seed: int) -> Stream:
    text = torch.randint(10, 280, (5,), generator=torch.Generator().manual_seed(seed)).tolist()
    begin = prompt(CONFIG, ROLE, text[0], speaker="dylan" if seed % 2 else "ryan", language="English")
    return Stream(begin, text[1:], request_key(seed, "a call"))


class Batch:
    """Rows that streams come to and leave; what each frame of a row was, codes and scores."""

    def __init__(self, talker: Talker, sampler: CodeSampler = DRAWN) -> None:
        self.talker, self.sampler = talker, sampler
        self.cache = StaticCache.empty(CONFIG.transformer, ROWS, ROOM)
        self.predictor_cache = StaticCache.empty(CONFIG.predictor.transformer, ROWS, CONFIG.codebooks)
        self.hidden, self.scores = torch.zeros(ROWS, 32), torch.zeros(ROWS, CONFIG.codes)
        self.heard = torch.zeros(ROWS, CONFIG.codes, dtype=torch.bool)
        self.frames, self.positions, self.keys = (torch.zeros(ROWS, dtype=torch.int64) for _ in range(3))
        self.streams: list[Stream | None] = [None] * ROWS

    def begin(self, row: int, stream: Stream) -> None:
        embeddings = stream.prompt.embedded(self.talker)
        length = embeddings.shape[1]
        hidden, scores = self.talker.prefill(embeddings, torch.tensor([length]), self.cache.row(row))
        self.hidden[row], self.scores[row] = hidden[0], scores[0]
        self.heard[row], self.frames[row] = False, 0
        self.positions[row], self.keys[row] = length, stream.key
        self.streams[row] = stream

    def frame(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes [rows, 16] and the scores thereafter."""
        noise = self.sampler.noise(self.keys, self.frames)
        first = self.sampler.first(self.scores, self.heard, self.frames, noise)
        codes = self.talker.frame(self.hidden, first, partial(self.sampler.other, noise), self.predictor_cache)
        tokens = [
            stream.text[frame] if stream and frame < len(stream.text) else CONFIG.text_ids.tts_pad
            for stream, frame in zip(self.streams, self.frames.tolist(), strict=True)
        ]
        text = self.talker.embed_text(torch.tensor(tokens))
        self.hidden, self.scores = self.talker.step(codes, text, self.positions, self.cache)
        self.frames, self.positions = self.frames + 1, self.positions + 1
        return codes, self.scores.clone()


def alone(talker: Talker, row: int, wanted: Stream, frames: int) -> list[tuple[list[int], torch.Tensor]]:
    batch = Batch(talker)
    batch.begin(row, wanted)
    return [(codes[row].tolist(), scores[row]) for codes, scores in (batch.frame() for _ in range(frames))]


def same(ours: list[tuple[list[int], torch.Tensor]], others: list[tuple[list[int], torch.Tensor]]) -> bool:
    """Bit for bit, of as many frames as both have."""
    return all(
        codes == other and torch.equal(scores, more)
        for (codes, scores), (other, more) in zip(ours, others, strict=False)
    )


def test_neighbours_that_come_and_go_change_no_bit() -> None:
    talker = tiny_talker()
    with torch.inference_mode():
        expected = alone(talker, 1, stream(1), 12)
        batch = Batch(talker)
        batch.begin(0, stream(2))
        for _ in range(3):
            batch.frame()
        batch.begin(1, stream(1))
        found = []
        for frame in range(12):
            if frame in (4, 9):
                batch.begin(2, stream(frame))
            if frame == 6:
                batch.begin(0, stream(frame))
            codes, scores = batch.frame()
            found.append((codes[1].tolist(), scores[1]))
    assert same(found, expected)
    assert len({tuple(codes) for codes, _ in found}) > 6


def test_a_row_forgets_who_used_it_before() -> None:
    talker = tiny_talker()
    with torch.inference_mode():
        batch = Batch(talker)
        batch.begin(1, stream(5))
        for _ in range(10):
            batch.frame()
        batch.begin(1, stream(1))
        found = [(codes[1].tolist(), scores[1]) for codes, scores in (batch.frame() for _ in range(8))]
        assert same(found, alone(talker, 1, stream(1), 8))


def test_the_row_changes_no_code() -> None:
    """Not bit for bit: a product of matrices may sum the last rows in another order than the first."""
    talker = tiny_talker()
    with torch.inference_mode():
        spoken = [[codes for codes, _ in alone(talker, row, stream(1), 8)] for row in range(ROWS)]
    assert spoken[0] == spoken[1] == spoken[2]


def test_a_batch_says_what_a_stream_alone_says() -> None:
    talker = tiny_talker()
    with torch.inference_mode():
        wanted = stream(1)
        batched = [codes for codes, _ in alone(talker, 1, wanted, 12)]
        single = list(speak(talker, wanted.prompt, wanted.text, DRAWN, key=wanted.key, frames=12))
        other = list(speak(talker, wanted.prompt, wanted.text, DRAWN, key=wanted.key + 1, frames=12))
    assert single
    assert batched[: len(single)] == single  # a batch does not look for the end
    assert other != single


def test_greedy_codes_need_no_key() -> None:
    talker, sampler, wanted = tiny_talker(), CodeSampler(CONFIG, SpeechSampling(GREEDY, GREEDY)), stream(1)
    with torch.inference_mode():
        spoken = [list(speak(talker, wanted.prompt, wanted.text, sampler, key=key, frames=6)) for key in (1, 2)]
    assert spoken[0] == spoken[1]


@pytest.mark.parametrize("padding", [0, 1, 9])
def test_a_padded_prompt_reads_as_an_unpadded_one(padding: int) -> None:
    talker = tiny_talker()
    with torch.inference_mode():
        embeddings = torch.cat([stream(seed).prompt.embedded(talker) for seed in (1, 2)])
        lengths = torch.tensor([10, 6])
        padded = torch.cat((embeddings, torch.full((2, padding, 32), 9.0)), 1)
        cache = StaticCache.empty(CONFIG.transformer, 2, ROOM)
        hidden, _ = talker.prefill(padded, lengths, cache)
        text = torch.ones(2, 32)
        codes = torch.full((2, 16), 3)
        after, _ = talker.step(codes, text, lengths, cache)
        for row, length in enumerate(lengths.tolist()):
            single = DynamicCache()
            expected, _ = talker.prefill(embeddings[row : row + 1, :length], torch.tensor([length]), single)
            assert torch.allclose(hidden[row], expected[0], atol=1e-5)
            expected, _ = talker.step(codes[:1], text[:1], torch.tensor([length]), single)
            assert torch.allclose(after[row], expected[0], atol=1e-5)


def test_a_cache_can_be_read_into_elsewhere_and_copied() -> None:
    talker, wanted = tiny_talker(), stream(1)
    with torch.inference_mode():
        direct, staged = (
            StaticCache.empty(CONFIG.transformer, ROWS, ROOM),
            StaticCache.empty(CONFIG.transformer, ROWS, ROOM),
        )
        staging = StaticCache.empty(CONFIG.transformer, 1, ROOM)
        embeddings = wanted.prompt.embedded(talker)
        lengths = torch.tensor([embeddings.shape[1]])
        talker.prefill(embeddings, lengths, direct.row(2))
        talker.prefill(embeddings, lengths, staging)
        staged.row(2).copy_from(staging)
        codes, text, positions = torch.full((ROWS, 16), 3), torch.zeros(ROWS, 32), lengths.repeat(ROWS)
        ours, _ = talker.step(codes, text, positions, direct)
        theirs, _ = talker.step(codes, text, positions, staged)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours[2], ours[0])


def test_a_frame_looks_at_no_value() -> None:
    """On tensors without values, whatever would have to wait for one raises: so a frame can be captured as a graph."""
    talker = tiny_talker().to("meta")
    cache = StaticCache.empty(CONFIG.transformer, ROWS, ROOM, device="meta")
    predictor_cache = StaticCache.empty(CONFIG.predictor.transformer, ROWS, CONFIG.codebooks, device="meta")
    sampler = CodeSampler(CONFIG, SAMPLING, device="meta")
    with torch.device("meta"), torch.inference_mode():
        counts = torch.zeros(ROWS, dtype=torch.int64)
        heard = torch.zeros(ROWS, CONFIG.codes, dtype=torch.bool)
        text = torch.zeros(ROWS, 32)
        hidden, scores = talker.prefill(torch.zeros(ROWS, 7, 32), counts, cache)
        noise = sampler.noise(counts, counts)
        first = sampler.first(scores, heard, counts, noise)
        codes = talker.frame(hidden, first, partial(sampler.other, noise), predictor_cache)
        hidden, scores = talker.step(codes, text, counts, cache)
    assert codes.shape == (ROWS, 16)
    assert (hidden.shape, scores.shape) == ((ROWS, 32), (ROWS, CONFIG.codes))


def test_half_the_precision_says_nearly_the_same() -> None:
    exact, rounded, wanted = tiny_talker(), tiny_talker().to(torch.bfloat16), stream(1)
    spoken = []
    with torch.inference_mode():
        for talker in (exact, rounded):
            precision = talker.codec_head.weight.dtype
            cache = StaticCache.empty(CONFIG.transformer, 1, ROOM, dtype=precision)
            embeddings = wanted.prompt.embedded(talker)
            lengths = torch.tensor([embeddings.shape[1]])
            talker.prefill(embeddings, lengths, cache)
            _, scores = talker.step(torch.full((1, 16), 3), torch.zeros(1, 32, dtype=precision), lengths, cache)
            assert scores.dtype == precision
            spoken.append(scores.float())
    assert torch.nn.functional.cosine_similarity(*spoken).item() > 0.999


@pytest.mark.parametrize("rounding", [torch.float32, torch.bfloat16])
def test_rotary_frequencies_are_never_rounded(rounding: torch.dtype) -> None:
    talker: Talker = tiny_talker().to(rounding)
    assert talker.model.rotary.frequencies.dtype == torch.float32
    assert torch.equal(talker.model.rotary.frequencies, tiny_talker().model.rotary.frequencies)
