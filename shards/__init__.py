"""The format of `<output>/shards`: WebDataset tars and their index.

sample      one record: its members, how they are encoded, what may be wrong with them
writer      samples -> a tar whose bytes depend on the samples alone
reader      one member or sample by index row; a tar from start to end
index       index.parquet: where each sample lies
packer      the parts of a run -> shards of about equal size, in seeded order, then the index
table       parquet with a kind and a schema version in it (manifests uses it too)
atomic_write  a file that appears whole or not at all (manifests uses it too)
"""
