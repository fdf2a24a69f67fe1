"""From the record of an experiment's runs to an answer: effects, intervals, verdicts.

loading      the runs of a folder, and what they must share
runs         a run's accuracy per problem at any amount of compute
contrasts    which arms are compared, and in which family
statistics   an effect and its interval from paired outcomes; chances of each verdict
verdict      rule by rule from interval to word; what an effect is worth in compute
effects      the three together, for every contrast
content      everything that a rendering needs, in one dataclass
assemble     runs -> content
markdown     content -> text
tables       content -> every number
drawing      how figures look, on the page and as files
charts       the kinds of charts
figures      content -> figures
page         content and figures -> one HTML file
calibration  can the instrument be trusted? simulated experiments with a known truth
"""
