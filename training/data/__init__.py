"""From a manifest row to an encoded example."""
