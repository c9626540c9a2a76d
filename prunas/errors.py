"""The two ways in which work can end badly, told apart by whose move is next."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was found and what to do."""


class RunError(RuntimeError):
    """A run that had started could not go on; the message says what happened and what is kept."""
