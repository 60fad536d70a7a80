"""gunicorn's settings for examples/flask_service.py: it is loaded once, then the processes part."""

import os

chdir = os.path.dirname(__file__)
workers = 2
threads = 4
preload_app = True


def post_fork(server, worker):
    import flask_service

    flask_service.serve()


def worker_exit(server, worker):
    import flask_service

    flask_service.stop()
