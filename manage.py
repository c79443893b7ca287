#!/usr/bin/env python
"""Django's command line for Slipway."""

import atexit
import gc
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    from django.core.management import execute_from_command_line

    # Python would look through every object once more while it ends, which takes a third of a second.
    atexit.register(gc.freeze)
    execute_from_command_line(sys.argv)
