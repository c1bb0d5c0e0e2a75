"""Errors that a person can act on: one plain sentence that names the thing and what would be
right.
"""


class InputError(Exception):
    """What the user gave cannot be used; the command line prints the sentence and exits with code
    2.
    """


class RunError(RuntimeError):
    """A run failed while it was running; the command line prints the sentence and exits with code
    1.
    """
