"""The web process: pages, API, uploads."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
application = get_wsgi_application()

# What was loaded stays loaded: the collector need not go through it again during requests.
gc.collect()
gc.freeze()
