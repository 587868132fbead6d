"""One folder per architecture; `training.models.architecture` is what the rest knows of them."""
