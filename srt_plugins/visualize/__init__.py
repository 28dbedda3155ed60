"""Looking at features, at how much the views disagree, and at predictions before and after."""
