"""The programs served by Django: blocking functions, or coroutines where `FUNCTIONS=async`."""

import os
import sys

import django.conf
import django.core.asgi
import django.core.management
import django.core.wsgi

django.conf.settings.configure(ALLOWED_HOSTS=["*"], DATA_UPLOAD_MAX_MEMORY_SIZE=None, DEBUG=False, ROOT_URLCONF=__name__, SECRET_KEY="x")
django.setup()

import inngest.django  # noqa: E402
import sync  # noqa: E402

programs = sync.load(blocking=os.environ.get("FUNCTIONS") != "async")
urlpatterns = [inngest.django.serve(programs.client, programs.functions)]
asgi = django.core.asgi.get_asgi_application()
wsgi = django.core.wsgi.get_wsgi_application()

if __name__ == "__main__":
    sys.modules["django_app"] = sys.modules[__name__]
    django.core.management.execute_from_command_line(sys.argv)
