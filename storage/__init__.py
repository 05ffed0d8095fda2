"""How files get onto a disk: whole or not at all, and tables that say what they are; and objects of stores.

atomic_write   a file or a folder that appears under its name when it is complete
digest         the sha256 of a file
table          parquet with a kind and a schema version in it
store          objects in stores by URL: listed, read, written, retried
scratch        copies of objects on this node
"""
