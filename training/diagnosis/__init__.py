"""What is probably wrong with a run, by rules over what it has stored, and the command to try next.

`training.diagnosis.rules` holds the rules, `training.diagnosis.evidence` what they look at.
"""
