"""``python -m prunekit``, as launchers of several processes start it."""

from prunekit.cli import main

if __name__ == "__main__":
    main()
