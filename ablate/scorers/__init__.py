"""Values of steps: who judges a prefix, and what that costs."""
