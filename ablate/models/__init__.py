"""Models: the tiny default, its warm start, what passes cost."""
