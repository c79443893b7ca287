"""Hypothesis without deadlines: how long an example takes is a question for a benchmark."""

from hypothesis import settings

settings.register_profile("untimed")
settings.load_profile("untimed")
