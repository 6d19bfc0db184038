"""The one family of errors that a user can cause, each ending a command with a message and an exit status."""


class DeglaError(Exception):
    """A failure whose message says what to do next. Exit status 1.

    Attributes:
        reported: whether another process of the same job reports it.
    """

    exit_status = 1
    reported = False


class InputError(DeglaError):
    """Something the user gave is wrong: a file, a record, a flag, a name. Exit status 2.

    The message names the file, the record (line, index or id) and the field where there is one, and the remedy.
    """

    exit_status = 2
