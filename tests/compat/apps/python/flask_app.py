"""The programs served by Flask, as blocking functions."""

import flask
import inngest.flask
import sync

programs = sync.load(blocking=True)
app = flask.Flask(__name__)
inngest.flask.serve(app, programs.client, programs.functions)
