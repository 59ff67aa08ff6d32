from daemons.tts.kept import Kept


class Now:
    s = 0.0

    def __call__(self) -> float:
        return self.s


def test_the_oldest_go_when_there_are_too_many() -> None:
    kept: Kept[int] = Kept(count=2, age_s=60)
    for number in range(3):
        kept.keep(str(number), number)
    assert [kept.get(str(number)) for number in range(3)] == [None, 1, 2]


def test_what_was_asked_for_counts_as_new() -> None:
    kept: Kept[int] = Kept(count=2, age_s=60)
    kept.keep("a", 1)
    kept.keep("b", 2)
    kept.get("a")
    kept.keep("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_the_oldest_go_when_they_are_too_large_together() -> None:
    kept: Kept[str] = Kept(count=9, age_s=60, total_bytes=100)
    kept.keep("a", "a", 40)
    kept.keep("b", "b", 40)
    kept.keep("b", "grown", 70)
    assert (kept.get("a"), kept.get("b"), kept.bytes) == (None, "grown", 70)


def test_what_is_too_large_alone_is_not_kept() -> None:
    kept: Kept[str] = Kept(count=9, age_s=60, total_bytes=100)
    kept.keep("a", "a", 101)
    assert (kept.get("a"), kept.bytes, len(kept)) == (None, 0, 0)


def test_what_nobody_asks_for_goes_after_its_time() -> None:
    now = Now()
    kept: Kept[str] = Kept(count=9, age_s=10, now_s=now)
    kept.keep("a", "a")
    kept.keep("b", "b")
    now.s = 9
    assert kept.get("b") == "b"
    now.s = 11
    assert (kept.get("a"), kept.get("b")) == (None, "b")
    now.s = 30
    assert (kept.get("b"), len(kept)) == (None, 0)
