"""Word n-gram models: estimated from text, kept as ARPA files, asked for log probabilities."""
