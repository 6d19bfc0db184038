"""The one family of errors that a user can cause, each ending a command with a message and an exit status."""


class DeglaError(Exception):
    """A failure whose message says what to do next. Exit status 1.

    Attributes:
        reported: whether another process of the same job reports it; None: no other was asked.
    """

    exit_status = 1
    reported: bool | None = None


class InputError(DeglaError):
    """Something the user gave is wrong: a file, a record, a flag, a name. Exit status 2.

    The message names the file, the record (line, index or id) and the field where there is one, and the remedy.
    """

    exit_status = 2


def error_of_system(error: OSError) -> DeglaError:
    """What the operating system refused, of a path or a disk: a name that is too long, no permission, no space."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return DeglaError(f"{where}{error.strerror or error}.")
