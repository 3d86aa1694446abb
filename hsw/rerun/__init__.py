"""Parts of a run once more, from its folder alone: to see that they come out the same, or to look into them."""
