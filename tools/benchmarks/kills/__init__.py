"""Kill a run at random moments, change one setting each time, and check what it trained on."""
