"""Ways of giving the servers new weights; each is a file."""
