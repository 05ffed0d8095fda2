"""Published lists of talking-face data, read as they are. One file each; its name is that of `--dataset`.

`listed` is what they have in common, `match` finds their files. Nothing here opens a connection.
"""
