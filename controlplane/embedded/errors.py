"""What stops `up` before it serves anyone: one sentence each, written for the person who started it."""

from controlplane.core.errors import Move, SlipwayError


class SetupError(SlipwayError):
    """This machine, or what was asked of it, does not allow the start. `title` is the whole sentence."""

    status, move = 503, Move.OPERATOR
