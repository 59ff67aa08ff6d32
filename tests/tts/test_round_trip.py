"""What the voice says, the ear understands."""

import aiohttp
import pytest

from tests.speech_samples import word_error_rate
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

SENTENCES = [
    "Good morning, how can I help you today?",
    "The capital of France is Paris, and the river is called the Seine.",
    "I am sorry, I did not understand that. Could you say it again?",
    "Take the second street on the left, then walk past the old church.",
    "Once upon a time there was a small dragon who was afraid of the dark.",
]


async def test_what_the_voice_says_is_understood(
    tts: WorkerProcess, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    heard = []
    with WorkerProcess("stt", redis_url, tmp_path_factory.mktemp("stt")) as stt:
        async with aiohttp.ClientSession() as session:
            for sentence in SENTENCES:
                async with session.post(
                    f"{tts.url}/v1/audio/speech", json={"input": sentence, "response_format": "wav"}
                ) as response:
                    wav = await response.read()
                form = aiohttp.FormData({"response_format": "text"})
                form.add_field("file", wav, filename="speech.wav")
                async with session.post(f"{stt.url}/v1/audio/transcriptions", data=form) as response:
                    heard.append(await response.text())
    assert word_error_rate(" ".join(SENTENCES), " ".join(heard)) < 0.08
