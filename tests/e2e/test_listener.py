"""A whole box mends itself where no exit code tells supervisord that anything is wrong."""

import os
import signal

import pytest

from ops.private_box import PrivateBox

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_worker_that_hangs_is_restarted_and_its_story_is_told(box: PrivateBox) -> None:
    pid = box.pid("tts")
    os.kill(pid, signal.SIGSTOP)
    took_s = box.wait_ready("tts", other_than=pid)
    print(f"\nSIGSTOP of tts → ready again: {took_s:.1f} s")
    story = [line[25:] for line in box.callbox("events", "--worker", "tts", "--since", "2m").stdout.splitlines()]
    parts = ("tts hangs: no beat for", "gets no more calls", "tts hung and got SIGKILL", "is ready for calls")
    places = [max(i for i, line in enumerate(story) if part in line) for part in parts]
    assert places == sorted(places), story
    assert "tts hangs: no beat for" in box.log("listener")
    assert "Traceback" not in box.log("listener")
