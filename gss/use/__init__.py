"""A trained model at work: predictions for any images, and the model in other people's formats."""
