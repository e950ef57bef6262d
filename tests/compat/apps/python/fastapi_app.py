"""The programs served by FastAPI."""

import fastapi
import inngest.fast_api
import programs

app = fastapi.FastAPI()
inngest.fast_api.serve(app, programs.client, programs.functions)
