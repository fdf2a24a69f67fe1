"""From the record of an experiment's runs to an answer: effects, intervals, verdicts.

loading      the runs of a folder, and what they must share
runs         a run's accuracy per problem at any amount of compute
contrasts    which arms are compared, and in which family
statistics   an effect and its interval from paired outcomes; chances of each verdict
verdict      rule by rule from interval to word; what an effect is worth in compute
effects      the three together, for every contrast
arms         what each arm came to, and its curves
ladder       process rewards by one scorer after the other
controls     what other experiments have shown that the instrument can see
provenance   what is needed to do the runs again
content      everything that a rendering needs, in one dataclass
assemble     runs -> content
wording      content -> numbers and claims in words
tables       content -> every number: of arms, and of claims (claim_tables)
markdown     content -> text
drawing      how figures look, on the page and as files
charts       the kinds of charts
figures      content -> figures
answers      length and accuracy, test time, training far past the plateau (a room of its own)
page         content and figures -> one HTML file
mirror       all of it -> MLflow
calibration  can the instrument be trusted? (a room of its own)
"""
