"""A package of somebody's own: every kind of part that hsw lets one add, and no edit of hsw."""
