"""What hsw.check looks for in an environment, an algorithm, a storage or a policy of somebody's own."""
