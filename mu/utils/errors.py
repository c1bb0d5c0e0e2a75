"""Errors for users, each with a message of one sentence that names the fault and the cure."""


class InputError(Exception):
    """Error of unusable input; the command line prints the message and exits with code 2."""


class MissingMethodError(InputError, NotImplementedError):
    """Error of a class that does not override what its base leaves to it."""


class RunError(RuntimeError):
    """Error of a failed run; the command line prints the message and exits with code 1."""


class UndefinedError(RunError):
    """Error of a metric without a value on these inputs; a suite records the sentence instead."""
