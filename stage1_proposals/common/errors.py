"""The one exception for a user's mistakes."""


class UserError(Exception):
    """A mistake that the user can correct: one clear line saying what is wrong, where, and what to do.

    Commands print the message without a traceback and exit with code 2.
    """
