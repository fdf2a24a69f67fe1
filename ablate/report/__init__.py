"""From the record of an experiment's runs to an answer: effects, intervals, verdicts.

    statistics   an effect and its interval from paired outcomes; chances of each verdict
    runs         the runs of a folder and what they must share
    contrasts    which arms are compared, and in which family
    verdict      rule by rule from interval to word; what an effect is worth in compute
    content      everything that a rendering needs, in one dataclass
    assemble     runs -> content
    markdown     content -> text
    calibration  can the instrument be trusted? simulated experiments with a known truth
"""
