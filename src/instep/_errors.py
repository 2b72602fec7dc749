"""Requests that cannot be met. The command line prints their message and exits with 2."""


class RequestError(Exception):
    """The request was wrong; the message says what to change."""


class MissingExtraError(RequestError, ImportError):
    """A package that only an optional part of instep needs is not installed."""


class TargetError(RequestError):
    """The TARGET of a command does not name something that can be used."""


class ParityError(RequestError):
    """The walk could not be made: one half raised, or the halves do not fit together."""
