"""Everything that has to be seen on an accelerator, prepared for the few minutes that one is at hand.

Command:   make gpu [WHEELS=folder] [DATA=folder] [ARGS="--budget 240"]
           WHEELS: wheels of what the machine lacks (`make gpu-wheels WHEELS=folder` fetches them beforehand).
           DATA: `imagenet_mobilenetv2.npz` and `flowers102_64px.npz`, for the comparison alone; at most 40 MB.
Hardware:  one H100-class GPU (JAX for CUDA has to be there); nothing is fetched. `ARGS=--toy` runs all of it on a CPU.
Time:      four minutes; what does not fit is said, and the same command does it, or what failed, the next time.
Writes:    <out>/gpu.json after every part, with the card's name and all versions; <out>/log.txt.

Expect:    not measured yet: docs/accelerator.md says what the goals are.
"""
