"""The one kind of error that is meant for people."""


class UserError(Exception):
    """Something the user can mend. The text is one sentence that says what is wrong and what to do;
    the command line prints it without a traceback and exits with status 1."""
