"""All SQL. Each module holds the statements of one concern beside the values they take and return.

Functions take lists: a statement has one `jsonb` parameter, which costs about the same for one row as for two
hundred. Times are the database's own.
"""
