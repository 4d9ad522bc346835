"""Looking at results while they come into being. Nothing is written."""
