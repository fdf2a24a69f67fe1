"""What a design costs and what it can find, before anything runs: `python -m ablate.plan`.

design     a command line -> runs, arms, what is on disk of them
stand_in   in the place of a policy: answers of a given length, charged like real ones
rehearsal  what a budget buys an arm: its strategy, rehearsed on the stand-in
records    what finished runs spent, in FLOPs and seconds
cost       FLOPs by purpose, evaluation, warm start, disk
gpus       peak bf16 FLOP/s of named GPUs
benchmark  the speed of this machine, measured in some seconds
speed      seconds, from runs, from the benchmark, or on a named GPU
power      the smallest effect that the design sees; seeds for a verdict
content    everything that the plan says, in one dataclass
assemble   a command line -> content
text       content -> a terminal
"""
