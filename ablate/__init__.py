"""A laboratory for one question: does training a reasoning model need search or process rewards?"""

__version__ = "0.1.0"
