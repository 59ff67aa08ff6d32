"""The drill of a background whose sink is gone, in short."""

from pathlib import Path

import pytest

from ops.drill.mixer import CLOSED, KILLED, MOST_A_SECOND, MOST_END_MS, PLAYING, ROOM_SINK, SOURCE_SINK, drill


@pytest.mark.integration
async def test_a_background_whose_sink_is_gone_is_paced_small_and_ends(tmp_path: Path) -> None:
    seconds: list[int] = []
    report = await drill(8, folder=tmp_path, on_second=seconds.append)
    bounds = {bound.name: bound for bound in report.bounds}
    assert bounds["level that was heard before"].held, report.as_data()
    assert bounds["turns of a playout's loop in any second without a server"].measured <= MOST_A_SECOND
    for sink in (ROOM_SINK, SOURCE_SINK):
        assert bounds[f"from its cancel to the end of playout to {sink}"].measured <= MOST_END_MS
        assert report.samples[f"frames to {sink}, {PLAYING}"].median >= 25
    for phase in (KILLED, CLOSED):
        assert report.samples[f"frames to {SOURCE_SINK}, {phase}"].max >= 25, "it went on"
    before_mb, after_mb = report.counts.values()
    assert after_mb - before_mb < 20
    assert len(seconds) >= 8
