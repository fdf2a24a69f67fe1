"""Search over steps: the tree, for training and for test time."""
