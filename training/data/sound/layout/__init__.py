"""Where in a sound file's bytes the sound lies, whatever the header says of its length."""
