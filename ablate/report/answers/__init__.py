"""The essay's own pictures: how accuracy goes with length, with test-time compute, with longer training.

content    what a rendering needs of the three
readings   means and slopes of one arm with intervals, from however many seeds
length     length and accuracy, three curves
files      what `python -m ablate.testtime` has measured
testtime   accuracy against test-time compute
longer     training far past the plateau
wording, tables, charts, figures   content -> claims in words, numbers, pictures
"""
