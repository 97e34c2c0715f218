"""Entry point of `pansharpen` and `python -m pansharpen_cli`: signals are seen to before anything large is imported."""

from . import interrupts


def main() -> None:
    """Run the command line."""
    with interrupts.starting():
        from .cli import app
    with interrupts.ending():
        app.main()


if __name__ == "__main__":
    main()
