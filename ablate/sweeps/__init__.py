"""Many runs: `python -m ablate -m ...`.

jobs     a sweep, and each of its runs in whatever process a launcher gives it
planned  what a sweep is about to do, kept beside its runs
state    what the processes of a sweep tell each other
"""
