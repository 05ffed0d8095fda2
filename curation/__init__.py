"""Raw video -> clips, scores, verdicts.

run       the command: hands one source video at a time to the workers; pool is the only file that imports ray
worker    what runs in each worker; lock: one driver at a time; progress: its bar
schedule  who has which source, and what follows when a worker or a node dies; handshake: what a node must see
intake    the header and hash of each source, then its curation; outcome: what has come of them, and when to stop
videos    which files a run is about; doctor: whether this machine can run it; plan: what a run will yield
source    one source video through the stages, to its part; objects: one of an object store, as a copy on this node
mirror    copies an output to an object store: `python -m curation.mirror OUT URL`
corpus    what needs all sources: packing, manifests; margin: from a part to a shard
ledger    what is done: recipe, committed parts; ledger_files: the files of OUT/ledger
clip      Clip, FaceTrack: what flows
stage     Step, Filter, Scan; build_stages and run_stages
verdicts  Verdict, Limit and `judge`, which turns numbers into verdicts
steps/    turn one clip into some clips, or attach something to it
filters/  measure a clip; their limits decide
datasets/ published lists of data sets: their segments, crops and labels
limits    the thresholds of a finished run, and how far each clip is from another verdict
refilter  other thresholds on stored scores: `python -m curation.refilter OUT --set ... --to OUT2`
duplicates  copies that were encoded again or mirrored: `python -m curation.duplicates OUT`
verify/   whether an output is whole: `python -m curation.verify OUT`
review/   what people look at: report and explain
"""
