"""Text generation and scoring engines."""
