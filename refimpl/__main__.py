"""The command line: python -m refimpl COMMAND, one of demo, train, sample, score, systems, reconstruct, interpolate,
latent, charts and show."""
import argparse
import sys

from . import charts, demo, parsers, show, views

DESCRIPTION = """Exact NumPy reference of diffusion models and GANs.

New here? `python -m refimpl demo` trains a diffusion model on handwritten digits, draws new ones,
and says how good they are, in a few minutes. `python -m refimpl show posterior` shows an equation,
its code and its gradient."""


def parser():
    """The parser of all commands; each module adds its own."""
    top = argparse.ArgumentParser(prog="python -m refimpl", description=DESCRIPTION,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo.add_parser(subparsers)
    parsers.add_parsers(subparsers)
    views.add_parsers(subparsers)
    charts.add_parser(subparsers)
    show.add_parser(subparsers)
    return top


def main(argv=None):
    """Run a command. A user's mistake is one sentence on stderr and exit status 1; wrong usage is 2; Ctrl-C is 130."""
    args = parser().parse_args(argv)
    if getattr(args, "device", None):
        args.backend = f"{args.backend or 'cpu'}:{args.device}"
    try:
        return args.run(args) or 0
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", 130)
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        sys.stderr.close()
        return 1
    except MemoryError as error:
        return _fail(f"not enough memory: {error}", 1)
    except (ValueError, OSError, ImportError, ArithmeticError) as error:
        return _fail(str(error), 1)
    except LookupError as error:
        if type(error) is not LookupError:  # a KeyError or IndexError is our mistake, not the user's
            raise
        return _fail(str(error), 1)


def _fail(message, status):
    print(f"refimpl: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
