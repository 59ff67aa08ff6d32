from daemons.errors import Unavailable, in_words


def test_an_error_that_says_nothing_is_named() -> None:
    assert in_words(TimeoutError()) == "TimeoutError"
    assert in_words(Unavailable("redis is away")) == "redis is away"
