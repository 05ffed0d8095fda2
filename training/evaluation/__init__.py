"""How good generated videos are: the metrics of the paper's Table 1. The command is `python training/evaluate.py`.

evaluate         pairs videos by name, measures them, writes metrics.json and metrics.md
metrics          one video beside its reference: PSNR, SSIM, LPIPS, sync, and features of its frames
frechet          FID and FVD: the distance between the features of two sets of videos, and how sure it is
inception        what a frame shows, as the numbers that FID compares
i3d              what happens in a clip, as the numbers that FVD compares
lpips            how different two pictures look to people
flax_checkpoint  reads the weights of the last two
"""
