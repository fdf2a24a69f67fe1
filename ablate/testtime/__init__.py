"""Accuracy against test-time compute: trained runs under every test-time method."""
