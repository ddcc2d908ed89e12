"""The exception for a user's mistakes, and how its messages quote text."""


class UserError(Exception):
    """A mistake that the user can correct: one clear line saying what is wrong, where, and what to do.

    Commands print the message without a traceback and exit with code 2.
    """


def quoted(text: str) -> str:
    """Text as a message can hold it: in quotes, on one line, of at most 200 characters."""
    return repr(text) if len(text) <= 200 else f"{text[:200]!r}..."
