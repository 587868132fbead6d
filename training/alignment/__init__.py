"""Times of known words: forced alignment with a model that hears, and the manifest that keeps what it found."""
