"""Shards -> a model -> a lip-synced video: the second half. Meets the first (`curation`) only in shard and manifest.

To follow the paper, read models/mask (section 3.2), id_guider (3.3), audio (3.4), unet, network (3.5), denoiser
(equations 2 to 5), loss, then data and train. Appendix B is sampler, chunk and generate; on its way from a video to
another, person says whose face is generated, faces where it is, plan in which frames, and composite pastes it.
early refuses wrong arguments, look shows what the network will see. Beside the paper stand flip and mixture (of the
data), guidance (a scale for each condition), recipe (what a run keeps when it goes on), plateau (when listening rises
no more), lora (one new speaker) and pipeline (a model for others).
evaluation/ measures what was generated.
"""

import logging

# diffusers imports bitsandbytes where it is installed, which then warns of a kernel that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
