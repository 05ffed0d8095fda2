"""The earlier place of `storage.atomic_write`."""

from storage.atomic_write import atomic_write as whole_file  # noqa: F401
