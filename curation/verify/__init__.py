"""Checks an output folder: `python -m curation.verify OUT`.

command   the command, and `verify` for those who call it
tables    clips, sources, summary and index against each other
ledger    what is finished against manifests and parts
recipe    recipe.yaml and its predecessors against their hashes
shards    the tars against the index
streams   the video and sound of a sample
"""
