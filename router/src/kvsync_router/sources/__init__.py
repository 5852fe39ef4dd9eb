"""What decisions are based on, and where their outcome is reported.

`scoring`, `directory` and `predictions` talk to an index, over HTTP or in the same process; `health` keeps the table of
endpoints up to date; `client` is the HTTP connection pool that all of them share with the proxy.
"""
