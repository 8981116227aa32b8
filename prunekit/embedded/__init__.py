"""Small trained models and real data that ship with prunekit, each with a card that says how to remake it."""
