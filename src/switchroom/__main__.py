"""`python -m switchroom` is the `switchroom` command."""

from switchroom.cli import main

if __name__ == "__main__":
    main()
