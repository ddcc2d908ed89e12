"""The one exception for what a user can get wrong."""


class UserError(Exception):
    """Something the user can put right: one clear line saying what, where and what to do.

    Commands print the message without a traceback and exit with code 2.
    """
