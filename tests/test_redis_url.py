"""The addresses of Redis: what is understood, and what is said of the others."""

import pytest

from daemons.redis_url import Sentinels, parse


@pytest.mark.parametrize("url", ["redis://h:6380/0", "redis://h", "rediss://u:p@h:1/2", "unix:///run/redis.sock"])
def test_one_server_is_redis_pys_affair(url: str) -> None:
    assert parse(url) is None


@pytest.mark.parametrize(
    ("url", "sentinels"),
    [
        ("redis+sentinel://a:26379/callbox", Sentinels((("a", 26379),), "callbox")),
        ("redis+sentinel://a:1,b:2,[::1]:3/svc/4", Sentinels((("a", 1), ("b", 2), ("::1", 3)), "svc", 4)),
        ("redis+sentinel://:p%40ss@a:1/svc/0", Sentinels((("a", 1),), "svc", 0, None, "p@ss")),
        ("redis+sentinel://user:word@a:1,b:2/svc", Sentinels((("a", 1), ("b", 2)), "svc", 0, "user", "word")),
    ],
)
def test_sentinels_are_named_with_their_service(url: str, sentinels: Sentinels) -> None:
    assert parse(url) == sentinels


def test_a_password_is_not_shown() -> None:
    assert "word" not in repr(parse("redis+sentinel://user:word@a:1/svc"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6380", "redis://HOST:PORT/DB"),
        ("http://h:1/0", "redis://HOST:PORT/DB"),
        ("redis://h:port/0", "Port could not be cast"),
        ("redis://h:0/0", "redis://HOST:PORT/DB"),
        ("redis+sentinel://a:1,b:2", "/SERVICE"),
        ("redis+sentinel://a:1/svc/x", "/SERVICE"),
        ("redis+sentinel://a:1/svc?db=1", "/SERVICE"),
        ("redis+sentinel://a/svc", "HOST:PORT, not as 'a'"),
        ("redis+sentinel://a:1,/svc", "HOST:PORT, not as ''"),
        ("redis+sentinel://:1/svc", "HOST:PORT, not as ':1'"),
        ("redis+sentinel://a:99999/svc", "out of range"),
    ],
)
def test_anything_else_is_told_what_is_wanted(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        parse(url)
