"""Problems and the verifiers that judge answers, in text; each class is its own configuration."""
