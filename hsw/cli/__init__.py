"""What the commands have in common: how they run, and how an error reaches a person."""
