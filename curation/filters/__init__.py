"""Filters measure a clip, then decide on the numbers alone. One file each; the name in a profile is the path."""
