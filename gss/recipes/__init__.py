"""The systems that live here, a folder each."""
