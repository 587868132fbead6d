"""What this machine and this environment have, and what to do about what is missing (``polyvox doctor``).

Needs nothing but the standard library: it also answers where torch is missing or broken.
"""
