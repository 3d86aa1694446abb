"""Tuning: a study of trials, each a configuration whose seeds are ordinary jobs; kept in a journal and in folders."""
