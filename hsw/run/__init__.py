"""What every run needs and no algorithm knows."""
