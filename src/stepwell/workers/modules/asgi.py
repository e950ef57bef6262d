"""`import asgi`, as older Workers have it: `workers.asgi`."""

import sys

from stepwell.workers.modules.workers import asgi as _asgi

sys.modules[__name__] = _asgi
