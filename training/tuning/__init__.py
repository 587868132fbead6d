"""The search for a configuration: ``polyvox tune``, through Optuna."""
