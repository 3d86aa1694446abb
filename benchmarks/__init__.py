"""Speed beside peers (run) and learning results (results)."""
