"""The `simgan` command, also as `python -m flows.cli`."""

import gc


def main() -> None:
    """Run the command line and exit with its code."""
    # Imports allocate a million objects that stay. To look through them for garbage is a fifth of a
    # short command's processor time; `flows.cli.main` enables it when all is imported.
    gc.disable()
    from flows.cli.main import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
