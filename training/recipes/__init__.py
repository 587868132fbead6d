"""A walk through steps of commands: what is finished is not done again."""
