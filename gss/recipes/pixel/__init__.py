"""Per-pixel networks: an encoder, a head, and a score for every class at every pixel."""
