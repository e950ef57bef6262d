"""SQLite files that users' own SQL works on: the databases of `app.sql(…)`, the private file of an actor.

Nothing here knows events, runs or servers. A file is opened as a `UserDatabase` (`connection.py`), for one thread at a time; what users
may do in it is `policy.py`, what their statements are `statements.py`, and an error is told in the words of `failures.py`.
"""
