"""What holds for all tests."""

from hypothesis import settings

# A limit in wall time says more of what else the machine does than of the code.
settings.register_profile("stepwell", deadline=None)
settings.load_profile("stepwell")
