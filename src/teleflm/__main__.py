"""`python -m teleflm` is the `teleflm` command, for launchers that start modules."""

from teleflm.cli.main import main

if __name__ == "__main__":
    main()
