"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, where, what to do.

    The message is one line, or one line and a table under it. The command
    line prints it without a traceback and exits with status 2.
    """
