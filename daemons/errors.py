"""The failures that callers of more than one part must tell apart, and how a process ends by them."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_DO_NOT_RESTART = 78  # EX_CONFIG of sysexits.h; supervisord's only `exitcodes`
EXIT_NOTICED_S = 1.2  # supervisord heeds the exit code of who outlived `startsecs`, 1 s; else it tries again


class CallboxError(Exception):
    """Base of every error that Callbox raises on purpose; its text is fit to be shown to an operator."""


class BadRequest(CallboxError):
    """The client sent something that can never succeed; it must change the request."""


class AtCapacity(CallboxError):
    """Every slot is taken; the same request may succeed later."""


class Unavailable(CallboxError):
    """What is needed is not there (a peer is down, a role has no worker)."""


class Fenced(CallboxError):
    """The request carries a lease that has been superseded, or names another boot of this worker."""


class LeaseLost(CallboxError):
    """The call's lease is gone; whatever was done under it must stop."""


class ConfigurationError(CallboxError):
    """A setting or a file makes it pointless to start again until a person changes it."""


def without_torch(engine: str, error: ModuleNotFoundError | None = None) -> ConfigurationError:
    """For an engine that stands on torch where it is not installed."""
    why = "" if error is None else f" ({error})"
    return ConfigurationError(
        f"the engine {engine} needs the extra `torch`{why}: "
        "run post_start.sh with CALLBOX_PROFILE=gpu, or install callbox[torch]"
    )


def in_words(error: BaseException) -> str:
    """What it says; its name when it says nothing, as a TimeoutError does."""
    return str(error) or type(error).__name__
