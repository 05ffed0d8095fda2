"""The one exception of this room."""


class MediaError(ValueError):
    """A file that cannot be used.

    `reason` is a reason of the manifest such as `error:probe`; the text says what was found.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
