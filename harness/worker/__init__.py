"""The worker: runs in a framework's own interpreter, under Python 3.6 and later."""
