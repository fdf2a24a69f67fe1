"""Every arm's learning rate by the same search: `python -m ablate -m experiment=tune|tune_optuna`.

sweeper  Optuna as a Hydra sweeper: a study per strategy, as many trials for each
studies  their storage, which a rerun continues; importances and histories
trials   tuning runs of a grid or of studies -> what was tried, at what cost

`python -m ablate.tune` writes the winners as a config.
"""
