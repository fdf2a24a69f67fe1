"""Can the instrument be trusted? Experiments are simulated whose truth is known.

world       what makes the difference of two arms vary, given or measured
fixed       designs with a number of seeds
rare        where the intervals fail: training that works on some seeds only
sequential  designs that look at declared numbers of seeds, and stop

`python -m ablate.report.calibration` prints the tables.
"""
