"""Bytes to and from viewers. Knows nothing of commerce, and nothing of stores."""
