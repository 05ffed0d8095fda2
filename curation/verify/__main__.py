"""`python -m curation.verify OUT`"""

from curation.verify.command import main

if __name__ == "__main__":
    raise SystemExit(main())
