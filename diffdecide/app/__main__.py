"""`python -m diffdecide.app`, which launchers of several processes need."""

from diffdecide.app.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
