"""Errors of the native stack; each message says what to do next."""


class NativeError(Exception):
    """The stack can't do what was asked; the message names the remedy."""


class JarError(NativeError):
    """Kafka's jars could not be fetched, or are not the ones that were recorded."""


class StartError(NativeError):
    """A process did not come up; the message names its log file."""


class CommandError(NativeError):
    """The `penstock` command failed; the message has what it said."""
