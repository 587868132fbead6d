"""Writes a trained model for other engines, and checks that it still says what was scored."""
