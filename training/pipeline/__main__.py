"""``python -m training.pipeline``."""

from training.errors import exit_on_user_error
from training.pipeline import main

exit_on_user_error(main)
