"""The families that take the user's own data, with nothing but recipe keys."""
