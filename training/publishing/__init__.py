"""A finished run on the Hugging Face Hub: what of it goes there, its model card, the upload."""
