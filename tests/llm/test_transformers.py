"""The engine on torch, with a tiny model of random weights made here; and the small real one, from its GGUF file."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemons.errors import BadRequest, ConfigurationError
from daemons.llm.generation import ChatMessage, Generated, Generation
from daemons.settings import Settings
from tests.llm import tiny_models
from tests.llm.conftest import SMALL_MODEL
from tests.llm.tiny_models import WORDS

pytest.importorskip("torch", reason="torch is not installed; make an environment from requirements-torch.lock")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),  # torch and transformers warn of their own affairs
]

CONTEXT_TOKENS = 1024
QUESTION = Generation(
    messages=[ChatMessage("system", "the cat sat on a mat"), ChatMessage("user", "where is the dog")],
    max_tokens=24,
    temperature=0.0,
    repeat_penalty=1.0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.reader(tmp_path_factory.mktemp("reader"))


def opened(place: Path) -> Any:
    from daemons.llm.engines.transformers import Transformers  # noqa: PLC0415

    engine = Transformers(place, slots=2, context_tokens=CONTEXT_TOKENS, threads=1)
    engine.load()
    return engine


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    engine = opened(folder)
    yield engine
    engine.close()


def run(engine: Any, generation: Generation, slot: int = 0, stop_after: int = 10**6) -> tuple[list[str], Generated]:
    """What was emitted, and how it ended; stopped after so many calls of `emit`."""
    pieces: list[str] = []

    def emit(text: str) -> bool:
        pieces.append(text)
        return len(pieces) >= stop_after

    generated = engine.generate(slot, generation, emit)
    return [piece for piece in pieces if piece], generated


def test_it_streams_as_many_tokens_as_it_may(engine: Any) -> None:
    pieces, generated = run(engine, QUESTION)
    assert len(pieces) > 10
    assert (generated.reason, generated.completion_tokens) == ("length", 24)
    assert generated.prompt_tokens > 10


def test_the_text_is_that_of_generate_itself(engine: Any) -> None:
    import torch  # noqa: PLC0415

    pieces, _ = run(engine, QUESTION)
    ids = torch.tensor([engine._prompt(QUESTION)[0]])
    whole = engine._model.generate(ids, max_new_tokens=24, do_sample=False)
    text = engine._tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
    said = "".join(pieces)
    assert text.startswith(said)
    assert text[len(said) :].strip("�") == ""  # half a character at the end is not shown


def test_a_second_turn_reads_its_new_tokens_only_and_answers_as_without_the_cache(engine: Any) -> None:
    pieces, first = run(engine, QUESTION)
    follow_up = [ChatMessage("assistant", "".join(pieces)), ChatMessage("user", "and the town")]
    second = replace(QUESTION, messages=[*QUESTION.messages, *follow_up])
    with_cache, warm = run(engine, second)
    assert warm.cached_tokens >= first.prompt_tokens
    run(engine, replace(QUESTION, messages=[ChatMessage("user", "something else")]))
    without_cache, cold = run(engine, second)
    assert cold.cached_tokens < 3
    assert with_cache == without_cache


def test_a_slot_remembers_its_own_conversation_only(engine: Any) -> None:
    run(engine, QUESTION, slot=0)
    _, elsewhere = run(engine, replace(QUESTION, messages=[ChatMessage("user", "rained")]), slot=1)
    assert elsewhere.cached_tokens == 0
    _, again = run(engine, QUESTION, slot=0)
    assert again.cached_tokens == again.prompt_tokens - 1


def test_a_prompt_can_be_read_before_it_is_needed(engine: Any) -> None:
    turn = replace(QUESTION, messages=[ChatMessage("user", " ".join(WORDS * 10))])
    pieces, read = run(engine, replace(turn, max_tokens=0))
    assert (pieces, read.completion_tokens) == ([], 0)
    _, generated = run(engine, turn)
    assert generated.cached_tokens == generated.prompt_tokens - 1


def test_a_stop_ends_the_answer_before_it(engine: Any) -> None:
    pieces, _ = run(engine, QUESTION)
    said = "".join(pieces)
    stop = said[len(said) // 2 :][:3]
    pieces, generated = run(engine, replace(QUESTION, stop=[stop]))
    assert "".join(pieces) == said[: said.find(stop)]
    assert generated.reason == "stop"
    assert generated.completion_tokens < 24


def test_the_model_s_own_end_ends_the_answer(engine: Any) -> None:
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        weights = engine._model.lm_head.weight
        kept = weights[engine._ends[0]].clone()
        weights[engine._ends[0]] = 0
        # The last hidden state of this prompt points to the end now
        ids = torch.tensor([engine._prompt(QUESTION)[0]])
        hidden = engine._model.model(ids).last_hidden_state[0, -1]
        weights[engine._ends[0]] = 100 * hidden
    try:
        pieces, generated = run(engine, QUESTION)
    finally:
        with torch.inference_mode():
            weights[engine._ends[0]] = kept
    assert (pieces, generated.reason, generated.completion_tokens) == ([], "stop", 1)


def test_the_same_seed_says_the_same_also_beside_another_slot(engine: Any) -> None:
    drawn = replace(QUESTION, temperature=1.5, seed=7)
    alone, _ = run(engine, drawn)
    assert run(engine, replace(drawn, seed=8))[0] != alone
    beside: dict[int, list[str]] = {}

    def ask(slot: int) -> None:
        beside[slot], _ = run(engine, drawn, slot)

    threads = [threading.Thread(target=ask, args=(slot,)) for slot in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert beside == {0: alone, 1: alone}


def test_a_draw_follows_the_distribution(engine: Any) -> None:
    import torch  # noqa: PLC0415

    from daemons.llm.engines.transformers import processors  # noqa: PLC0415

    wanted = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawing = replace(QUESTION, temperature=1.0, top_p=0.9, seed=1)
    chain = processors(drawing, torch.device("cpu"))
    prompt = torch.zeros((1, 0), dtype=torch.long)
    draws = [int(chain(prompt, wanted.log()[None].clone()).argmax()) for _ in range(4000)]
    share = torch.bincount(torch.tensor(draws), minlength=4) / len(draws)
    assert share[3] == 0  # beyond top_p
    assert torch.allclose(share[:3], wanted[:3] / wanted[:3].sum(), atol=0.03)


def test_penalties_count_the_answer_s_tokens(engine: Any) -> None:
    import torch  # noqa: PLC0415

    from daemons.llm.engines.transformers import processors  # noqa: PLC0415

    chain = processors(replace(QUESTION, presence_penalty=0.5, frequency_penalty=0.25), torch.device("cpu"))
    zero = torch.zeros((1, 4))
    assert chain(torch.tensor([[3, 3]]), zero.clone()).tolist() == [[0, 0, 0, 0]]
    assert chain(torch.tensor([[3, 3, 1, 1, 2]]), zero.clone()).tolist() == [[0, -1.0, -0.75, 0]]


def test_a_cancelled_answer_stops_within_a_token_and_the_slot_is_free(engine: Any) -> None:
    pieces, generated = run(engine, replace(QUESTION, max_tokens=800), stop_after=10)
    assert generated.reason == "cancelled"
    assert len(pieces) <= 10
    assert generated.completion_tokens <= 11
    assert run(engine, QUESTION)[1].completion_tokens == 24


def test_a_long_prompt_can_be_cancelled_while_it_is_read(engine: Any) -> None:
    long = replace(QUESTION, messages=[ChatMessage("user", " ".join(WORDS * 20))])
    pieces, generated = run(engine, long, stop_after=2)
    assert (pieces, generated.reason) == ([], "cancelled")
    _, again = run(engine, long)
    assert again.cached_tokens == 2 * 64  # what was read is not lost


def test_a_prompt_that_does_not_fit_is_refused(engine: Any) -> None:
    with pytest.raises(BadRequest, match=str(CONTEXT_TOKENS)):
        run(engine, replace(QUESTION, messages=[ChatMessage("user", "rained " * CONTEXT_TOKENS)]))


def test_an_answer_ends_where_the_context_does(engine: Any) -> None:
    nearly = replace(QUESTION, messages=[ChatMessage("user", "t" * (CONTEXT_TOKENS - 10))], max_tokens=50)
    _, generated = run(engine, nearly)
    assert generated.reason == "length"
    assert generated.prompt_tokens + generated.completion_tokens == CONTEXT_TOKENS


def test_what_the_template_refuses_is_a_bad_request(engine: Any) -> None:
    with pytest.raises(BadRequest, match="no tools"):
        run(engine, replace(QUESTION, messages=[ChatMessage("tool", "x")]))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no config"):
        opened(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=tmp_path.name):
        opened(tmp_path)


def test_the_small_model_answers_from_its_gguf_file() -> None:
    from daemons.llm.engine import transformers  # noqa: PLC0415

    engine = transformers(Settings(llm_model=SMALL_MODEL, slots=1, direct_slots=1, llm_context_tokens=CONTEXT_TOKENS))
    engine.load()
    question = replace(QUESTION, messages=[ChatMessage("user", "What is the capital of France?")], max_tokens=12)
    pieces, _ = run(engine, question)
    engine.close()
    assert "Paris" in "".join(pieces)
