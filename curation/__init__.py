"""Raw video -> clips, scores, verdicts.

run      the command: hands one source video at a time to the workers. The only file that imports ray
corpus   what needs all sources: corpus filters, packing, manifests
source   one source video through the stages, to its part
ledger   what is done: recipe, committed parts
clip     Clip, FaceTrack, Verdict: the one thing that flows
stage    Step, Filter, Scan; build_stages and run_stages
steps/   turn one clip into some clips, or attach something to it
filters/ measure a clip and decide
"""
