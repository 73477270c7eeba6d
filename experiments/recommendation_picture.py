"""The picture: one user's several interests in item space, beside the comparison of methods."""
def save(setup, rows, path):
    pass
