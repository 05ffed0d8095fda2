"""The format of `<output>/shards`: WebDataset tars and their index.

sample      one record: its members, how they are encoded, what may be wrong with them
writer      samples -> a tar whose bytes depend on the samples alone
reader      one member or sample by index row; a tar from start to end
member      one sample, open: its members as files to seek in
remote      the same, of shards in an object store
index       index.parquet: where each sample lies
packer      the parts of a run -> shards of about equal size, in seeded order, then the index

`verify` is the earlier name of a command that is in `curation/` now.
"""
